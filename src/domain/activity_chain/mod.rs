//! The hash chain of the activity log: the rows of one tenant, each with a hash of its content and of the row before it. The
//! registry computes the hashes (`migrations/system/0022_activity_chain.sql`); this module computes them again, so that a
//! check does not depend on functions of the database that is checked.

mod finding;
mod heads;
mod verifier;

use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use self::{
    finding::ChainFinding,
    heads::{ChainHead, HeadsError, StoredHead, parse_heads},
    verifier::{ChainSummary, ChainVerifier},
};

/// What the first row of a chain has as the hash of the row before it.
pub const GENESIS: [u8; 32] = [0; 32];

/// The chain of the rows without a tenant.
pub const WITHOUT_TENANT: Uuid = Uuid::nil();

/// A row of the activity log, or of its archive, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedActivity {
    /// Its id, in the order in which rows were written.
    pub id: i64,
    /// The tenant that it is about.
    pub tenant: Option<Uuid>,
    /// When it was written, in RFC 3339.
    pub at: String,
    /// The same, in microseconds since 1970; none for a time that no row was written at, such as infinity.
    pub at_micros: Option<i64>,
    /// What was done.
    pub action: String,
    /// Who did it.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// Further facts: JSON, as PostgreSQL prints `jsonb`.
    pub details: String,
    /// The workflow that did it.
    pub correlation: Option<Uuid>,
    /// Whether it is in the archive.
    pub archived: bool,
    /// Its place in the chain. None: it was written before there were chains, and is not linked yet.
    pub link: Option<ChainLink>,
}

/// A row's place in its chain, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainLink {
    /// The number of the row in its chain, from 1.
    pub position: i64,
    /// The hash of the row before it.
    pub previous: Vec<u8>,
    /// The hash of this row.
    pub hash: Vec<u8>,
}

impl LoggedActivity {
    /// The chain of the row: its tenant's.
    pub fn chain(&self) -> Uuid {
        self.tenant.unwrap_or(WITHOUT_TENANT)
    }

    /// The hash that the row must have at this position, after this row. None: no row was written with such a time.
    pub fn hash(&self, position: i64, previous: &[u8]) -> Option<[u8; 32]> {
        let mut content = String::new();
        let id = |id: Option<Uuid>| id.map(|id| id.to_string());
        for field in [
            Some(position.to_string()),
            Some(self.id.to_string()),
            id(self.tenant),
            Some(self.at_micros?.to_string()),
            Some(self.action.clone()),
            Some(self.actor.clone()),
            self.reason.clone(),
            Some(self.details.clone()),
            id(self.correlation),
        ] {
            // With the length in characters, no two rows have the same encoding.
            match field {
                Some(text) => content += &format!("{}:{text},", text.chars().count()),
                None => content += "-,",
            }
        }
        Some(Sha256::new().chain_update(previous).chain_update(content).finalize().into())
    }
}

/// The hexadecimal notation of a hash, as `encode(hash, 'hex')` has it.
pub fn hexadecimal_hash(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> LoggedActivity {
        LoggedActivity {
            id: 41,
            tenant: Some(Uuid::from_u128(7)),
            at: String::new(),
            at_micros: Some(1_800_000_000_123_456),
            action: "Suspended".to_owned(),
            actor: "ada".to_owned(),
            reason: Some("nicht bezahlt, ärgerlich".to_owned()),
            details: r#"{"to": "suspended", "from": "active"}"#.to_owned(),
            correlation: None,
            archived: false,
            link: None,
        }
    }

    #[test]
    fn hash_is_that_of_the_documented_encoding() {
        // By PostgreSQL: SELECT encode(sha256(decode(repeat('00', 32), 'hex') || convert_to($1, 'UTF8')), 'hex')
        let expected = "9e5ecc15ef1d635f";
        let hash = row().hash(3, &GENESIS).unwrap();
        assert_eq!(&hexadecimal_hash(&hash)[..16], expected);
    }

    #[test]
    fn every_field_and_the_place_change_the_hash() {
        let original = row().hash(3, &GENESIS).unwrap();
        let changes: [fn(&mut LoggedActivity); 10] = [
            |row| row.id = 42,
            |row| row.tenant = None,
            |row| row.at_micros = Some(1_800_000_000_123_457),
            |row| row.action = "Resumed".to_owned(),
            |row| row.actor = "bob".to_owned(),
            |row| row.reason = None,
            |row| row.reason = Some(String::new()),
            |row| row.details = "{}".to_owned(),
            |row| row.correlation = Some(Uuid::nil()),
            // The same characters, divided otherwise.
            |row| (row.action, row.actor) = ("Suspendeda".to_owned(), "da".to_owned()),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = row();
            change(&mut changed);
            assert_ne!(changed.hash(3, &GENESIS), Some(original), "change {number}");
        }
        assert_ne!(row().hash(4, &GENESIS), Some(original));
        assert_ne!(row().hash(3, &[1; 32]), Some(original));
        assert_eq!(LoggedActivity { at_micros: None, ..row() }.hash(3, &GENESIS), None);
        // What is not content.
        assert_eq!(LoggedActivity { archived: true, ..row() }.hash(3, &GENESIS), Some(original));
    }
}
