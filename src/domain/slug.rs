//! The slug: the customer's short name, from which all SQL names are derived.

use std::fmt;

/// A valid slug: 3 to 40 of `[a-z0-9-]`, starts with a letter, no trailing or double dash, not reserved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slug(String);

/// Why a text is not a slug, in words for users.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlugError {
    /// Shorter than three or longer than forty characters.
    #[error("must have 3 to 40 characters, has {0}")]
    Length(usize),
    /// The first character is not a lower-case letter.
    #[error("must start with a lower-case letter")]
    Start,
    /// A character outside `[a-z0-9-]`.
    #[error("may only contain a-z, 0-9 and '-', found {0:?}")]
    Character(char),
    /// A dash at the end, or two in a row.
    #[error("must not end with a dash nor contain two dashes in a row")]
    Dash,
    /// A name that PostgreSQL or Tenantry uses.
    #[error("is reserved; choose another")]
    Reserved,
}

/// Slugs that no tenant may have: names of databases and schemas of PostgreSQL and Tenantry. The server's prefix keeps
/// the databases apart already; this keeps lists from misleading readers.
pub const RESERVED: &[&str] =
    &["postgres", "template0", "template1", "tenantry", "public", "information-schema", "pg-catalog"];

impl Slug {
    /// Parses a slug.
    pub fn parse(text: &str) -> Result<Self, SlugError> {
        let length = text.chars().count();
        if !(3..=40).contains(&length) {
            return Err(SlugError::Length(length));
        }
        if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(SlugError::Character(bad));
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Err(SlugError::Start);
        }
        if text.ends_with('-') || text.contains("--") {
            return Err(SlugError::Dash);
        }
        if RESERVED.contains(&text) {
            return Err(SlugError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }

    /// The slug as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_slugs_are_accepted() {
        for good in ["abc", "acme", "a-1", "acme-corp-2", &"a".repeat(40)] {
            assert_eq!(Slug::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn invalid_slugs_are_refused_with_the_reason() {
        for (bad, why) in [
            ("ab", SlugError::Length(2)),
            (&"a".repeat(41), SlugError::Length(41)),
            ("1abc", SlugError::Start),
            ("-abc", SlugError::Start),
            ("Acme", SlugError::Character('A')),
            ("ac_me", SlugError::Character('_')),
            ("müller", SlugError::Character('ü')),
            ("acme-", SlugError::Dash),
            ("ac--me", SlugError::Dash),
            ("postgres", SlugError::Reserved),
        ] {
            assert_eq!(Slug::parse(bad), Err(why), "{bad}");
        }
    }
}
