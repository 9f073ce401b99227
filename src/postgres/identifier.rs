//! The only place that turns names and texts into SQL, and the only user of `AssertSqlSafe`.
//!
//! A statement is a `&'static str` with `{}` where a [`Part`] goes. A part is a quoted identifier, a quoted
//! literal, a number, or a word of our own; there is no way to put a bare `String` into a statement.

use std::fmt::{self, Write};

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::domain::{
    identity::TenantId,
    names::{MAX_IDENTIFIER_BYTES, building_name},
};

use super::{
    error::{Error, Result},
    modules::Migration,
};

/// The role that creates all roles and databases of this installation.
pub const ADMIN: Ident = Ident::fixed("tenantry_admin");
/// The role that owns every tenant database.
pub const DBA: Ident = Ident::fixed("tenantry_dba");
/// The role that owns the objects in tenant databases.
pub const OWNER: Ident = Ident::fixed("tenantry_owner");
/// The login under which modules' SQL and seeds run.
pub const MIGRATOR: Ident = Ident::fixed("tenantry_migrator");
/// The three groups, widest first: what [`AccessLevel::group`](crate::domain::access::AccessLevel::group) names.
pub const GROUPS: [Ident; 3] =
    [Ident::fixed("tenantry_rw"), Ident::fixed("tenantry_shrink"), Ident::fixed("tenantry_ro")];

/// A name in PostgreSQL, to be quoted whenever it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ident(std::borrow::Cow<'static, str>);

impl Ident {
    const fn fixed(name: &'static str) -> Self {
        Self(std::borrow::Cow::Borrowed(name))
    }

    /// Takes a name. One that PostgreSQL would cut silently, or could not hold, is refused: two names that are
    /// equal in their first 63 bytes must never become one object.
    pub fn new(name: &str) -> Result<Self> {
        if name.is_empty() || name.len() > MAX_IDENTIFIER_BYTES || name.contains('\0') {
            return Err(Error::Name(name.chars().take(80).collect()));
        }
        Ok(Self(name.to_owned().into()))
    }

    /// The name under which a tenant's database is built.
    pub fn building(id: TenantId) -> Self {
        Self(building_name(id).into())
    }

    /// The template of a module set.
    pub fn template(digest: &str) -> Result<Self> {
        Self::new(&format!("tenantry_template_{digest}"))
    }

    /// The name under which a template is built.
    pub fn template_building(digest: &str) -> Result<Self> {
        Self::new(&format!("tenantry_template_new_{digest}"))
    }

    /// The name as it is, unquoted: for bind parameters and messages.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text constant, to be quoted.
#[derive(Clone, Debug)]
pub struct Literal<'a>(pub &'a str);

/// A word of our own that stands in a statement as it is.
#[derive(Clone, Copy, Debug)]
pub struct Word(pub &'static str);

/// A whole number.
#[derive(Clone, Copy, Debug)]
pub struct Number(pub i32);

/// What may stand for a `{}`.
pub trait Part: Sync {
    /// Writes the part, quoted.
    fn write(&self, sql: &mut String);
}

impl Part for Ident {
    fn write(&self, sql: &mut String) {
        sql.push('"');
        for c in self.0.chars() {
            if c == '"' {
                sql.push('"');
            }
            sql.push(c);
        }
        sql.push('"');
    }
}

impl Part for Literal<'_> {
    /// `E'…'` when there is a backslash, so that the result does not depend on `standard_conforming_strings`.
    /// A NUL cannot be in a PostgreSQL text; it is left out.
    fn write(&self, sql: &mut String) {
        sql.push_str(if self.0.contains('\\') { " E'" } else { "'" });
        for c in self.0.chars() {
            match c {
                '\'' | '\\' => {
                    sql.push(c);
                    sql.push(c);
                }
                '\0' => {}
                _ => sql.push(c),
            }
        }
        sql.push('\'');
    }
}

impl Part for Word {
    fn write(&self, sql: &mut String) {
        sql.push_str(self.0);
    }
}

impl Part for Number {
    fn write(&self, sql: &mut String) {
        let _ = write!(sql, "{}", self.0);
    }
}

/// Statements that go to the server in one message. Without `BEGIN` in it, PostgreSQL runs several of them as one
/// transaction.
#[derive(Clone, Debug, Default)]
pub struct Script {
    text: String,
    statements: u32,
}

impl Script {
    /// An empty script.
    pub fn new() -> Self {
        Self::default()
    }

    /// A script of one statement.
    pub fn of(template: &'static str, parts: &[&dyn Part]) -> Self {
        Self::new().then(template, parts)
    }

    /// Adds a statement.
    #[must_use]
    pub fn then(mut self, template: &'static str, parts: &[&dyn Part]) -> Self {
        self.add(template, parts);
        self
    }

    /// Adds a statement.
    pub fn add(&mut self, template: &'static str, parts: &[&dyn Part]) {
        if !self.text.is_empty() {
            self.text.push_str(";\n");
        }
        let mut pieces = template.split("{}");
        let mut parts_left = parts.iter();
        self.text.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            match parts_left.next() {
                Some(part) => part.write(&mut self.text),
                // A statement with a hole is a mistake in our own text; the server refuses it as a syntax error.
                None => self.text.push_str("{}"),
            }
            self.text.push_str(piece);
        }
        debug_assert!(parts_left.next().is_none(), "more parts than places in {template}");
        self.statements += 1;
    }

    /// Adds the statements of another script.
    pub fn append(&mut self, other: Self) {
        if other.statements > 0 {
            let _ = write!(self.text, "{}{}", if self.text.is_empty() { "" } else { ";\n" }, other.text);
            self.statements += other.statements;
        }
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.statements == 0
    }

    /// Whether it makes or drops a database, which takes its time.
    pub fn makes_or_drops_a_database(&self) -> bool {
        ["CREATE DATABASE ", "DROP DATABASE "].iter().any(|word| self.text.starts_with(word))
    }

    /// The text for sqlx.
    pub fn sql(&self) -> SqlStr {
        AssertSqlSafe(self.text.as_str()).into_sql_str()
    }
}

/// A module's SQL, which is the platform operator's own and runs as `tenantry_migrator`, never as more.
pub fn module_sql(migration: &Migration) -> SqlStr {
    AssertSqlSafe(migration.sql.as_ref()).into_sql_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted() {
        let odd = Ident::new("we\"ird; DROP").unwrap();
        let script = Script::of("COMMENT ON ROLE {} IS {}", &[&odd, &Literal("it's")])
            .then("SELECT {}", &[&Literal("a\\'b")]);
        assert_eq!(
            script.sql().as_str(),
            "COMMENT ON ROLE \"we\"\"ird; DROP\" IS 'it''s';\nSELECT  E'a\\\\''b'"
        );
    }

    #[test]
    fn names_that_would_be_cut_are_refused() {
        assert!(Ident::new(&"a".repeat(63)).is_ok());
        for bad in ["", &"a".repeat(64), "a\0b", &"é".repeat(32)] {
            assert!(Ident::new(bad).is_err(), "{bad}");
        }
    }
}
