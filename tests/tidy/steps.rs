//! A step has a name, a file of that name, and a line in the documentation. Who looks for one finds it without a search.

use std::collections::BTreeSet;

use crate::tree;

const FOLDER: &str = "src/controller/tenant/steps/";

/// The names of the steps, in their order.
fn steps() -> Vec<String> {
    let text = &tree::file("src/domain/steps.rs").text;
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
fn every_step_has_a_file_with_its_rules_at_the_head() {
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
        assert!(known.contains(path), "{path}:1: no step of src/domain/steps.rs has this name");
    }
}

#[test]
fn every_step_is_in_the_documentation_in_order() {
    let text = &tree::file("docs/architecture.md").text;
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let known = steps();
    let listed: Vec<&str> = rows.filter(|word| known.iter().any(|step| step == word)).collect();
    assert_eq!(listed, known, "docs/architecture.md lists the steps, one row each");
}

#[test]
fn names_of_files_are_those_of_steps() {
    assert_eq!(file_of("PublishDatabase"), "src/controller/tenant/steps/publish_database.rs");
    assert_eq!(file_of("Seed"), "src/controller/tenant/steps/seed.rs");
}
