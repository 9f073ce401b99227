//! What the registry records of a seed, in one text: the digest of what was seeded, and which one-time credentials of admins
//! are in the admin Secret.

use std::fmt;

use jiff::Timestamp;

/// What was seeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedRecord {
    /// The digest of settings, admins and demo data.
    pub digest: String,
    /// The credentials in the admin Secret; none if every admin has an account already.
    pub issued: Option<IssuedCredentials>,
}

/// The content of the admin Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCredentials {
    /// When the first of them expires, in whole seconds.
    pub expires_at: Timestamp,
    /// The digest of the Secret's entry.
    pub content_digest: String,
}

impl SeedRecord {
    /// Reads the registry's text. One of an older version has only the digest.
    pub fn parse(text: &str) -> Self {
        let (digest, issued) = match text.split_once('+') {
            Some((digest, issued)) => (digest, IssuedCredentials::parse(issued)),
            None => (text, None),
        };
        Self { digest: digest.to_owned(), issued }
    }

    /// Whether the credentials that were issued are the content of the admin Secret, and do not expire yet. Without issued
    /// ones, no Secret is needed. `content_digest` is that of the Secret's entry; none if there is no Secret.
    pub fn credentials_intact(&self, content_digest: Option<&str>, now: Timestamp) -> bool {
        self.issued.as_ref().is_none_or(|issued| {
            now < issued.expires_at && content_digest == Some(issued.content_digest.as_str())
        })
    }
}

impl IssuedCredentials {
    fn parse(text: &str) -> Option<Self> {
        let (second, content_digest) = text.split_once('+')?;
        let expires_at = Timestamp::from_second(second.parse().ok()?).ok()?;
        Some(Self { expires_at, content_digest: content_digest.to_owned() })
    }
}

impl fmt::Display for SeedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digest)?;
        let Some(issued) = &self.issued else { return Ok(()) };
        write!(f, "+{}+{}", issued.expires_at.as_second(), issued.content_digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::constant(second, 0)
    }

    #[test]
    fn text_is_read_as_it_was_written() {
        let issued = Some(IssuedCredentials { expires_at: at(100), content_digest: "c".into() });
        for record in
            [SeedRecord { digest: "d".into(), issued }, SeedRecord { digest: "d".into(), issued: None }]
        {
            assert_eq!(SeedRecord::parse(&record.to_string()), record);
        }
        assert_eq!(SeedRecord::parse("d+soon+c"), SeedRecord { digest: "d".into(), issued: None });
    }

    #[test]
    fn lost_changed_and_expired_credentials_are_not_intact() {
        let record = SeedRecord::parse("d+100+c");
        assert!(record.credentials_intact(Some("c"), at(99)));
        assert!(!record.credentials_intact(Some("c"), at(100)));
        assert!(!record.credentials_intact(Some("x"), at(99)));
        assert!(!record.credentials_intact(None, at(99)));
        assert!(SeedRecord::parse("d").credentials_intact(None, at(99)));
    }
}
