//! Divides SQL into statements, as psql does: a semicolon ends one unless it is in quotes, in a comment, in parentheses, or
//! in the body of a function in SQL (`BEGIN ATOMIC … END`).

/// A statement of a file, without its semicolon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// Where it begins in the file, in bytes.
    pub start: usize,
    /// Its text, from its first word on.
    pub text: &'a str,
}

impl Statement<'_> {
    /// Whether its first word is one of these, in capitals.
    pub fn begins_with(&self, words: &[&str]) -> bool {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let word = self.text.split(|c| !is_part(c)).next().unwrap_or_default();
        words.iter().any(|known| word.eq_ignore_ascii_case(known))
    }
}

/// A comment that goes to the end of its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Comment<'a> {
    /// Where it begins in the file, in bytes.
    pub start: usize,
    /// Its text, without the dashes.
    pub text: &'a str,
    /// Whether it stands before the first statement.
    pub at_the_top: bool,
}

/// The parts of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub statements: Vec<Statement<'a>>,
    pub comments: Vec<Comment<'a>>,
}

/// The statements of a file.
pub fn statements(sql: &str) -> Vec<Statement<'_>> {
    parts(sql).statements
}

/// The line and the column, both from 1, of a byte in a file.
pub fn position_of(sql: &str, byte: usize) -> (usize, usize) {
    let before = sql.get(..byte).unwrap_or(sql);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Divides a file.
pub(super) fn parts(sql: &str) -> Parts<'_> {
    let mut parts = Parts::default();
    let mut open = Open::default();
    let mut at = 0;
    while let Some(c) = sql[at..].chars().next() {
        let rest = &sql[at..];
        let length = match c {
            _ if rest.starts_with("--") => {
                let length = rest.find('\n').unwrap_or(rest.len());
                let at_the_top = parts.statements.is_empty() && open.start.is_none();
                let text = rest[2..length].trim_end_matches('\r');
                parts.comments.push(Comment { start: at, text, at_the_top });
                length
            }
            _ if rest.starts_with("/*") => block_comment(rest),
            c if c.is_whitespace() => c.len_utf8(),
            ';' if open.is_outermost() => {
                parts.statements.extend(open.close(sql));
                1
            }
            _ => open.token(sql, at, c),
        };
        at += length;
    }
    parts.statements.extend(open.close(sql));
    parts
}

/// The statement that was begun.
#[derive(Default)]
struct Open {
    start: Option<usize>,
    /// The end of its last token.
    end: usize,
    parentheses: u32,
    /// The first words, as far as they decide whether it has a body.
    words: Vec<String>,
    /// How many BEGIN and CASE wait for their END.
    blocks: u32,
}

impl Open {
    fn is_outermost(&self) -> bool {
        self.parentheses == 0 && self.blocks == 0
    }

    fn close<'a>(&mut self, sql: &'a str) -> Option<Statement<'a>> {
        let (start, end) = (self.start?, self.end);
        *self = Self::default();
        Some(Statement { start, text: &sql[start..end] })
    }

    /// Takes the token at a place. Returns its length.
    fn token(&mut self, sql: &str, at: usize, c: char) -> usize {
        let rest = &sql[at..];
        let length = match c {
            '\'' => quoted(rest, '\'', false),
            '"' => quoted(rest, '"', false),
            '$' => dollar_quoted(rest).unwrap_or(1),
            'e' | 'E' if rest[1..].starts_with('\'') => 1 + quoted(&rest[1..], '\'', true),
            c if is_name_start(c) => {
                let length = rest.find(|c| !is_name_part(c)).unwrap_or(rest.len());
                self.word(&rest[..length]);
                length
            }
            // A number, whose letters and dollars begin nothing.
            c if c.is_ascii_digit() => rest.find(|c| !is_name_part(c)).unwrap_or(rest.len()),
            '(' | '[' => {
                self.parentheses += 1;
                1
            }
            ')' | ']' => {
                self.parentheses = self.parentheses.saturating_sub(1);
                1
            }
            c => c.len_utf8(),
        };
        self.start.get_or_insert(at);
        self.end = at + length;
        length
    }

    fn word(&mut self, word: &str) {
        let word = word.to_ascii_uppercase();
        if self.makes_a_routine() {
            match word.as_str() {
                "BEGIN" => self.blocks += 1,
                "CASE" if self.blocks > 0 => self.blocks += 1,
                "END" => self.blocks = self.blocks.saturating_sub(1),
                _ => {}
            }
        }
        if self.words.len() < 4 {
            self.words.push(word);
        }
    }

    fn makes_a_routine(&self) -> bool {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let rest = match &words[..] {
            ["CREATE", "OR", "REPLACE", rest @ ..] | ["CREATE", rest @ ..] => rest,
            _ => return false,
        };
        matches!(rest.first(), Some(&"FUNCTION" | &"PROCEDURE"))
    }
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_name_part(c: char) -> bool {
    is_name_start(c) || c.is_ascii_digit() || c == '$'
}

/// The length of a comment that may contain others.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of a quoted text. (A doubled quote is read as two texts, which ends at the same place.)
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if escapes => is_escaped = true,
            c if c == quote && !(escapes && text[at + 1..].starts_with(quote)) => return at + 1,
            c if c == quote => is_escaped = true,
            _ => {}
        }
    }
    text.len()
}

/// The length of a text in dollar quotes, if one begins here.
fn dollar_quoted(text: &str) -> Option<usize> {
    let tag_end = 1 + text[1..].find('$')?;
    let tag = &text[1..tag_end];
    let is_tag =
        tag.chars().all(|c| is_name_part(c) && c != '$') && !tag.starts_with(|c: char| c.is_ascii_digit());
    if !is_tag {
        return None;
    }
    let quote = &text[..=tag_end];
    let body = &text[quote.len()..];
    Some(body.find(quote).map_or(text.len(), |end| quote.len() + end + quote.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        statements(sql).into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn semicolons_end_statements_only_outside_of_quotes_comments_and_parentheses() {
        for (sql, expected) in [
            ("SELECT 1; SELECT 2", vec!["SELECT 1", "SELECT 2"]),
            (";; SELECT 1 ;;", vec!["SELECT 1"]),
            ("SELECT ';', ';;' ; SELECT \";\"", vec!["SELECT ';', ';;'", "SELECT \";\""]),
            ("SELECT 'it''s;' ; SELECT 2", vec!["SELECT 'it''s;'", "SELECT 2"]),
            ("SELECT E'\\';', E'a'';' ; SELECT 2", vec!["SELECT E'\\';', E'a'';'", "SELECT 2"]),
            ("SELECT 'a\\'; SELECT 2", vec!["SELECT 'a\\'", "SELECT 2"]),
            ("-- a; b\nSELECT 1 -- c;\n; /* d; /* e; */ f; */ SELECT 2", vec!["SELECT 1", "SELECT 2"]),
            (
                "DO $$ BEGIN; END $$; DO $a$ $$;$$ $b$;$b$ $a$",
                vec!["DO $$ BEGIN; END $$", "DO $a$ $$;$$ $b$;$b$ $a$"],
            ),
            ("SELECT a$b$ FROM t; SELECT $1", vec!["SELECT a$b$ FROM t", "SELECT $1"]),
            (
                "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b); SELECT 1",
                vec!["CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b)", "SELECT 1"],
            ),
            ("SELECT 'ü;' ; SELECT ü", vec!["SELECT 'ü;'", "SELECT ü"]),
            ("SELECT 'open ; SELECT 2", vec!["SELECT 'open ; SELECT 2"]),
            ("", vec![]),
        ] {
            assert_eq!(texts(sql), expected, "{sql}");
        }
    }

    #[test]
    fn body_of_an_sql_function_is_one_statement() {
        let function = "CREATE OR REPLACE FUNCTION f(a int) RETURNS int BEGIN ATOMIC SELECT CASE WHEN a > 0 THEN 1 END; \
                        SELECT 2; END";
        assert_eq!(texts(&format!("{function}; SELECT 3")), [function, "SELECT 3"]);
        assert_eq!(texts("BEGIN; SELECT 1; END").len(), 3);
    }

    #[test]
    fn statements_have_their_place_and_their_first_word() {
        let sql = "-- top\n  create index concurrently i ON t (a);\n\tVACUUM t";
        let [first, second] = &statements(sql)[..] else { panic!() };
        assert!(first.begins_with(&["CREATE"]) && !first.begins_with(&["CREATE_X", "VACUUM"]));
        assert_eq!(position_of(sql, first.start), (2, 3));
        assert_eq!(position_of(sql, second.start), (3, 2));
        assert_eq!(&sql[second.start..], second.text);
    }

    #[test]
    fn comments_know_whether_they_are_at_the_top() {
        let sql = "-- a\n\n/* b */ --c\r\nSELECT 1; -- d\n";
        let found = parts(sql).comments;
        let found: Vec<_> = found.iter().map(|comment| (comment.text, comment.at_the_top)).collect();
        assert_eq!(found, [(" a", true), ("c", true), (" d", false)]);
    }
}
