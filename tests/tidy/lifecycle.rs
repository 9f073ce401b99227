//! `docs/lifecycle.md` shows the table of the code, as a table and as a diagram.

use tenantry::domain::{
    lifecycle::{TRANSITIONS, Transition},
    observed::RegistryStatus,
};

use crate::tree;

const PAGE: &str = "docs/lifecycle.md";

/// Those that lead somewhere.
fn transitions() -> impl Iterator<Item = Transition> {
    TRANSITIONS.into_iter().filter(|row| row.from != row.to)
}

fn name(state: RegistryStatus) -> String {
    format!("{state:?}")
}

#[test]
fn documented_table_is_that_of_the_code() {
    let wanted: Vec<String> = transitions()
        .map(|row| {
            let guard = row.guard.as_str();
            let guard = if guard.is_empty() { " ".to_owned() } else { format!(" {guard} ") };
            format!("| {} | {:?} |{guard}| {} |", name(row.from), row.event, name(row.to))
        })
        .collect();
    let text = &tree::file(PAGE).text;
    let shown: Vec<&str> = text
        .lines()
        .filter(|line| RegistryStatus::ALL.iter().any(|s| line.starts_with(&format!("| {s:?} "))))
        .collect();
    assert_eq!(shown, wanted, "{PAGE}: should be\n{}", wanted.join("\n"));
}

#[test]
fn documented_diagram_is_that_of_the_code() {
    let mut wanted = vec![format!("    [*] --> {:?}", RegistryStatus::Provisioning)];
    wanted.extend(
        transitions().map(|row| format!("    {} --> {}: {:?}", name(row.from), name(row.to), row.event)),
    );
    wanted.push(format!("    {:?} --> [*]", RegistryStatus::Deprovisioned));
    let text = &tree::file(PAGE).text;
    let shown: Vec<&str> = text.lines().filter(|line| line.contains(" --> ")).collect();
    assert_eq!(shown, wanted, "{PAGE}: should be\n{}", wanted.join("\n"));
}
