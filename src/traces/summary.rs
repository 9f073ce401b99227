//! What a span says of a statement: its operation, and the table that it works with. No literal is ever read, since one may be
//! a secret: reading ends where the first begins. Quoted names, which may be a tenant's, are passed over.

use std::fmt;

/// The first words of statements. Anything else is `OTHER`.
const OPERATIONS: [&str; 38] = [
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CALL",
    "CHECKPOINT",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DELETE",
    "DISCARD",
    "DO",
    "DROP",
    "EXECUTE",
    "EXPLAIN",
    "GRANT",
    "INSERT",
    "LISTEN",
    "LOCK",
    "MERGE",
    "NOTIFY",
    "PREPARE",
    "REASSIGN",
    "REFRESH",
    "RELEASE",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SECURITY",
    "SELECT",
    "SET",
    "SHOW",
    "TRUNCATE",
    "UPDATE",
    "VACUUM",
    "WITH",
];

/// What CREATE, ALTER and DROP work on.
const KINDS: [&str; 20] = [
    "AGGREGATE",
    "CAST",
    "COLLATION",
    "DATABASE",
    "DOMAIN",
    "EXTENSION",
    "FUNCTION",
    "INDEX",
    "OPERATOR",
    "POLICY",
    "PRIVILEGES",
    "PROCEDURE",
    "ROLE",
    "SCHEMA",
    "SEQUENCE",
    "TABLE",
    "TRIGGER",
    "TYPE",
    "USER",
    "VIEW",
];

/// How many words are read.
const MOST_WORDS: usize = 500;

/// The summary of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) operation: String,
    pub(super) target: Option<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.operation)?;
        self.target.iter().try_for_each(|target| write!(f, " {target}"))
    }
}

impl Summary {
    /// Of one statement, or of the first of several.
    pub(super) fn of(sql: &str) -> Self {
        let words = words(sql);
        let upper = |at: usize| words.get(at).map(|(word, _)| word.to_ascii_uppercase());
        let is = |at: usize, of: &[&str]| upper(at).is_some_and(|word| of.contains(&word.as_str()));
        let mut first = 0;
        if is(0, &["WITH"]) {
            let main =
                |at: &usize| words[*at].1 == 0 && is(*at, &["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE"]);
            first = (0..words.len()).find(main).unwrap_or(0);
        }
        if !is(first, &OPERATIONS) {
            return Self { operation: "OTHER".to_owned(), target: None };
        }
        let mut operation = upper(first).unwrap_or_default();
        if ["CREATE", "ALTER", "DROP"].contains(&operation.as_str())
            && let Some(kind) = (first + 1..first + 5).find(|at| is(*at, &KINDS)).and_then(upper)
        {
            operation = format!("{operation} {kind}");
        }
        let depth = words[first].1;
        let after = |word: &str| {
            let at = (first..words.len()).find(|at| words[*at].1 == depth && is(*at, &[word]))?;
            let at = if is(at + 1, &["ONLY", "LATERAL"]) { at + 2 } else { at + 1 };
            words.get(at).filter(|(_, own)| *own == depth).map(|(word, _)| (*word).to_owned())
        };
        let target = match operation.as_str() {
            "SELECT" | "DELETE" => after("FROM"),
            "INSERT" | "MERGE" => after("INTO"),
            "UPDATE" => after("UPDATE"),
            _ => None,
        };
        let is_name = |target: &String| !target.is_empty() && !is_keyword(target);
        Self { operation, target: target.filter(is_name) }
    }
}

/// A word that follows where a name was quoted.
fn is_keyword(word: &str) -> bool {
    ["SET", "WHERE", "AS", "USING", "VALUES", "SELECT", "DEFAULT", "ORDER", "GROUP", "JOIN", "ON"]
        .contains(&word.to_ascii_uppercase().as_str())
}

/// The words of the first statement up to the first literal, each with the number of parentheses around it. A quoted name
/// counts as an empty word.
fn words(sql: &str) -> Vec<(&str, usize)> {
    let (mut words, mut depth, mut rest) = (Vec::new(), 0_usize, sql.trim_start());
    while words.len() < MOST_WORDS {
        rest = rest.trim_start();
        let Some(next) = rest.chars().next() else { break };
        let after = |end: &str| rest[next.len_utf8()..].find(end).map(|at| next.len_utf8() + at + end.len());
        let length = match next {
            '\'' => break,
            ';' if words.is_empty() => 1,
            ';' => break,
            // A parameter; otherwise, the quote of a literal.
            '$' if rest[1..].starts_with(|next: char| next.is_ascii_digit()) => 1,
            '$' => break,
            '-' if rest.starts_with("--") => after("\n").unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => match after("*/") {
                // Comments can be nested: what is inside of another one would be read.
                Some(end) if !rest[2..end].contains("/*") => end,
                _ => break,
            },
            '"' => {
                words.push(("", depth));
                match after("\"") {
                    Some(end) => end,
                    None => break,
                }
            }
            next if next.is_alphabetic() || next == '_' => {
                let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
                let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                // E'…', U&'…': a literal.
                words.push((&rest[..end], depth));
                end
            }
            '(' => {
                depth += 1;
                1
            }
            ')' => {
                depth = depth.saturating_sub(1);
                1
            }
            next => next.len_utf8(),
        };
        rest = &rest[length..];
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_have_operation_and_table() {
        for (sql, summary) in [
            ("SELECT 1", "SELECT"),
            ("select id, digest_key from installation", "SELECT installation"),
            ("SELECT extract(epoch FROM x) FROM public.tenants t WHERE id = $1", "SELECT public.tenants"),
            ("SELECT count(*) FROM (SELECT 1 FROM a) b", "SELECT"),
            ("INSERT INTO activity (a) VALUES ($1)", "INSERT activity"),
            ("UPDATE tenants SET a = 'x' WHERE b = 'secret'", "UPDATE tenants"),
            ("UPDATE \"tenants\" SET a = 1", "UPDATE"),
            ("DELETE FROM ONLY holds WHERE x", "DELETE holds"),
            (
                "-- a note\n/* more */ WITH a AS (SELECT 1 FROM b), c AS (UPDATE d SET e = 1) INSERT INTO f SELECT 1",
                "INSERT f",
            ),
            ("WITH a AS (SELECT 'secret' FROM b) SELECT * FROM c", "WITH"),
            ("CREATE OR REPLACE FUNCTION x() RETURNS int", "CREATE FUNCTION"),
            ("CREATE DATABASE \"tenant_x\" TEMPLATE \"t\"", "CREATE DATABASE"),
            ("ALTER ROLE \"tenant_x\" PASSWORD 'SCRAM-SHA-256$4096:secret'", "ALTER ROLE"),
            ("ALTER ROLE x PASSWORD E'secret'; SELECT 1 FROM b", "ALTER ROLE"),
            ("GRANT tenantry_ro TO \"x\"", "GRANT"),
            ("BEGIN", "BEGIN"),
            ("; SET LOCAL ROLE NONE", "SET"),
            ("DO $do$ BEGIN secret FROM x; END $do$", "DO"),
            ("hunter2 from secret", "OTHER"),
            ("", "OTHER"),
        ] {
            assert_eq!(Summary::of(sql).to_string(), summary, "{sql}");
        }
    }

    #[test]
    fn literals_and_quoted_names_are_never_read() {
        for sql in [
            "SELECT 'x FROM secret",
            "SELECT $$ x FROM secret $$",
            "SELECT $tag$ FROM secret",
            "SELECT /* /* */ FROM secret */ 1",
            "SELECT \"a\"\"b FROM secret",
            "SELECT \"FROM secret\"",
            "INSERT INTO \"secret\" VALUES (1)",
            "SELECT 1 -- FROM secret",
            "/* FROM secret",
            "COMMENT ON DATABASE \"a\" IS 'secret'",
        ] {
            let summary = Summary::of(sql);
            assert!(!summary.to_string().contains("secret"), "{sql}: {summary}");
        }
    }
}
