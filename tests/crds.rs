//! The definitions in `crds/` are those of `src/api`, and keep the rules that every schema of ours keeps.

use std::{fs, path::Path};

use tenantry::api;

#[test]
fn the_definitions_in_the_repository_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let wanted = api::crd_files();
    if std::env::var_os("UPDATE").is_some() {
        for (name, yaml) in &wanted {
            fs::write(folder.join(name), yaml).unwrap();
        }
    }
    for (name, yaml) in &wanted {
        let there = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(there == *yaml, "crds/{name} is stale: run `cargo run -- crds --write crds`");
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            wanted.iter().any(|(wanted, _)| *wanted == name),
            "crds/{name} belongs to no kind: remove it"
        );
    }
}
