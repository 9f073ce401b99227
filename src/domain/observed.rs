//! What was found, as three values: absent, unknown, known. An unknown is never taken for an absent: that is how
//! databases get lost.

use jiff::Timestamp;

use super::{access::AccessLevel, departure::Terms};

/// One observation of something outside this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation<T> {
    /// It was looked for and is not there.
    Absent,
    /// It could not be looked for; the text says why, for people.
    Unknown(String),
    /// It is there.
    Known(T),
}

impl<T> Observation<T> {
    /// The value, where it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Absent | Self::Unknown(_) => None,
        }
    }
}

/// The registry's status of a tenant (`tenants.status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegistryStatus {
    /// Registered; the first provisioning has not ended yet.
    Provisioning,
    /// In use, for a limited time.
    Trial,
    /// In use.
    Active,
    /// Cut off, by somebody's decision.
    Suspended,
    /// Going away: cut off, a tombstone.
    Deprovisioning,
    /// Gone. Nothing leaves this status.
    Deprovisioned,
    /// The first provisioning met a permanent error.
    Failed,
}

impl RegistryStatus {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Provisioning,
        Self::Trial,
        Self::Active,
        Self::Suspended,
        Self::Deprovisioning,
        Self::Deprovisioned,
        Self::Failed,
    ];

    /// The text in the registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Trial => "trial",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deprovisioning => "deprovisioning",
            Self::Deprovisioned => "deprovisioned",
            Self::Failed => "failed",
        }
    }

    /// Reads the registry's text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether the tenant was handed out: from then on its database is never made again, only reported as lost.
    pub fn was_active(self) -> bool {
        match self {
            Self::Trial | Self::Active | Self::Suspended => true,
            Self::Provisioning | Self::Failed | Self::Deprovisioning | Self::Deprovisioned => false,
        }
    }
}

/// What the registry says of a tenant, as far as planning needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryFacts {
    /// Where the tenant is in its life.
    pub status: RegistryStatus,
    /// Digest of the seed (settings, admins, demo data) that is in the database.
    pub seed_digest: Option<String>,
    /// Whether the modules' recorded versions are the target versions.
    pub modules_current: bool,
    /// Whether name, settings and gates are mirrored as the spec has them.
    pub declared_current: bool,
    /// Whether what the plan gives is recorded as in force.
    pub plan_current: bool,
    /// Whether anything that a plan gives is: there are limits in the database.
    pub plan_recorded: bool,
    /// Whether a password verifier is recorded: it is, once the login has it.
    pub has_verifier: bool,
    /// Whether a database may be there: recorded before it is made, and until its drop is recorded.
    pub database_recorded: bool,
    /// Whether the tenant was ever handed out.
    pub handed_out: bool,
    /// Whether the wanted access level is recorded as in force.
    pub access_recorded: bool,
    /// The level that is recorded as in force; none while it is not known.
    pub recorded_access: Option<AccessLevel>,
    /// Whether status and reason are those of its standing.
    pub state_current: bool,
    /// The terms of the tombstone, while there is one.
    pub tombstone: Option<Terms>,
    /// Since when it goes away.
    pub departed_at: Option<Timestamp>,
    /// The purge has begun: there is no way back.
    pub purging: bool,
    /// A failed first provisioning is being taken back.
    pub rolling_back: bool,
}

/// What the tenant's server says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// The database under its final name.
    pub database: DatabaseFacts,
    /// The database under its building name is there and usable: whole, marked, closed to PUBLIC.
    pub building: BuildingFacts,
    /// The tenant's login.
    pub login: LoginFacts,
}

/// A database under a tenant's final name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseFacts {
    /// None of that name.
    Absent,
    /// One with the tenant's mark.
    Ours,
    /// One without it, or with another's: never touched.
    Foreign,
}

/// A database under a tenant's building name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildingFacts {
    /// None of that name.
    Absent,
    /// Cut off half-way, before it was marked and closed.
    Incomplete,
    /// Marked and closed to PUBLIC.
    Ready,
}

/// A tenant's login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFacts {
    /// None of that name.
    Absent,
    /// A role without the tenant's mark, or with another's: never touched.
    Foreign,
    /// The tenant's.
    Ours {
        /// LOGIN is given.
        can_login: bool,
        /// Group membership and CONNECT right are exactly those of the wanted access level.
        access_current: bool,
        /// The most sessions of it; -1 for no limit.
        connections: i32,
    },
}

/// What the Secrets say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretFacts {
    /// No Secret of that name that is ours.
    Absent,
    /// Ours, and its password is the one whose digest the registry has.
    Current,
    /// Ours, but its content is not what it should be.
    Stale,
}

/// Everything that a plan is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The registry's row.
    pub registry: Observation<RegistryFacts>,
    /// The server. `Absent` when no server was asked yet, because there is no row.
    pub server: Observation<ServerFacts>,
    /// The connection Secret.
    pub connection_secret: SecretFacts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_registry_status_reads_back() {
        for status in RegistryStatus::ALL {
            assert_eq!(RegistryStatus::parse(status.as_str()), Some(status));
        }
        assert_eq!(RegistryStatus::parse("Active"), None);
    }
}
