//! Decisions have no IO, no async, no clock and no randomness: the same input has the same outcome, in a test and in
//! production. That is all of `src/domain`, and those files of the controllers that compute a status.

use crate::{
    code,
    tree::{self, File, Finding},
};

/// Pure, besides `src/domain`.
const FILES: [&str; 4] = [
    "src/controller/tenant_module/job.rs",
    "src/controller/tenant_module/job_state.rs",
    "src/controller/tenant_module/status.rs",
    "src/controller/tenant_plan/status.rs",
];

/// Parts of `src/domain` that must exist: what they decide is decided nowhere else.
const DECIDES: [&str; 5] = [
    "src/domain/access/",
    "src/domain/drift/",
    "src/domain/status/",
    "src/domain/usage/",
    "src/domain/workflow/",
];

const WORDS: [&str; 4] = ["async", "await", "SystemTime", "thread_rng"];

/// Beginnings of paths, in code and in imports.
const PATHS: [&str; 16] = [
    "futures",
    "rand",
    "reqwest",
    "sqlx",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
    "tokio_stream",
    "tokio_util",
    "tracing",
];

/// Ends of paths.
const CALLS: [&str; 3] = ["now", "new_v4", "now_v7"];

const MACROS: [&str; 4] = ["print", "println", "eprint", "eprintln"];

#[test]
fn decisions_are_pure() {
    let pure = tree::rust()
        .filter(|file| file.path.starts_with("src/domain/") || FILES.contains(&file.path.as_str()));
    tree::demand(pure, impurities);
    for path in FILES {
        tree::file(path);
    }
    for folder in DECIDES {
        let is_there = tree::rust().any(|file| file.path.starts_with(folder));
        assert!(is_there, "{folder} is missing: what it decides belongs in src/domain");
    }
}

fn impurities(file: &File) -> Vec<Finding> {
    let code = code::read(file);
    let mut found = Vec::new();
    let mut say = |line, what: &str| {
        found.push(Finding::new(
            line,
            format!("{what}: no IO, no async, no clock, no randomness here; pass it in"),
        ));
    };
    for word in &code.words {
        if WORDS.contains(&word.text.as_str()) || (word.is_macro && MACROS.contains(&word.text.as_str())) {
            say(word.line, &word.text);
        }
    }
    for path in &code.paths {
        let text = path.segments.join("::");
        let begins = |with: &str| text == with || text.starts_with(&format!("{with}::"));
        let calls = path.segments.len() > 1
            && path.segments.last().is_some_and(|last| CALLS.contains(&last.as_str()));
        if PATHS.iter().any(|with| begins(with)) || calls {
            say(path.line, &text);
        }
    }
    found
}

#[test]
fn impurities_are_found() {
    for text in [
        "async fn f() {}",
        "use tokio::sync::Mutex;",
        "use std::{collections::BTreeMap, fs};",
        "use std::time::{Duration, Instant};",
        "fn f() { Timestamp::now(); }",
        "fn f() { std::env::var(\"X\"); }",
        "fn f() { rand::random(); }",
        "fn f() { Uuid::new_v4(); }",
        "fn f() { println!(\"x\"); }",
        "fn f(x: SystemTime) {}",
    ] {
        assert_eq!(impurities(&File::sample("src/domain/x.rs", text)).len(), 1, "{text}");
    }
    let fine =
        "use std::time::Duration;\n// tokio::spawn\nfn f(now: Timestamp) { let x = \"async\"; g(now) }";
    assert_eq!(impurities(&File::sample("src/domain/x.rs", fine)), []);
}
