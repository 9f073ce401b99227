//! A step has a name, a file of that name, and a row in the documentation.

use std::collections::BTreeSet;

use crate::{
    code,
    tree::{self, File, Finding},
};

/// Where each step has a name, a timeout and a condition, and where each is run: the compiler asks for all of them.
const EXHAUSTIVE: [&str; 2] = ["src/domain/workflow/step.rs", "src/controller/tenant/steps/mod.rs"];

const FOLDER: &str = "src/controller/tenant/steps/";

/// The names of the steps, in their order.
fn steps() -> Vec<String> {
    let text = &tree::file("src/domain/workflow/step.rs").text;
    let names = text.lines().filter_map(|line| {
        let (variant, name) = line.trim().strip_prefix("Self::")?.split_once(" => \"")?;
        assert_eq!(name.trim_end_matches("\","), variant, "a step is named like its variant");
        Some(variant.to_owned())
    });
    let names: Vec<String> = names.collect();
    assert!(names.len() > 10, "{names:?}");
    names
}

fn file_of(step: &str) -> String {
    let mut snake = String::new();
    for c in step.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    format!("{FOLDER}{snake}.rs")
}

#[test]
fn every_step_has_a_file_with_its_rules() {
    for step in steps() {
        let first = tree::file(&file_of(&step)).text.lines().next().unwrap_or_default();
        assert!(
            first.starts_with(&format!("//! {step}: ")),
            "{}:1: begins with `//! {step}: `",
            file_of(&step)
        );
    }
}

#[test]
fn every_file_of_the_folder_is_a_step() {
    let known: BTreeSet<String> = steps().iter().map(|step| file_of(step)).collect();
    let there = tree::files().iter().map(|file| &file.path).filter(|path| path.starts_with(FOLDER));
    for path in there.filter(|path| !path.ends_with("/mod.rs")) {
        assert!(known.contains(path), "{path}:1: no step of src/domain/workflow/step.rs has this name");
    }
}

#[test]
fn every_step_is_documented_in_order() {
    let text = &tree::file("docs/architecture.md").text;
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let known = steps();
    let listed: Vec<&str> = rows.filter(|word| known.iter().any(|step| step == word)).collect();
    assert_eq!(listed, known, "docs/architecture.md lists the steps, one row each");
}

#[test]
fn every_step_has_explicit_timeout_condition_and_call() {
    tree::demand(EXHAUSTIVE.map(tree::file), wildcards);
    let text = &tree::file(EXHAUSTIVE[0]).text;
    assert!(text.contains("pub fn timeout(self)") && text.contains("pub fn condition(self)"));
}

/// Arms that would accept a new step silently.
fn wildcards(file: &File) -> Vec<Finding> {
    let tokens = code::read(file).tokens;
    let arms = tokens.windows(3).filter(|arm| arm[0].is("_") && arm[1].is("=") && arm[2].is(">"));
    arms.filter(|arm| !arm[0].in_test)
        .map(|arm| Finding::new(arm[0].line, "`_ =>` would hide a new step: name every step"))
        .collect()
}

#[test]
fn wildcard_arms_are_found() {
    let text = "fn f() { match x { A => 1, B if c => 2,\n _ => 3 } }\n#[cfg(test)] mod t { fn g() { match x { _ => 1 } } }";
    assert_eq!(wildcards(&File::sample("src/x.rs", text)).iter().map(|f| f.line).collect::<Vec<_>>(), [2]);
}

#[test]
fn file_names_follow_step_names() {
    assert_eq!(file_of("PublishDatabase"), "src/controller/tenant/steps/publish_database.rs");
    assert_eq!(file_of("Seed"), "src/controller/tenant/steps/seed.rs");
}
