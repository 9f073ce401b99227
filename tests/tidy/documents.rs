//! Files, folders and commands that the documentation names exist.

use std::path::Path;

use crate::tree::{self, File, Finding};

/// The widest line of prose. Tables, code and links are as wide as they are.
const WIDEST: usize = 120;

/// Folders whose paths are checked when a document writes them in backticks.
const FOLDERS: [&str; 9] =
    [".ci/", "crds/", "dev/", "docs/", "examples/", "migrations/", "src/", "tests/", "charts/"];

fn documents() -> impl Iterator<Item = &'static File> {
    tree::files().iter().filter(|file| file.path.ends_with(".md"))
}

#[test]
fn named_files_and_commands_exist() {
    tree::demand(documents(), |file| missing(file, &exists));
}

#[test]
fn every_reason_of_a_failure_is_documented() {
    let conditions = &tree::file("docs/conditions.md").text;
    let errors = ["src/postgres/error.rs", "src/registry/error.rs"].map(tree::file);
    tree::demand(errors, |file| undocumented(file, conditions));
}

#[test]
fn prose_fits_side_by_side() {
    let read = ["CHANGELOG.md", "CONTRIBUTING.md", "README.md", "SECURITY.md"];
    let prose = |file: &&File| file.path.starts_with("docs/") || read.contains(&file.path.as_str());
    tree::demand(documents().filter(prose), wide_lines);
}

#[test]
fn first_tenant_of_readme_is_that_of_the_demo() {
    // The demo applies that file to a real API server, which verifies what README shows.
    let example = &tree::file("examples/quickstart/acme.yaml").text;
    let readme = &tree::file("README.md").text;
    assert!(
        readme.contains(example.trim_end()),
        "README.md:1: must show examples/quickstart/acme.yaml as it is"
    );
}

/// The reasons that an error gives itself; those of `src/api/conditions.rs` have a test there.
fn undocumented(file: &File, conditions: &str) -> Vec<Finding> {
    let reasons = file.lines().filter_map(|(number, line)| {
        let reason = line.split("=> \"").nth(1)?.split('"').next()?;
        let camel =
            reason.starts_with(|c: char| c.is_ascii_uppercase()) && reason.chars().all(char::is_alphanumeric);
        let known = conditions.contains(&format!("`{reason}`"));
        (camel && !known)
            .then(|| Finding::new(number, format!("the reason {reason} is not in docs/conditions.md")))
    });
    reasons.collect()
}

fn exists(path: &str) -> bool {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists()
}

/// The targets of the Makefile.
fn is_target(name: &str) -> bool {
    tree::file("Makefile").text.lines().any(|line| line.starts_with(&format!("{name}:")))
}

fn missing(file: &File, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut found = Vec::new();
    for (number, line) in file.lines() {
        let mut say = |rule: String| found.push(Finding::new(number, rule));
        for link in links(line) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !exists(&joined(folder, target)) {
                say(format!("the link {link} leads nowhere"));
            }
        }
        for word in line.split('`').skip(1).step_by(2) {
            let place = word.split([':', '#']).next().unwrap_or(word);
            let concrete = !place.contains(['<', '*', '{', ' ', '…', '$']) && !place.contains("NNNN");
            if concrete && FOLDERS.iter().any(|folder| place.starts_with(folder)) && !exists(place) {
                say(format!("{place} does not exist"));
            }
            if let Some(target) = word.strip_prefix("make ") {
                let target = target.split(' ').next().unwrap_or_default();
                if !target.is_empty() && !is_target(target) {
                    say(format!("the Makefile has no target {target}"));
                }
            }
        }
    }
    found
}

/// The targets of a line's links: what is in `](…)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

fn joined(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn wide_lines(file: &File) -> Vec<Finding> {
    let mut in_code = false;
    let mut found = Vec::new();
    for (number, line) in file.lines() {
        in_code ^= line.trim_start().starts_with("```");
        let excused = in_code || line.starts_with('|') || line.contains("](") || line.contains("://");
        if !excused && line.chars().count() > WIDEST {
            found.push(Finding::new(number, format!("{} columns, at most {WIDEST}", line.chars().count())));
        }
    }
    found
}

#[test]
fn dead_links_are_found() {
    let sees = |line: &str| missing(&File::sample("docs/a.md", line), &|path| path == "docs/b.md").len();
    assert_eq!(sees("[b](b.md) [b](../docs/b.md#part) [x](https://x.example) [here](#part) `docs/b.md`"), 0);
    assert_eq!(sees("[c](c.md)"), 1);
    assert_eq!(sees("`src/gone.rs` and `src/gone.rs:12`"), 2);
    assert_eq!(sees("`src/<module>/x.rs` `migrations/NNNN_x.sql` `source/x` src/gone.rs"), 0);
    assert_eq!(sees("`make test` `make nonsense EXISTING=1`"), 1);
}

#[test]
fn undocumented_reasons_are_found() {
    let file = File::sample("x.rs", "A => \"Known\",\nB => \"Unknown\",\nC => \"no reason\",\n");
    let found = undocumented(&file, "| `Known` |");
    assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2]);
}

#[test]
fn only_prose_has_a_maximum_width() {
    let wide = "x".repeat(WIDEST + 1);
    assert_eq!(
        wide_lines(&File::sample("a.md", &format!("{wide}\n| {wide}\n```\n{wide}\n```\n{wide}"))).len(),
        2
    );
}
