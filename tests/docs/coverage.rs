//! Every command that the README or a page prints is run by a test, or is in the list of those that are only read.

use std::{fs, path::Path, process::Command};

use tenantry::api::reason::Reason;

use crate::{
    daily::{
        is_only_read,
        situations::{ONLY_READ, PAGES, SITUATIONS},
    },
    shell::{blocks, page},
};

/// The README and the pages, by their names for `page`.
pub fn documents() -> Vec<String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let names = fs::read_dir(docs).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut documents: Vec<String> = names.filter(|name| name.ends_with(".md")).collect();
    documents.push("../README.md".to_owned());
    documents.sort();
    documents
}

#[test]
fn commands_of_every_page_are_run() {
    // Of those, real_clusters.rs only reads: its page needs clusters and clouds.
    let others = [
        include_str!("enforcing_state.rs"),
        include_str!("how_tos.rs"),
        include_str!("install.rs"),
        include_str!("real_clusters.rs"),
        include_str!("your_application.rs"),
    ];
    for name in documents() {
        if blocks(&page(&name)).is_empty() {
            continue;
        }
        let call = format!("page(\"{name}\")");
        let covered = PAGES.contains(&name.as_str()) || others.iter().any(|test| test.contains(&call));
        assert!(
            covered,
            "{name} has commands that no test runs: add it to PAGES of tests/docs/daily/situations.rs"
        );
    }
}

#[test]
fn bash_reads_every_block() {
    for name in documents() {
        let document = page(&name);
        for line in document.lines().filter(|line| line.trim_start().starts_with("```")) {
            // Only blocks that begin so are found by the tests.
            let other = ["bash", "shell", "console", "zsh"].contains(&line.trim_start_matches([' ', '`']));
            assert!(
                line == "```sh" || (!other && line.trim_start() != "```sh"),
                "{name}: write ```sh for {line:?}"
            );
        }
        for block in blocks(&document) {
            let reasons = block.split("--field-selector reason=").skip(1);
            for reason in reasons.filter_map(|rest| rest.split_whitespace().next()) {
                assert!(Reason::parse(reason).is_some(), "{name}: no Event has the reason {reason}");
            }
            let read = Command::new("bash").args(["-n", "-c", block]).output().unwrap();
            assert!(read.status.success() && read.stderr.is_empty(), "{name}\n{block}\n{read:?}");
        }
    }
}

#[test]
fn lists_name_blocks_that_exist() {
    let exists = |name: &str, begins: &str| {
        blocks(&page(name)).iter().any(|block| format!("{block}\n").starts_with(begins))
    };
    for situation in SITUATIONS {
        let (name, begins) = (situation.page, situation.block);
        assert!(PAGES.contains(&name) && exists(name, begins), "{name}: no block {begins:?}");
        assert!(!is_only_read(name, begins), "{name}: {begins:?} is not run");
    }
    for (name, begins, why) in ONLY_READ {
        assert!(exists(name, begins) && !why.is_empty(), "{name}: no block {begins:?}");
    }
}
