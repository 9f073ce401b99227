//! The plan: which steps bring what was observed to what is desired. Pure and total; steps come from what is
//! observed, never from what a status says was done.

mod leaving;
mod living;
mod narrowing;

use jiff::Timestamp;

use super::{observed::RegistryStatus, steps::Step};
use crate::api::tenant_status::WorkflowKind;

pub use self::{
    leaving::{RELEASE_UNCUT_AFTER, plan_leaving},
    living::{Wanted, plan_living},
    narrowing::plan_narrowing,
};

/// Where the object is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// It lives.
    #[default]
    Living,
    /// It was deleted at this time, and waits for its finalizers.
    Deleted(Timestamp),
    /// It is gone; the registry alone knows of the tenant.
    Gone,
}

/// What the object itself says, needed whatever its spec is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectFacts {
    /// Our finalizer is on it.
    pub has_finalizer: bool,
    /// Where it is.
    pub presence: Presence,
    /// `spec.paused`.
    pub paused: bool,
    /// The database is to be looked into, as its server was restored.
    pub unverified: bool,
    /// Its status has a tenant's id: the registry had a row for it.
    pub was_registered: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// All is as it should be.
    Nothing,
    /// Run these steps in order, as one workflow; then observe again if `again` says that more can be seen then.
    Run {
        /// Which kind of workflow they are.
        kind: WorkflowKind,
        /// The steps, never empty.
        steps: Vec<Step>,
        /// There will be more to do, which cannot be seen yet.
        again: bool,
    },
    /// Nothing can be done, and why.
    Blocked(Blocked),
}

/// Why nothing can be done for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The registry cannot be asked.
    RegistryUnknown(String),
    /// The server cannot be asked.
    ServerUnknown(String),
    /// A database of the tenant's name is not the tenant's.
    ForeignDatabase,
    /// A role of the tenant's login's name is not the tenant's.
    ForeignLogin,
    /// The tenant was in use and its database is gone. It is never made again, empty.
    DatabaseMissing,
    /// The registry row is closed, or its purge has begun, while the object lives.
    RowGone(RegistryStatus),
    /// The registry had a row for this very object, and has none.
    RowMissing,
    /// `spec.paused` holds the work back.
    Paused,
}

#[cfg(test)]
mod fixtures {
    use super::*;
    use crate::domain::{
        access::AccessLevel,
        observed::{
            BuildingFacts, DatabaseFacts, LoginFacts, Observation, Observed, RegistryFacts, SecretFacts,
            ServerFacts,
        },
    };

    pub const WANTED: Wanted<'_> = Wanted {
        seed_digest: "seed",
        access: AccessLevel::ReadWrite,
        connections: -1,
        state: RegistryStatus::Active,
    };

    pub const OBJECT: ObjectFacts = ObjectFacts {
        has_finalizer: true,
        presence: Presence::Living,
        paused: false,
        unverified: false,
        was_registered: false,
    };

    pub fn row(status: RegistryStatus) -> RegistryFacts {
        RegistryFacts {
            status,
            seed_digest: Some("seed".into()),
            modules_current: true,
            declared_current: true,
            plan_current: true,
            plan_recorded: true,
            has_verifier: true,
            database_recorded: true,
            handed_out: true,
            access_recorded: true,
            recorded_access: Some(AccessLevel::ReadWrite),
            state_current: true,
            tombstone: None,
            departed_at: None,
            purging: false,
            rolling_back: false,
        }
    }

    pub fn whole(status: RegistryStatus) -> Observed {
        Observed {
            registry: Observation::Known(row(status)),
            server: Observation::Known(ServerFacts {
                database: DatabaseFacts::Ours,
                building: BuildingFacts::Absent,
                login: LoginFacts::Ours { can_login: true, access_current: true, connections: -1 },
            }),
            connection_secret: SecretFacts::Current,
        }
    }

    pub fn registered() -> Observed {
        let mut row = row(RegistryStatus::Provisioning);
        (row.seed_digest, row.modules_current, row.has_verifier, row.database_recorded) =
            (None, false, false, false);
        row.handed_out = false;
        Observed {
            registry: Observation::Known(row),
            server: Observation::Known(ServerFacts {
                database: DatabaseFacts::Absent,
                building: BuildingFacts::Absent,
                login: LoginFacts::Absent,
            }),
            connection_secret: SecretFacts::Absent,
        }
    }

    pub const BLOCKED: Wanted<'_> =
        Wanted { access: AccessLevel::Blocked, state: RegistryStatus::Suspended, ..WANTED };

    /// In use, where full access is recorded and something else is wanted.
    pub fn judged_anew(status: RegistryStatus) -> Observed {
        let mut observed = whole(status);
        let (Observation::Known(row), Observation::Known(server)) =
            (&mut observed.registry, &mut observed.server)
        else {
            unreachable!()
        };
        (row.access_recorded, row.state_current) = (false, false);
        server.login = LoginFacts::Ours { can_login: true, access_current: false, connections: -1 };
        observed
    }

    pub fn steps(plan: Plan) -> Vec<Step> {
        match plan {
            Plan::Run { steps, .. } => steps,
            Plan::Nothing => vec![],
            Plan::Blocked(why) => panic!("blocked: {why:?}"),
        }
    }
}
