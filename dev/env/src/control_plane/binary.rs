//! The control plane's one binary: built from `dev/controlplane` once per machine, then taken from the cache.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::error::{Context, Error, Result};
use crate::places;
use crate::process::{End, Launch, Lifetime, run};
use crate::progress;
use crate::service::Service;

/// The Go module, in this checkout.
fn module() -> PathBuf {
    places::checkout().join("dev/controlplane")
}

/// The path of `controlplane`, built first if this machine has not built these sources before.
pub async fn find() -> Result<PathBuf> {
    let module = module();
    let (digest, kubernetes) = describe(&module)?;
    let cache = places::directory(places::cache()?.join("controlplane").join(digest), 0o755)?;
    let Ok(go) = run(Path::new("go"), &["env", "GOVERSION"], None).await else {
        // Go is needed to build, not to run: any build of these sources will do.
        return any_build(&cache).ok_or_else(|| {
            Error::message(
                "Go is missing: install Go 1.26 or newer to build the control plane for tests and the demo",
            )
        });
    };
    let place = places::directory(cache.join(go.trim()), 0o755)?;
    let binary = place.join("controlplane");
    if !binary.is_file() {
        let _lock = places::lock(place.join("lock"), "somebody else builds the control plane").await?;
        if !binary.is_file() {
            let step = progress::step(format!(
                "building Kubernetes {kubernetes} for tests and the demo: about ten minutes on two cores, once per machine"
            ));
            step.end(build(&module, &kubernetes, &binary).await)?;
        }
    }
    Ok(binary)
}

fn any_build(cache: &Path) -> Option<PathBuf> {
    let builds = std::fs::read_dir(cache).ok()?;
    builds.flatten().map(|build| build.path().join("controlplane")).find(|binary| binary.is_file())
}

/// A digest of all that goes into the binary but the compiler, and the Kubernetes version it is of.
fn describe(module: &Path) -> Result<(String, String)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(module)
        .at("reading", module)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| ["go", "mod", "sum"].iter().any(|known| extension == *known))
        })
        .collect();
    files.sort();
    let mut digest = Sha256::new();
    let mut kubernetes = None;
    for file in files {
        let content = std::fs::read_to_string(&file).at("reading", &file)?;
        digest.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        digest.update([0]);
        digest.update(content.as_bytes());
        digest.update([0]);
        if file.ends_with("go.mod") {
            kubernetes = required(&content, "k8s.io/kubernetes");
        }
    }
    let kubernetes = kubernetes.ok_or_else(|| {
        Error::message(format!("{}/go.mod does not require k8s.io/kubernetes", module.display()))
    })?;
    digest.update(linker_flags(&kubernetes).as_bytes());
    let hex = digest.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    Ok((hex, kubernetes))
}

/// The version of a module that a go.mod requires.
fn required(go_mod: &str, module: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next()? == module).then(|| words.next().map(str::to_owned))?
    })
}

/// Without a version the server reports one that clients cannot parse.
fn linker_flags(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let mut flags = "-s -w".to_owned();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)] {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
}

async fn build(module: &Path, kubernetes: &str, binary: &Path) -> Result<()> {
    if !["gcc", "cc", "clang"].iter().any(|name| places::on_path(name).is_some()) {
        return Err(Error::message(
            "a C compiler is missing: install gcc (Debian, Ubuntu: apt install build-essential)",
        ));
    }
    let fresh = binary.with_extension(format!("new-{}", std::process::id()));
    let log = binary.with_extension("log");
    let _ = std::fs::remove_file(&log);
    let launch = Launch {
        name: "go build".to_owned(),
        program: PathBuf::from("go"),
        arguments: vec![
            "-C".to_owned(),
            module.display().to_string(),
            "build".to_owned(),
            "-trimpath".to_owned(),
            "-ldflags".to_owned(),
            linker_flags(kubernetes),
            "-o".to_owned(),
            fresh.display().to_string(),
            ".".to_owned(),
        ],
        // All of it: Go's proxies, caches and the machine's certificates are configured there.
        environment: std::env::vars().collect(),
        log,
        user: None,
        end: End::Kill,
    };
    let go = Service::new(launch, Lifetime::WithParent);
    go.start()?;
    go.gone_within(Duration::MAX).await;
    if !fresh.is_file() {
        return Err(go.failure("failed"));
    }
    std::fs::rename(&fresh, binary).at("renaming to", binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_comes_from_go_mod() {
        let (digest, version) = describe(&module()).expect("a module");
        assert_eq!(digest.len(), 24);
        assert!(version.starts_with("v1."), "{version}");
        assert_eq!(
            linker_flags("v1.36.3").split(" -X ").nth(3),
            Some("k8s.io/component-base/version.gitMinor=36")
        );
        assert_eq!(required("require (\n\ta.b/c v1.2.3\n)", "a.b/c").as_deref(), Some("v1.2.3"));
        assert_eq!(required("require a.b/c v1.2.3", "a.b/c").as_deref(), Some("v1.2.3"));
    }
}
