//! Files are small, and named for what is in them.

use crate::{
    code,
    tree::{self, File, Finding},
};

/// The goal is 400 lines; beyond this a file is two.
const MOST_LINES: usize = 450;

/// Names that describe no content.
const EMPTY_NAMES: [&str; 9] =
    ["util", "utils", "helper", "helpers", "manager", "common", "misc", "shared", "stuff"];

#[test]
fn files_are_small() {
    let written = [".rs", ".go", ".sql", ".md"];
    let files = tree::files().iter().filter(|file| written.iter().any(|end| file.path.ends_with(end)));
    tree::demand(files, length);
}

#[test]
fn file_names_have_meaning() {
    tree::demand(tree::files(), empty_names);
}

#[test]
fn every_file_begins_with_its_purpose() {
    tree::demand(tree::rust(), opening);
}

fn length(file: &File) -> Vec<Finding> {
    let lines = file.text.lines().count();
    let rule =
        format!("{lines} lines, at most {MOST_LINES} (the goal is 400): divide the file by what it knows");
    if lines > MOST_LINES { vec![Finding::new(MOST_LINES + 1, rule)] } else { Vec::new() }
}

fn empty_names(file: &File) -> Vec<Finding> {
    let rule = |name: &str| format!("{name:?} says nothing: name it after what is inside");
    let mut found = Vec::new();
    for part in file.path.split('/') {
        let stem = part.split('.').next().unwrap_or(part);
        if EMPTY_NAMES.contains(&stem) {
            found.push(Finding::new(1, rule(stem)));
        }
    }
    if file.path.ends_with(".rs") {
        let words = code::read(file).words;
        for pair in words.windows(2) {
            if pair[0].text == "mod" && EMPTY_NAMES.contains(&pair[1].text.as_str()) {
                found.push(Finding::new(pair[1].line, rule(&pair[1].text)));
            }
        }
    }
    found
}

fn opening(file: &File) -> Vec<Finding> {
    let first = file.text.lines().next().unwrap_or_default();
    if first.len() > "//! ".len() && first.starts_with("//! ") {
        Vec::new()
    } else {
        vec![Finding::new(1, "the first line is `//! ` and what the file is")]
    }
}

#[test]
fn bad_names_and_sizes_are_found() {
    assert_eq!(length(&File::sample("a.rs", &"x\n".repeat(MOST_LINES))), []);
    assert_eq!(length(&File::sample("a.rs", &"x\n".repeat(MOST_LINES + 1))).len(), 1);
    assert_eq!(empty_names(&File::sample("src/utils/x.rs", "")).len(), 1);
    assert_eq!(empty_names(&File::sample("tests/common.rs", "")).len(), 1);
    assert_eq!(
        empty_names(&File::sample("src/x.rs", "// mod misc;\nmod helpers;")),
        [Finding::new(2, "\"helpers\" says nothing: name it after what is inside")]
    );
    assert_eq!(opening(&File::sample("a.rs", "use x;")).len(), 1);
    assert_eq!(opening(&File::sample("a.rs", "//! What it is.")), []);
}
