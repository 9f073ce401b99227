//! Reasons are the enum `Reason`, and what is decided is never read back from the text of a status.

use tenantry::api::reason::Reason;

use crate::{
    code::{self, Code, Token},
    tree::{self, File, Finding},
};

/// Literals that equal a reason and are something else: the file, and what it is there.
const OTHER_NAMES: [(&str, &str); 4] = [
    // The condition of a Job.
    ("src/controller/tenant_module/job_state.rs", "Failed"),
    // An outcome of a workflow.
    ("src/registry/workflows.rs", "Failed"),
    ("src/controller/tenant/history.rs", "Failed"),
    // What holds a purge.
    ("src/registry/tombstones.rs", "Paused"),
];

/// Where a stored reason becomes a `Reason` again: columns of the registry that hold the reason itself.
const PARSED: [&str; 2] = ["src/registry/record.rs", "src/controller/breaker.rs"];

/// Where a text is no decision on a status: whether one has to be written at all, and the error of an API server, which
/// has no better mark.
const COMPARED: [&str; 3] =
    ["src/api/conditions.rs", "src/controller/actors.rs", "src/controller/tenant/failure.rs"];

/// Where the field `reason` of a status is compared, and why that decides on nothing but a message.
const REASONS_COMPARED: [&str; 2] = [
    // An Event is published once for a failure.
    "src/controller/tenant/status_writer.rs",
    // The field of a hold, copied from its spec.
    "src/controller/tenant_hold/reconcile.rs",
];

/// Methods that look into a text.
const LOOKS: [&str; 16] = [
    "chars",
    "contains",
    "ends_with",
    "eq",
    "find",
    "lines",
    "matches",
    "ne",
    "parse",
    "rsplit_once",
    "split",
    "split_once",
    "split_whitespace",
    "starts_with",
    "strip_prefix",
    "strip_suffix",
];

/// Methods that only borrow or copy.
const BORROWS: [&str; 7] =
    ["as_deref", "as_ref", "as_str", "clone", "to_owned", "to_string", "unwrap_or_default"];

fn sources() -> impl Iterator<Item = &'static File> {
    tree::rust().filter(|file| file.path.starts_with("src/"))
}

#[test]
fn reasons_are_constants() {
    tree::demand(sources().filter(|file| !file.path.starts_with("src/api/")), literals);
}

#[test]
fn stored_reasons_are_parsed_in_one_place_each() {
    tree::demand(sources().filter(|file| !file.path.starts_with("src/api/")), parsed);
}

#[test]
fn status_text_is_not_parsed() {
    tree::demand(sources().filter(|file| !COMPARED.contains(&file.path.as_str())), |file| {
        text_decisions(file, "message")
    });
    let controller = |file: &&File| {
        file.path.starts_with("src/controller/") && !REASONS_COMPARED.contains(&file.path.as_str())
    };
    tree::demand(sources().filter(controller), |file| text_decisions(file, "reason"));
}

fn tokens(code: &Code) -> Vec<&Token> {
    code.tokens.iter().filter(|token| !token.in_test).collect()
}

fn literals(file: &File) -> Vec<Finding> {
    let code = code::read(file);
    let equal = |token: &&Token| {
        token.is_string
            && Reason::ALL.iter().any(|reason| reason.as_str() == token.text)
            && !OTHER_NAMES.contains(&(file.path.as_str(), token.text.as_str()))
    };
    let found = tokens(&code).into_iter().filter(equal);
    found
        .map(|token| {
            Finding::new(
                token.line,
                format!("\"{0}\": write Reason::{0}, or list it as another name", token.text),
            )
        })
        .collect()
}

fn parsed(file: &File) -> Vec<Finding> {
    let code = code::read(file);
    let parses = code
        .paths
        .iter()
        .filter(|path| !path.in_test && path.segments.ends_with(&["Reason".into(), "parse".into()]));
    parses
        .filter(|_| !PARSED.contains(&file.path.as_str()))
        .map(|path| Finding::new(path.line, "a reason is passed as a Reason, not parsed from its text"))
        .collect()
}

/// Uses of this field of a condition on which something is decided.
fn text_decisions(file: &File, field: &str) -> Vec<Finding> {
    let code = code::read(file);
    let tokens = tokens(&code);
    let mut found = Vec::new();
    for at in 1..tokens.len() {
        let is_field = tokens[at].is(field)
            && tokens[at - 1].is(".")
            && !tokens.get(at + 1).is_some_and(|next| next.is("("));
        if is_field && (decides_after(&tokens, at + 1) || decides_before(&tokens, at - 1)) {
            let rule = format!("a decision reads .{field}: record what is decided on, or pass it as a value");
            found.push(Finding::new(tokens[at].line, rule));
        }
    }
    found
}

/// Whether a comparison or a method that looks into the text follows.
fn decides_after(tokens: &[&Token], mut at: usize) -> bool {
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.is(text));
    while is(at, ".") {
        let Some(method) = tokens.get(at + 1) else { return false };
        if LOOKS.contains(&method.text.as_str()) {
            return true;
        }
        if !BORROWS.contains(&method.text.as_str()) {
            return false;
        }
        // `.as_str()`
        at += 4;
    }
    let compares = (is(at, "=") || is(at, "!")) && is(at + 1, "=");
    // A reason as a type is compared with a constant.
    let typed = is(at + 2, "Reason") && !is(at + 6, ".");
    compares && !typed
}

/// Whether the value is compared with something before it, or matched.
fn decides_before(tokens: &[&Token], mut at: usize) -> bool {
    // Back over `condition.status.` and `&`.
    while at > 0 && (tokens[at].is(".") || tokens[at].text.chars().all(|c| c.is_alphanumeric() || c == '_')) {
        if tokens[at].is("match") {
            return true;
        }
        at -= 1;
    }
    while at > 0 && (tokens[at].is("&") || tokens[at].is("*")) {
        at -= 1;
    }
    at > 0 && tokens[at].is("=") && (tokens[at - 1].is("=") || tokens[at - 1].is("!"))
}

#[test]
fn literal_reasons_are_found() {
    let text = "fn f() { g(\"QuotaExceeded\", \"a QuotaExceeded b\") }\n\
        #[cfg(test)] mod tests { const X: &str = \"Conflict\"; }\n// \"Paused\"\n";
    let found = literals(&File::sample("src/x.rs", text));
    assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [1]);
    assert_eq!(
        parsed(&File::sample("src/x.rs", "fn f() { crate::api::reason::Reason::parse(x); }")).len(),
        1
    );
}

#[test]
fn decisions_on_status_text_are_found() {
    let sees = |body: &str| {
        text_decisions(&File::sample("src/x.rs", &format!("fn f() {{ {body} }}")), "message").len()
    };
    for decision in [
        "condition.message.contains(\"x\")",
        "ready.message.as_str() == \"x\"",
        "for part in condition.message.split(\"; \") {}",
        "if x != condition.message {}",
        "match condition.message.as_str() { _ => {} }",
        "let y = before.message == after.message;",
    ] {
        assert!(sees(decision) > 0, "{decision}");
    }
    for fine in [
        "let x = condition.message.clone();",
        "error.message()",
        "Condition { message: text }",
        "x.message = y;",
    ] {
        assert_eq!(sees(fine), 0, "{fine}");
    }
    let reason = |body: &str| {
        text_decisions(&File::sample("src/x.rs", &format!("fn f() {{ {body} }}")), "reason").len()
    };
    assert_eq!(reason("failure.reason == Reason::Conflict && x"), 0);
    assert_eq!(reason("condition.reason == Reason::Conflict.as_str()"), 1);
}
