//! The words of the former dialect do not come back: the standard word is used, in code, comments, documents and `--help`.

use crate::tree::{self, File, Finding};

/// A banned word or phrase, and what to write instead.
const BANNED: [(&str, &str); 33] = [
    ("alarm", "timer"),
    ("alarms", "timers"),
    ("all the same", "anyway, or rephrase"),
    ("anew", "again, recreated"),
    ("crowd", "many tenants"),
    ("goes away", "is being deprovisioned, is deleted"),
    ("handed out", "activated"),
    ("in the way", "blocks, blocked by"),
    ("is to be", "name what happens"),
    ("judge", "evaluate"),
    ("judged", "evaluated"),
    ("judges", "evaluates"),
    ("judgement", "evaluation"),
    ("let go", "released"),
    ("no news", "no change"),
    ("nobody", "no client, no user: name it"),
    ("of whom", "name the thing"),
    ("put right", "repaired"),
    ("somebody", "an operator, a user, another client"),
    ("stands for", "owns, matches"),
    ("tells", "reports, states"),
    ("tell", "report, state"),
    ("the definition", "the CRD"),
    ("told", "reported"),
    ("uptake", "plan adoption"),
    ("verdict", "decision, result"),
    ("visit", "reconcile; a DatabaseServer is checked"),
    ("visited", "reconciled, checked"),
    ("visiting", "reconciling, checking"),
    ("visits", "reconciles, checks"),
    ("went away", "was deleted, stopped"),
    ("what there is", "name the thing"),
    ("whoever", "name who"),
];

/// Where people read.
const READ: [&str; 4] = ["src/", "docs/", "dev/", "tests/"];

#[test]
fn banned_words_are_absent() {
    let read = |file: &&File| {
        let path = file.path.as_str();
        (READ.iter().any(|folder| path.starts_with(folder)) || path == "README.md")
            // It lists them.
            && path != "tests/tidy/wording.rs"
            // They stay as they were released.
            && !path.starts_with("tests/postgres/release_before/")
            && !path.ends_with("go.sum")
    };
    tree::demand(tree::files().iter().filter(read), banned);
}

fn banned(file: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    for (number, line) in file.lines() {
        // A reason, which is never renamed, and a name of tracing.
        let line = line.replace("SessionsInTheWay", "").replace("field::Visit ", "");
        let words = format!(" {} ", words(&line).join(" "));
        for (word, instead) in BANNED {
            if words.contains(&format!(" {word} ")) {
                found.push(Finding::new(number, format!("{word:?}: write {instead}")));
            }
        }
    }
    found
}

/// The words of a line in lower case; identifiers are divided at `_` and at case changes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in line.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if c.is_alphanumeric() {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn banned_words_are_found_inside_identifiers_and_phrases() {
    let sees = |text: &str| banned(&File::sample("src/x.rs", text)).len();
    assert_eq!(sees("fn visited_servers() {}"), 1);
    assert_eq!(sees("struct VisitSummary; // Nobody's"), 2);
    assert_eq!(sees("/// It is let go\n"), 1);
    assert_eq!(sees("revisit, toldness, intelligent, a judgemental crowdsource"), 0);
    assert_eq!(words("HTTPServer told_by X"), ["httpserver", "told", "by", "x"]);
}
