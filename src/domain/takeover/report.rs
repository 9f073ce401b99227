//! The report of a takeover: what would change, what stands against it, and its digest, which a person confirms.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{blockers::blockers, changes::changes, found::FoundDatabase, intent::Intent};
use crate::api::{
    reason::Reason,
    tenant_adoption::{AdoptionState, AdoptionStatus},
};

/// How many lines of a list a status has.
const SHOWN: usize = 40;
/// How long a line may be.
const LONGEST: usize = 400;

/// What a takeover would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What would change.
    pub changes: Vec<String>,
    /// What stands against it, each with what to do.
    pub blockers: Vec<String>,
    /// Of everything that the report is made from.
    pub digest: String,
}

/// Why a database is not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeoverRefusal {
    /// The server does not allow it.
    #[error(
        "spec.adopt: DatabaseServer {server:?} does not allow that database {database:?} is adopted: list it there, as in spec.allowAdoption: [{database:?}]"
    )]
    NotAllowed {
        /// The server.
        server: String,
        /// The database.
        database: String,
    },
    /// The server has no such database.
    #[error(
        "spec.adopt: server {server:?} has no database {database:?}: delete this Tenant and apply it with the right name, or without adopt"
    )]
    Missing {
        /// The server.
        server: String,
        /// The database.
        database: String,
    },
    /// The registry has the database for another tenant.
    #[error("spec.adopt: database {database:?} is that of tenant {tenant:?}: delete this Tenant")]
    Taken {
        /// The database.
        database: String,
        /// The other tenant's slug.
        tenant: String,
    },
    /// Something stands against it.
    #[error("database {database:?} cannot be adopted yet: {first}{}; status.adoption.blockers has all; they are read again within five minutes", more(*.others))]
    Blocked {
        /// The database.
        database: String,
        /// The first blocker.
        first: String,
        /// How many others there are.
        others: usize,
    },
    /// It is not confirmed.
    #[error(
        "nothing was changed: read status.adoption.changes, then confirm it with spec.adopt.confirm: {digest:?}"
    )]
    Unconfirmed {
        /// The digest to confirm.
        digest: String,
    },
    /// Another report was confirmed.
    #[error(
        "nothing was changed: database {database:?}, or what the tenant gets with it, has changed since spec.adopt.confirm was written: read status.adoption.changes again, then confirm it with spec.adopt.confirm: {digest:?}"
    )]
    Changed {
        /// The database.
        database: String,
        /// The digest to confirm.
        digest: String,
    },
}

fn more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" (and {others} more)") }
}

impl TakeoverRefusal {
    /// The reason of the conditions.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotAllowed { .. } => Reason::AdoptionNotAllowed,
            Self::Missing { .. } => Reason::DatabaseMissing,
            Self::Taken { .. } => Reason::Conflict,
            Self::Blocked { .. } => Reason::AdoptionBlocked,
            Self::Unconfirmed { .. } => Reason::AdoptionUnconfirmed,
            Self::Changed { .. } => Reason::AdoptionChanged,
        }
    }
}

impl Report {
    /// Reports on a database.
    pub fn of(found: &FoundDatabase, intent: &Intent) -> Self {
        // The values are written in one order: what is the same has the same digest.
        let text = json!({"found": found, "intent": intent}).to_string();
        let hash = Sha256::digest(text.as_bytes());
        let digest = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { changes: changes(found, intent), blockers: blockers(found, intent), digest }
    }

    /// Whether the database may be taken over, as this was confirmed.
    ///
    /// # Errors
    /// Why not.
    pub fn decide(&self, database: &str, confirmed: Option<&str>) -> Result<(), TakeoverRefusal> {
        let database = database.to_owned();
        if let Some(first) = self.blockers.first() {
            let (first, others) = (shortened(first), self.blockers.len() - 1);
            return Err(TakeoverRefusal::Blocked { database, first, others });
        }
        let digest = self.digest.clone();
        match confirmed {
            None => Err(TakeoverRefusal::Unconfirmed { digest }),
            Some(confirmed) if confirmed != digest => Err(TakeoverRefusal::Changed { database, digest }),
            Some(_) => Ok(()),
        }
    }

    /// The report as a status shows it.
    pub fn status(&self, found: &FoundDatabase) -> AdoptionStatus {
        AdoptionStatus {
            database: found.name.clone(),
            state: Some(if self.blockers.is_empty() {
                AdoptionState::Reported
            } else {
                AdoptionState::Blocked
            }),
            // A report with blockers cannot be confirmed.
            digest: self.blockers.is_empty().then(|| self.digest.clone()),
            owner: Some(found.owner.name.clone()),
            changes: bounded(&self.changes),
            blockers: bounded(&self.blockers),
        }
    }
}

/// The first lines, and how many there are beside them.
fn bounded(lines: &[String]) -> Vec<String> {
    let mut shown: Vec<String> = lines.iter().take(SHOWN).map(|line| shortened(line)).collect();
    if lines.len() > SHOWN {
        shown.push(format!("… and {} more", lines.len() - SHOWN));
    }
    shown
}

/// A line of a limited length. A statement is cut too: a name in it may have 63 bytes, and a signature more.
fn shortened(line: &str) -> String {
    if line.len() <= LONGEST {
        line.to_owned()
    } else {
        format!("{}…", &line[..line.floor_char_boundary(LONGEST)])
    }
}
