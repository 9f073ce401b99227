//! The only place that turns names and texts into SQL, and the only user of `AssertSqlSafe`.
//!
//! A statement is a `&'static str` with `{}` for each [`Part`]. A part is a quoted identifier, a quoted literal, a number
//! or a constant keyword; a bare `String` cannot be put into a statement.

use std::fmt::{self, Write};

use postgres_protocol::escape::{escape_identifier, escape_literal};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::{
    domain::{
        names::{MAX_IDENTIFIER_BYTES, building_name},
        placement::Placement,
    },
    postgres::error::{Error, Result},
};

/// The role that creates all roles and databases of this installation.
pub const ADMIN: Ident = Ident::fixed("tenantry_admin");
/// The role that owns every tenant database.
pub const DBA: Ident = Ident::fixed("tenantry_dba");
/// The role that owns the objects in tenant databases.
pub const OWNER: Ident = Ident::fixed("tenantry_owner");
/// The role of the logins under which modules' SQL and seeds run: one login for each session.
pub const MIGRATOR: Ident = Ident::fixed("tenantry_migrator");
/// The three groups, widest first: what [`AccessLevel::group`](crate::domain::access::AccessLevel::group) names.
pub const GROUPS: [Ident; 3] =
    [Ident::fixed("tenantry_rw"), Ident::fixed("tenantry_shrink"), Ident::fixed("tenantry_ro")];

/// The attributes of every role of Tenantry, besides LOGIN.
pub const NO_ATTRIBUTES: Keyword = Keyword("NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS");

/// A name in PostgreSQL, to be quoted whenever it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ident(std::borrow::Cow<'static, str>);

impl Ident {
    const fn fixed(name: &'static str) -> Self {
        Self(std::borrow::Cow::Borrowed(name))
    }

    /// Takes a name. A name that PostgreSQL would truncate silently, or could not hold, is refused: two names that are
    /// equal in their first 63 bytes must never become one object.
    pub fn new(name: &str) -> Result<Self> {
        if name.is_empty() || name.len() > MAX_IDENTIFIER_BYTES || name.contains('\0') {
            return Err(Error::Name(name.chars().take(80).collect()));
        }
        Ok(Self(name.to_owned().into()))
    }

    /// A tenant's database.
    pub fn database(placement: &Placement) -> Result<Self> {
        Self::new(&placement.database)
    }

    /// A tenant's login.
    pub fn login(placement: &Placement) -> Result<Self> {
        Self::new(&placement.login)
    }

    /// The name under which a tenant's database is built.
    pub fn building(placement: &Placement) -> Self {
        Self(building_name(placement.tenant).into())
    }

    /// The template of a module set.
    pub fn template(digest: &str) -> Result<Self> {
        Self::new(&format!("tenantry_template_{digest}"))
    }

    /// The name under which a template is built.
    pub fn template_building(digest: &str) -> Result<Self> {
        Self::new(&format!("tenantry_template_new_{digest}"))
    }

    /// The scratch database in which a module is rehearsed.
    pub fn scratch(digest: &str) -> Result<Self> {
        Self::new(&format!("tenantry_scratch_{digest}"))
    }

    /// A new name for the login of one session.
    pub fn session_login() -> Self {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        Self(format!("{MIGRATOR}_{}", &unique[..16]).into())
    }

    /// The name, unquoted, for bind parameters and messages.
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
pub struct Literal<'a>(&'a str);

impl<'a> Literal<'a> {
    /// Takes a text. A NUL is refused: no PostgreSQL text can contain one.
    pub fn new(text: &'a str) -> Result<Self> {
        if text.contains('\0') { Err(Error::NulInText) } else { Ok(Self(text)) }
    }
}

impl<'a> From<&'a Ident> for Literal<'a> {
    fn from(name: &'a Ident) -> Self {
        Self(name.as_str())
    }
}

/// A constant part of a statement, which is not quoted.
#[derive(Clone, Copy, Debug)]
pub struct Keyword(pub &'static str);

/// The name of an object in SQL, qualified and quoted by PostgreSQL itself (`format('%I.%I')`), from its catalogs.
#[derive(Clone, Debug)]
pub struct Quoted<'a>(&'a str);

impl<'a> Quoted<'a> {
    /// Takes a name that a query returned.
    pub fn by_postgres(name: &'a str) -> Self {
        Self(name)
    }
}

/// A whole number.
#[derive(Clone, Copy, Debug)]
pub struct Number(pub i32);

/// A value for a `{}`.
pub trait Part: Sync {
    /// Writes the part, quoted.
    fn write(&self, sql: &mut String);
}

impl Part for Ident {
    fn write(&self, sql: &mut String) {
        sql.push_str(&escape_identifier(&self.0));
    }
}

impl Part for Literal<'_> {
    /// `E'…'` when there is a backslash, so that the result does not depend on `standard_conforming_strings`.
    fn write(&self, sql: &mut String) {
        sql.push_str(&escape_literal(self.0));
    }
}

impl Part for Keyword {
    fn write(&self, sql: &mut String) {
        sql.push_str(self.0);
    }
}

impl Part for Quoted<'_> {
    fn write(&self, sql: &mut String) {
        sql.push_str(self.0);
    }
}

impl Part for Number {
    fn write(&self, sql: &mut String) {
        let _ = write!(sql, "{}", self.0);
    }
}

/// Parts with commas between them.
pub struct PartList<'a>(pub &'a [&'a dyn Part]);

impl Part for PartList<'_> {
    fn write(&self, sql: &mut String) {
        for (index, part) in self.0.iter().enumerate() {
            if index > 0 {
                sql.push_str(", ");
            }
            part.write(sql);
        }
    }
}

/// The text of a script, as a quoted literal: for EXECUTE.
pub struct ScriptLiteral<'a>(pub &'a Script);

impl Part for ScriptLiteral<'_> {
    fn write(&self, sql: &mut String) {
        sql.push_str(&escape_literal(&self.0.text));
    }
}

/// The text of a script as it is: a query or a statement within a block.
impl Part for Script {
    fn write(&self, sql: &mut String) {
        sql.push_str(&self.text);
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
                // A missing part is a bug in the template; the server refuses it as a syntax error.
                None => self.text.push_str("{}"),
            }
            self.text.push_str(piece);
        }
        debug_assert!(parts_left.next().is_none(), "more parts than placeholders in {template}");
        self.statements += 1;
    }

    /// Adds a statement whose last place takes a list, with commas.
    pub fn add_list(&mut self, template: &'static str, parts: &[&dyn Part], list: &[&dyn Part]) {
        let mut all: Vec<&dyn Part> = parts.to_vec();
        let list = PartList(list);
        all.push(&list);
        self.add(template, &all);
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

    /// Whether it creates or drops a database, which has a longer time limit.
    pub fn creates_or_drops_database(&self) -> bool {
        ["CREATE DATABASE ", "DROP DATABASE "].iter().any(|word| self.text.starts_with(word))
    }

    /// The text for sqlx.
    pub fn sql(&self) -> SqlStr {
        AssertSqlSafe(self.text.as_str()).into_sql_str()
    }
}

/// A module's SQL, a file or a statement of it. It comes from the platform operator, and runs with the rights of
/// `tenantry_owner` only.
pub fn module_sql(sql: &str) -> SqlStr {
    AssertSqlSafe(sql).into_sql_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_are_quoted() {
        let odd = Ident::new("we\"ird; DROP").unwrap();
        let script = Script::of("COMMENT ON ROLE {} IS {}", &[&odd, &Literal::new("it's").unwrap()])
            .then("SELECT {}", &[&Literal::new("a\\'b").unwrap()]);
        assert_eq!(
            script.sql().as_str(),
            "COMMENT ON ROLE \"we\"\"ird; DROP\" IS 'it''s';\nSELECT  E'a\\\\''b'"
        );
    }

    #[test]
    fn name_that_would_be_truncated_is_refused() {
        assert!(Ident::new(&"a".repeat(63)).is_ok());
        for bad in ["", &"a".repeat(64), "a\0b", &"é".repeat(32)] {
            assert!(Ident::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn text_with_nul_is_refused() {
        assert!(matches!(Literal::new("a\0b"), Err(Error::NulInText)));
    }
}
