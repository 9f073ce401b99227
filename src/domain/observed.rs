//! What was observed, as one of three values: absent, unknown, known. An unknown value is never treated as absent: that
//! would lose databases.

use jiff::Timestamp;

use super::{access::AccessLevel, drift::Mismatch, offboarding::PurgeTerms, rotation::PreviousState};

/// One observation of something outside this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation<T> {
    /// It was read and does not exist.
    Absent,
    /// It could not be read; the text is the reason, for people.
    Unknown(String),
    /// It exists.
    Known(T),
}

impl<T> Observation<T> {
    /// The value, if it is known.
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
    /// Its access is restricted.
    Suspended,
    /// It is being deprovisioned: access is revoked, and a tombstone is recorded.
    Deprovisioning,
    /// Deprovisioned. No transition leads out of this status.
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

    /// Whether the tenant was activated: from then on its database is never recreated, only reported as missing.
    pub fn was_active(self) -> bool {
        match self {
            Self::Trial | Self::Active | Self::Suspended => true,
            Self::Provisioning | Self::Failed | Self::Deprovisioning | Self::Deprovisioned => false,
        }
    }
}

/// How far the takeover of a tenant's database is, on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// It was confirmed, and is not complete.
    Pending,
    /// The database is the tenant's.
    Done,
}

impl Takeover {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Pending, Self::Done];

    /// The text in the registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Done => "done",
        }
    }
}

/// The registry's row of a tenant, as far as planning needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryFacts {
    /// The status in the registry.
    pub status: RegistryStatus,
    /// Digest of the seed (settings, admins, demo data) that is in the database.
    pub seed_digest: Option<String>,
    /// Whether the modules' recorded versions are the target versions.
    pub modules_current: bool,
    /// Whether every name in `spec.purgeModules` has its answer, and no other has one.
    pub purges_current: bool,
    /// Whether name, settings and gates are mirrored as the spec has them.
    pub declared_current: bool,
    /// Whether the tenant has the slug of the spec.
    pub slug_current: bool,
    /// Whether the last attempt failed because another tenant has that slug.
    pub slug_refused: bool,
    /// Whether the plan's entitlements are recorded as in force.
    pub plan_current: bool,
    /// Whether any entitlements are recorded as in force: the database has limits.
    pub plan_recorded: bool,
    /// Whether a password verifier is recorded, which happens once the login has it.
    pub has_verifier: bool,
    /// Whether a database may exist: recorded before it is created, and until its drop is recorded.
    pub database_recorded: bool,
    /// Whether the tenant was ever activated.
    pub activated: bool,
    /// Whether the wanted access level is recorded as in force.
    pub access_recorded: bool,
    /// The level that is recorded as in force, if it is known.
    pub recorded_access: Option<AccessLevel>,
    /// Whether status and reason are those of its access evaluation.
    pub state_current: bool,
    /// The terms of the tombstone, if there is one.
    pub tombstone: Option<PurgeTerms>,
    /// When deprovisioning began.
    pub departed_at: Option<Timestamp>,
    /// When the terms were last changed so that the purge may begin earlier.
    pub hastened_at: Option<Timestamp>,
    /// The purge has begun and cannot be undone.
    pub purging: bool,
    /// The tenant has a legal hold: no purge begins.
    pub preserved: bool,
    /// A failed first provisioning is being rolled back.
    pub rolling_back: bool,
    /// How far the takeover of a database is that existed before the tenant; none of one that is created.
    pub takeover: Option<Takeover>,
    /// The database has to be verified: its server was restored, or it was found with older migrations than recorded.
    pub verification_required: bool,
    /// A rotation of the credentials is due.
    pub rotation_due: bool,
    /// The previous login, by the registry.
    pub previous: PreviousState,
}

/// What the tenant's server has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// The database under its final name.
    pub database: DatabaseFacts,
    /// The database under its building name.
    pub building: BuildingFacts,
    /// The tenant's login.
    pub login: LoginFacts,
    /// Its previous login.
    pub previous: LoginFacts,
    /// Its reader login.
    pub reader: LoginFacts,
    /// The tenant has more access than its level, by a manual change that EnforceAccess takes back.
    pub exceeds_level: bool,
    /// Differences that only a person can repair.
    pub unrepairable: Vec<Mismatch>,
}

impl ServerFacts {
    /// Whether the server has a login of the tenant.
    pub fn has_login(&self) -> bool {
        let is_own = |login: LoginFacts| matches!(login, LoginFacts::Ours { .. } | LoginFacts::Renamed);
        is_own(self.login) || is_own(self.previous) || is_own(self.reader)
    }

    /// Whether the rights of the logins beside the login, as far as they exist, are those of the wanted level.
    pub fn are_others_current(&self) -> bool {
        [self.previous, self.reader].into_iter().all(|login| match login {
            LoginFacts::Ours { access_current, .. } => access_current,
            LoginFacts::Absent | LoginFacts::Renamed | LoginFacts::Foreign => true,
        })
    }
}

/// A database under a tenant's final name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseFacts {
    /// None of that name.
    Absent,
    /// The tenant's database.
    Ours,
    /// A database of another owner, which is never changed.
    Foreign,
}

/// A database under a tenant's building name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildingFacts {
    /// None of that name.
    Absent,
    /// The creation was interrupted before its ownership comment was written.
    Incomplete,
    /// It has its ownership comment and is closed to PUBLIC.
    Ready,
}

/// A tenant's login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFacts {
    /// None of that name.
    Absent,
    /// The tenant's login has another name.
    Renamed,
    /// A role of another owner, which is never changed.
    Foreign,
    /// The tenant's.
    Ours {
        /// It has LOGIN.
        can_login: bool,
        /// Its rights are exactly those of the wanted access level.
        access_current: bool,
        /// The maximum number of its sessions; -1 for no limit.
        connections: i32,
    },
}

/// The state of the connection Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretFacts {
    /// No Secret of that name belongs to the tenant.
    Absent,
    /// It belongs to the tenant, and the registry has the digest of its password.
    Current,
    /// It belongs to the tenant, but its content differs.
    Stale,
}

/// The reader login, apart from its role on the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderFacts {
    /// The Tenant asks for it.
    pub is_wanted: bool,
    /// The registry has its name.
    pub is_recorded: bool,
    /// The registry has its password's verifier, and its Secret has that password and is as it should be.
    pub is_published: bool,
}

/// Everything from which the next action is planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedFacts {
    /// The registry's row.
    pub registry: Observation<RegistryFacts>,
    /// The server. `Absent` if none was read yet, because there is no row.
    pub server: Observation<ServerFacts>,
    /// The connection Secret.
    pub connection_secret: SecretFacts,
    /// The reader login.
    pub reader: ReaderFacts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_status_round_trips() {
        for status in RegistryStatus::ALL {
            assert_eq!(RegistryStatus::parse(status.as_str()), Some(status));
        }
        assert_eq!(RegistryStatus::parse("Active"), None);
    }
}
