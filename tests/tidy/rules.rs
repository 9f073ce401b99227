//! The rules.

use crate::files::{File, all, rust};

fn assert_none(broken: Vec<String>, rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

fn place(file: &File, line: usize, text: &str) -> String {
    format!("  {}:{line}: {}", file.path, text.trim())
}

/// Lines of production code in `folders` that hold one of `words`.
fn holding(folders: &[&str], words: &[&str], except: &[&str]) -> Vec<String> {
    let files =
        rust(folders).into_iter().filter(|file| !except.iter().any(|path| file.path.starts_with(path)));
    let mut found = Vec::new();
    for file in files {
        for (line, text) in file.production() {
            if words.iter().any(|word| text.contains(word)) {
                found.push(place(&file, line, text));
            }
        }
    }
    found
}

#[test]
fn imports_go_one_way() {
    // api <- domain <- {postgres, registry} <- controller
    for (folder, forbidden) in [
        ("src/api/", ["domain", "postgres", "registry", "controller"].as_slice()),
        ("src/domain/", &["postgres", "registry", "controller"]),
        ("src/postgres/", &["registry", "controller"]),
        ("src/registry/", &["postgres", "controller"]),
        ("src/leader/", &["postgres", "registry", "controller"]),
        ("src/metrics/", &["postgres", "registry", "controller"]),
        ("src/web/", &["postgres", "registry", "controller"]),
    ] {
        let mut broken = Vec::new();
        for file in rust(&[folder]) {
            let mut within_use_of_crate = false;
            for (line, text) in file.production() {
                if text.starts_with("use crate::{") {
                    within_use_of_crate = true;
                }
                let named = |module: &&&str| {
                    text.contains(&format!("crate::{module}"))
                        || within_use_of_crate && text.trim_start().starts_with(&format!("{module}::"))
                };
                if forbidden.iter().any(|module| named(&module)) {
                    broken.push(place(&file, line, text));
                }
                if text.starts_with("};") {
                    within_use_of_crate = false;
                }
            }
        }
        assert_none(broken, &format!("{folder} must not import {forbidden:?}"));
    }
}

#[test]
fn the_domain_has_no_io_no_async_no_clock_and_no_chance() {
    let words = [
        "async ",
        "tokio",
        "sqlx",
        "Timestamp::now",
        "Instant::now",
        "SystemTime",
        "std::fs",
        "std::env",
        "std::net",
        "rand::",
        "kube::",
    ];
    assert_none(holding(&["src/domain/"], &words, &[]), "src/domain decides, and does nothing");
}

#[test]
fn the_kubernetes_api_is_talked_to_in_two_places() {
    let words = ["kube::Client", "Api::", "Api<"];
    let except = ["src/controller/", "src/leader/", "src/cli/"];
    assert_none(holding(&["src/"], &words, &except), "only controller and leader talk to the Kubernetes API");
}

#[test]
fn names_become_sql_in_one_place() {
    let except = ["src/postgres/identifier.rs"];
    assert_none(
        holding(&["src/"], &["AssertSqlSafe"], &except),
        "only src/postgres/identifier.rs builds SQL from names",
    );
}

#[test]
fn files_are_small_and_have_plain_names() {
    const MOST: usize = 450;
    let mut broken = Vec::new();
    for file in rust(&["src/", "tests/", "dev/"]) {
        let lines = file.text.lines().count();
        if lines > MOST {
            broken.push(format!("  {} has {lines} lines; {MOST} are enough", file.path));
        }
        let stem = file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        if ["utils", "util", "helpers", "helper", "manager", "common", "misc"].contains(&stem.as_str()) {
            broken.push(format!("  {}: say what is in it", file.path));
        }
    }
    assert_none(broken, "small files, plain nouns");
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = rust(&["src/", "tests/", "dev/"]).into_iter().filter(|file| !file.text.starts_with("//!"));
    assert_none(
        silent.map(|file| format!("  {}", file.path)).collect(),
        "a file begins with //! and what it is for",
    );
}

#[test]
fn nothing_is_left_undone_and_no_test_is_left_out_or_sleeps() {
    // Put together here, so that this file is not found by itself.
    let undone = [["to", "do!("].concat(), ["unimple", "mented!("].concat(), ["#[ign", "ore"].concat()];
    let sleeping = ["sle", "ep("].concat();
    let mut broken = Vec::new();
    for file in rust(&["src/", "tests/", "dev/"]) {
        for (line, text) in file.code() {
            // A child process of another test, which kills it: never run for itself.
            if text.contains("run by another test") {
                continue;
            }
            let sleeps = file.path.starts_with("tests/") && text.contains(&sleeping);
            if sleeps || undone.iter().any(|word| text.contains(word)) {
                broken.push(place(&file, line, text));
            }
        }
    }
    assert_none(broken, "no stubs, no tests left out, and tests wait on conditions");
}

#[test]
fn no_machine_and_no_registry_host_is_named() {
    let words = [
        ["/ro", "ot/"].concat(),
        ["/wo", "rk/"].concat(),
        ["proxy.gol", "ang"].concat(),
        ["repo1.ma", "ven"].concat(),
    ];
    let mut broken = Vec::new();
    for file in all() {
        for (at, text) in file.text.lines().enumerate() {
            if words.iter().any(|word| text.contains(word.as_str())) {
                broken.push(place(&file, at + 1, text));
            }
        }
    }
    assert_none(broken, "a commit names no path of one machine and no registry host");
}

#[test]
fn every_reason_of_a_failure_is_documented() {
    let documented =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/conditions.md")).unwrap();
    let mut broken = Vec::new();
    for file in rust(&["src/postgres/error.rs", "src/registry/error.rs"]) {
        for (line, text) in file.production() {
            let Some(reason) = text.split("=> \"").nth(1).and_then(|rest| rest.split('"').next()) else {
                continue;
            };
            let camel = reason.starts_with(|c: char| c.is_ascii_uppercase())
                && reason.chars().all(char::is_alphanumeric);
            if camel && !documented.contains(&format!("`{reason}`")) {
                broken.push(place(&file, line, text));
            }
        }
    }
    assert_none(broken, "docs/conditions.md lists every reason");
}

#[test]
fn there_is_one_stack_of_each_kind() {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    for (crate_, instead) in [
        ("aws-lc-rs", "ring"),
        ("native-tls", "rustls"),
        ("openssl", "rustls"),
        ("chrono", "jiff"),
        ("serde_yaml", "serde-saphyr"),
    ] {
        assert!(
            !lock.contains(&format!("name = \"{crate_}\"\n")),
            "{crate_} is in Cargo.lock; {instead} is what we use"
        );
    }
}
