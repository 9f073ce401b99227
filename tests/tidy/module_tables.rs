//! The optional modules are optional: no Rust code names one of their tables. What it needs of a tenant's database is in the
//! module `tenantry`, and reaches the others by the functions that they register.

use std::collections::BTreeSet;

use crate::{
    code,
    tree::{self, File, Finding},
};

/// The words of SQL after which the name of a table comes.
const BEFORE_A_TABLE: [&str; 6] = ["FROM", "INTO", "JOIN", "ONLY", "TABLE", "UPDATE"];

#[test]
fn rust_names_no_table_of_an_optional_module() {
    let tables = tables();
    assert!(tables.contains("users") && tables.contains("settings") && !tables.contains("limits"));
    let sources = tree::rust().filter(|file| file.path.starts_with("src/"));
    tree::demand(sources, |file| names_of(file, &tables));
}

/// The tables that the optional modules create.
fn tables() -> BTreeSet<String> {
    let is_optional = |path: &str| {
        path.starts_with("migrations/tenant/") && !path.starts_with("migrations/tenant/tenantry/")
    };
    let files = tree::files().iter().filter(|file| is_optional(&file.path));
    let created = |file: &File| -> Vec<String> {
        let after = file.text.split("CREATE TABLE ").skip(1).map(|rest| rest.split([' ', '(']).next());
        after.flatten().map(|name| name.trim_start_matches("public.").to_owned()).collect()
    };
    files.flat_map(created).collect()
}

fn names_of(file: &File, tables: &BTreeSet<String>) -> Vec<Finding> {
    let tokens = code::read(file).tokens;
    let mut found = Vec::new();
    for token in tokens.iter().filter(|token| token.is_string && !token.in_test) {
        let words: Vec<&str> =
            token.text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).collect();
        let mut before = "";
        for word in words.iter().filter(|word| !word.is_empty()) {
            let in_public = word.strip_prefix("public.").is_some_and(|name| tables.contains(name));
            // A name that the statement itself gives is another one.
            let is_own = token.text.contains(&format!("{word} AS ("));
            if in_public || (BEFORE_A_TABLE.contains(&before) && tables.contains(*word) && !is_own) {
                let rule = "belongs to an optional module: let the module register a function";
                found.push(Finding::new(token.line, format!("{word} {rule}")));
            }
            before = word;
        }
    }
    found
}

#[test]
fn tables_are_found_in_sql_alone() {
    let tables = ["users".to_owned()].into();
    for text in ["\"SELECT 1 FROM users\"", "\"INSERT INTO public.users AS u\""] {
        let code = format!("const X: &str = {text};");
        assert_eq!(names_of(&File::sample("src/x.rs", &code), &tables).len(), 1, "{text}");
    }
    let fine = "const X: &str = \"the limit users\"; // FROM users\n#[cfg(test)] mod tests { const Y: &str = \"FROM users\"; }";
    assert_eq!(names_of(&File::sample("src/x.rs", fine), &tables), []);
}
