//! The bill of materials of the operator, in CycloneDX: the crates that are linked into it.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use crate::error::{Context, Error, Result};
use crate::paths;

/// The crates of the operator, of which the image with this digest was made.
pub(super) async fn of_operator(digest: &str) -> Result<Value> {
    let lock = paths::checkout().join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock).at("reading", &lock)?;
    let checksums = checksums(&lock);
    let mut command = Command::new("cargo");
    let tree = ["tree", "--locked", "--package", "tenantry", "--edges", "normal", "--prefix", "none"];
    command.args(tree).args(["--format", "{p}\t{l}"]).current_dir(paths::checkout());
    let output = tokio::process::Command::from(command).output().await.context("running cargo tree")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(Error::message(format!("cargo tree: {errors}")));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let crates: BTreeMap<(&str, &str), &str> = text.lines().filter_map(parse).collect();
    let own = ("tenantry", env!("CARGO_PKG_VERSION"));
    let components = crates.iter().filter(|(name, _)| **name != own);
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {
            "type": "container", "bom-ref": digest, "name": own.0, "version": own.1,
            "licenses": [{"expression": "Apache-2.0"}],
        }},
        "components": components
            .map(|((name, version), licenses)| {
                let purl = format!("pkg:cargo/{name}@{version}");
                let hashes = checksums.get(&(*name, *version)).into_iter();
                json!({
                    "type": "library", "bom-ref": purl, "purl": purl, "name": name, "version": version,
                    "licenses": [{"expression": licenses}],
                    "hashes": hashes.map(|hash| json!({"alg": "SHA-256", "content": hash})).collect::<Vec<_>>(),
                })
            })
            .collect::<Vec<_>>(),
    }))
}

/// Name, version and licenses of a line like `serde v1.0.0 (proc-macro)<tab>MIT OR Apache-2.0 (*)`.
fn parse(line: &str) -> Option<((&str, &str), &str)> {
    let (package, licenses) = line.split_once('\t')?;
    let mut words = package.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some(((name, version), licenses.trim_end_matches(" (*)")))
}

/// The checksums of a lock file, by name and version.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let packages = lock.split("[[package]]").filter_map(|package| {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""))?;
            line.strip_suffix('"')
        };
        Some(((field("name")?, field("version")?), field("checksum")?))
    });
    packages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_and_checksums_are_read() {
        assert_eq!(
            parse("serde v1.0.2\tMIT OR Apache-2.0 (*)"),
            Some((("serde", "1.0.2"), "MIT OR Apache-2.0"))
        );
        assert_eq!(parse("a v2.0.0 (proc-macro)\tISC"), Some((("a", "2.0.0"), "ISC")));
        assert_eq!(parse(""), None);
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
        assert_eq!(checksums(lock), BTreeMap::from([(("a", "1.0.0"), "00ff")]));
    }
}
