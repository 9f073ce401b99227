//! The shape that makes the code readable: a short driver, one type per name, a small context.

use std::collections::BTreeMap;

use crate::{
    code::{self, Token},
    tree::{self, File, Finding},
};

/// The driver of a Tenant's reconcile: load, observe, plan, execute, status.
const DRIVER: &str = "src/controller/tenant/reconcile.rs";
const MOST_DRIVER_LINES: usize = 120;
const MOST_DRIVER_FILE_LINES: usize = 200;

const CONTEXT: &str = "src/controller/context.rs";
const MOST_CONTEXT_FIELDS: usize = 14;

/// Names that each module has one of.
const EVERY_MODULE: [&str; 4] = ["Arguments", "Error", "Options", "Result"];

fn sources() -> impl Iterator<Item = &'static File> {
    tree::rust().filter(|file| file.path.starts_with("src/"))
}

#[test]
fn driver_is_short() {
    tree::demand([tree::file(DRIVER)], |file| {
        let lines = file.text.lines().count();
        let mut found = long_functions(file, MOST_DRIVER_LINES);
        if lines > MOST_DRIVER_FILE_LINES {
            let rule =
                format!("{lines} lines, at most {MOST_DRIVER_FILE_LINES}: the driver calls the phases");
            found.push(Finding::new(MOST_DRIVER_FILE_LINES + 1, rule));
        }
        found
    });
}

#[test]
fn context_is_small() {
    let fields = fields_of(tree::file(CONTEXT), "Context");
    assert!(
        (1..=MOST_CONTEXT_FIELDS).contains(&fields),
        "{CONTEXT}: {fields} fields, at most {MOST_CONTEXT_FIELDS}"
    );
    tree::demand(sources().filter(|file| file.path != CONTEXT), implementations);
}

#[test]
fn public_types_have_names_of_their_own() {
    let files: Vec<&File> = sources().collect();
    let found = shared_names(&files);
    assert!(found.is_empty(), "one name, several types:\n{}\n", found.join("\n"));
}

/// Functions that are longer than this, their signatures included.
fn long_functions(file: &File, most: usize) -> Vec<Finding> {
    let tokens = code::read(file).tokens;
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.is("fn")) {
        let Some(open) = (at..tokens.len()).find(|at| tokens[*at].is("{")) else { continue };
        let lines = tokens[end_of(&tokens, open)].line + 1 - token.line;
        if lines > most {
            let name = &tokens[at + 1].text;
            found.push(Finding::new(token.line, format!("{name} has {lines} lines, at most {most}")));
        }
    }
    found
}

/// Where the group that begins here ends.
fn end_of(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if ["{", "(", "["].iter().any(|text| token.is(text)) {
            depth += 1;
        } else if ["}", ")", "]"].iter().any(|text| token.is(text)) {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        }
    }
    tokens.len() - 1
}

/// How many fields a struct has.
fn fields_of(file: &File, name: &str) -> usize {
    let tokens = code::read(file).tokens;
    let begins = |at: &usize| tokens[*at].is("struct") && tokens[at + 1].is(name);
    let Some(at) = (0..tokens.len() - 1).find(begins) else { return 0 };
    let Some(open) = (at..tokens.len()).find(|at| tokens[*at].is("{")) else { return 0 };
    let (mut at, end, mut fields) = (open + 1, end_of(&tokens, open), 0);
    while at < end {
        if ["{", "(", "["].iter().any(|text| tokens[at].is(text)) {
            at = end_of(&tokens, at);
        } else if tokens[at].is(":") && !tokens[at + 1].is(":") && !tokens[at - 1].is(":") {
            fields += 1;
        }
        at += 1;
    }
    fields
}

fn implementations(file: &File) -> Vec<Finding> {
    let tokens = code::read(file).tokens;
    let pairs = tokens.windows(3).filter(|pair| {
        (pair[0].is("impl") || pair[0].is("for"))
            && pair[1].is("Context")
            && !pair[2].is("<")
            && !pair[0].in_test
    });
    pairs.map(|pair| Finding::new(pair[0].line, format!("impl Context belongs in {CONTEXT}"))).collect()
}

/// Public types that share a name with one of another file.
fn shared_names(files: &[&File]) -> Vec<String> {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        let tokens = code::read(file).tokens;
        for triple in tokens.windows(3) {
            let [public, kind, name] = triple else { continue };
            let is_type = ["struct", "enum", "trait", "type", "union"].iter().any(|text| kind.is(text));
            if public.is("pub") && is_type && !public.in_test && !EVERY_MODULE.contains(&name.text.as_str()) {
                let place = format!("{}:{}", file.path, name.line);
                by_name.entry(name.text.clone()).or_default().push(place);
            }
        }
    }
    let shared = by_name.into_iter().filter(|(_, places)| places.len() > 1);
    shared.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect()
}

#[test]
fn long_functions_and_large_contexts_are_found() {
    let text = "fn a() {\n}\nasync fn b(\n  x: [u8; 2],\n) {\n  if x {\n  }\n}\n";
    let found = long_functions(&File::sample("src/x.rs", text), 5);
    assert_eq!(found, [Finding::new(3, "b has 6 lines, at most 5")]);
    let text =
        "/// a: b\npub struct Context { pub a: A, #[x(y: z)] pub b: std::sync::Arc<(u8, u8)>, c: [u8; 2] }";
    assert_eq!(fields_of(&File::sample("src/x.rs", text), "Context"), 3);
    let text = "impl Context { }\nimpl SpecContext for Context { }\nimpl Contexts {}";
    assert_eq!(implementations(&File::sample("src/x.rs", text)).len(), 2);
}

#[test]
fn shared_type_names_are_found() {
    let sample = [
        ("src/a.rs", "pub struct One; pub enum Error {} struct Two;"),
        ("src/b.rs", "pub enum One {} pub type Error = u8; pub(super) struct Two; // pub struct Three;"),
        ("src/c.rs", "pub struct Three; #[cfg(test)] mod tests { pub struct One; }"),
    ]
    .map(|(path, text)| File::sample(path, text));
    let files: Vec<&File> = sample.iter().collect();
    assert_eq!(shared_names(&files), ["One: src/a.rs:1, src/b.rs:1"]);
}
