//! One library for each task. `Cargo.lock` is read, so that indirect dependencies count.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{self, File, Finding};

/// A refused library, and the one that is used instead.
const REFUSED: [(&str, &str); 11] = [
    ("async-std", "tokio is the runtime"),
    ("aws-lc-rs", "rustls uses ring"),
    ("aws-lc-sys", "rustls uses ring"),
    ("native-tls", "rustls is for TLS"),
    ("openssl", "rustls is for TLS"),
    ("openssl-sys", "rustls is for TLS"),
    ("rustls-pemfile", "rustls-pki-types reads PEM"),
    ("serde_yaml", "serde-saphyr is for YAML"),
    ("serde_yml", "serde-saphyr is for YAML"),
    ("tokio-postgres", "sqlx is for PostgreSQL"),
    ("ureq", "hyper is for HTTP"),
];

/// Refused libraries that others bring, and no other may use.
const BROUGHT: [(&str, &str, &str); 1] = [("chrono", "oci-client", "jiff is for time")];

/// Second libraries that only the development environment brings, and `ONLY_BY` in the operator.
const SECOND: [&str; 1] = ["time"];

/// It makes the certificate of the webhook, and has its own idea of time.
const ONLY_BY: &str = "rcgen";

/// The one registry.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[test]
fn one_library_for_each_task() {
    tree::demand([tree::file("Cargo.lock")], refused);
}

#[test]
fn operator_has_no_second_library() {
    let operator = reachable(&packages(tree::file("Cargo.lock")), "tenantry", &["tenantry-dev", ONLY_BY]);
    assert!(operator.contains("sqlx") && operator.contains("kube"), "{operator:?}");
    for name in SECOND {
        assert!(!operator.contains(name), "{name} is in the operator: it is for dev/env and {ONLY_BY} only");
    }
}

struct Package {
    name: String,
    source: Option<String>,
    line: usize,
    dependencies: Vec<String>,
}

/// The packages of a Cargo.lock, as cargo writes it.
fn packages(file: &File) -> Vec<Package> {
    let mut packages: Vec<Package> = Vec::new();
    for (line, text) in file.lines() {
        let value =
            |key: &str| text.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"').map(str::to_owned);
        if text == "[[package]]" {
            packages.push(Package { name: String::new(), source: None, line, dependencies: Vec::new() });
        }
        let Some(package) = packages.last_mut() else { continue };
        if let Some(name) = value("name") {
            (package.name, package.line) = (name, line);
        } else if let Some(source) = value("source") {
            package.source = Some(source);
        } else if let Some(entry) = text.strip_prefix(" \"") {
            let name = entry.split(['"', ' ']).next().unwrap_or_default();
            package.dependencies.push(name.to_owned());
        }
    }
    packages
}

fn refused(file: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in packages(file) {
        if let Some((name, instead)) = REFUSED.iter().find(|(name, _)| *name == package.name) {
            found.push(Finding::new(package.line, format!("{name} is refused: {instead}")));
        }
        for (name, by, instead) in BROUGHT {
            if package.name != by && package.dependencies.iter().any(|dependency| dependency == name) {
                let rule = format!("{} depends on {name}, which only {by} may: {instead}", package.name);
                found.push(Finding::new(package.line, rule));
            }
        }
        if let Some(source) = package.source.filter(|source| source != REGISTRY) {
            found.push(Finding::new(package.line, format!("{} comes from {source}", package.name)));
        }
    }
    found
}

/// Everything that a package depends on, but not by way of `without`. Two versions of a package count as one.
fn reachable(packages: &[Package], from: &str, without: &[&str]) -> BTreeSet<String> {
    let mut by_name: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
    for package in packages {
        by_name.entry(&package.name).or_default().push(package);
    }
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(name) = open.pop() {
        if without.contains(&name) || !reached.insert(name.to_owned()) {
            continue;
        }
        for package in by_name.get(name).into_iter().flatten() {
            open.extend(package.dependencies.iter().map(String::as_str));
        }
    }
    reached
}

#[test]
fn second_libraries_are_found() {
    let lock = File::sample(
        "Cargo.lock",
        &format!(
            "[[package]]\nname = \"a\"\ndependencies = [\n \"chrono\",\n \"dev\",\n]\n\n[[package]]\nname = \"chrono\"\n\
             source = \"{REGISTRY}\"\n\n[[package]]\nname = \"dev\"\nsource = \"git+ssh://x\"\n\
             dependencies = [\n \"time 0.3.1\",\n]\n"
        ),
    );
    let lines: Vec<_> = refused(&lock).into_iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [2, 13]);
    let names = |without: &[&str]| reachable(&packages(&lock), "a", without).into_iter().collect::<Vec<_>>();
    assert_eq!(names(&[]), ["a", "chrono", "dev", "time"]);
    assert_eq!(names(&["dev"]), ["a", "chrono"]);
}
