//! Planning: which steps bring the observed state to the desired one. Pure and total. Steps follow from what is
//! observed, never from what a status reports as done.

pub mod activation;
pub mod attempt;
mod deprovision;
mod provision;
mod restrict;
pub mod step;

use jiff::Timestamp;

use self::step::Step;
use super::{
    drift::Mismatch,
    observed::{BuildingFacts, DatabaseFacts, RegistryFacts, RegistryStatus, ServerFacts},
    takeover::TakeoverRefusal,
};
use crate::api::tenant_status::WorkflowKind;

pub use self::{
    deprovision::{RELEASE_UNVERIFIED_AFTER, plan_deprovision},
    provision::{ProvisionTarget, plan_provision},
    restrict::plan_restriction,
};

/// The state of the Tenant object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ObjectState {
    /// It exists and is not being deleted.
    #[default]
    Present,
    /// It was deleted at this time, and waits for its finalizers.
    Deleting(Timestamp),
    /// It does not exist; only the registry knows the tenant.
    Deleted,
}

/// What planning needs of the Tenant object, with a valid spec or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantObject {
    /// Whether it has our finalizer.
    pub has_finalizer: bool,
    /// Its state.
    pub state: ObjectState,
    /// `spec.paused`.
    pub paused: bool,
    /// Whether its status has a tenant id: the registry had a row for it.
    pub was_registered: bool,
    /// Whether its status shows that the tenant of its row was activated.
    pub was_activated: bool,
    /// Whether a person asked, by annotation, to write its lost row again, or to take over the one that is elsewhere.
    pub adopts_row: bool,
    /// Whether the tenant that its status names is that of another Tenant, by the registry.
    pub is_elsewhere: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextAction {
    /// Nothing: the observed state is the desired one.
    Done,
    /// Run these steps in order, as one workflow; then observe again if `again` is set.
    Run {
        /// The kind of the workflow.
        kind: WorkflowKind,
        /// The steps, never empty.
        steps: Vec<Step>,
        /// Whether there is more to do, which can be planned only afterwards.
        again: bool,
    },
    /// Nothing can be done, for this reason.
    Blocked(BlockedReason),
}

impl NextAction {
    /// A workflow of these steps; [`NextAction::Done`] without steps.
    fn run(kind: WorkflowKind, steps: Vec<Step>) -> Self {
        if steps.is_empty() { Self::Done } else { Self::Run { kind, steps, again: false } }
    }

    /// The action, unless it registers a tenant whose database is not to be taken over: without a row, nothing is left of it.
    #[must_use]
    pub fn unless_refused(self, refusal: Option<TakeoverRefusal>) -> Self {
        match (self, refusal) {
            (Self::Run { steps, .. }, Some(refusal)) if steps.contains(&Step::Register) => {
                Self::Blocked(BlockedReason::NotAdopted(refusal))
            }
            (action, _) => action,
        }
    }
}

/// Why nothing can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockedReason {
    /// The registry could not be read.
    RegistryUnknown(String),
    /// The server could not be read.
    ServerUnknown(String),
    /// The database of the tenant's name belongs to another owner.
    ForeignDatabase,
    /// The role of the tenant's login's name belongs to another owner.
    ForeignLogin,
    /// The tenant was active and its database does not exist. It is never recreated empty.
    DatabaseMissing,
    /// The registry row is closed, or its purge has begun, while the object exists.
    RowClosed(RegistryStatus),
    /// The registry had a row for this object, and has none.
    RowMissing,
    /// The registry has the tenant that the status names for another Tenant.
    Elsewhere,
    /// PostgreSQL differs from the desired state in ways that only a user can repair.
    Unrepairable(Vec<Mismatch>),
    /// `spec.paused` stops the work.
    Paused,
    /// The database that the tenant should take over is not taken over yet.
    NotAdopted(TakeoverRefusal),
}

impl BlockedReason {
    fn server_not_asked() -> Self {
        Self::ServerUnknown("the server was not asked".into())
    }
}

/// Whether the server has a database of the tenant, finished or not.
fn has_own_database(server: &ServerFacts) -> bool {
    server.database == DatabaseFacts::Ours || server.building != BuildingFacts::Absent
}

/// Whether the database existed before the tenant and is not the tenant's yet: an undo gives it back, and never drops it.
fn gives_back(row: &RegistryFacts) -> bool {
    row.takeover.is_some() && !row.activated
}

#[cfg(test)]
pub(super) mod fixtures {
    use super::*;
    use crate::domain::{
        access::AccessLevel,
        observed::{
            BuildingFacts, DatabaseFacts, LoginFacts, Observation, ObservedFacts, ReaderFacts, RegistryFacts,
            SecretFacts, ServerFacts,
        },
        rotation::PreviousState,
    };

    pub const WANTED: ProvisionTarget<'_> = ProvisionTarget {
        seed_digest: "seed",
        access: AccessLevel::ReadWrite,
        connections: -1,
        state: RegistryStatus::Active,
    };

    pub const OBJECT: TenantObject = TenantObject {
        has_finalizer: true,
        state: ObjectState::Present,
        paused: false,
        was_registered: false,
        was_activated: false,
        adopts_row: false,
        is_elsewhere: false,
    };

    pub fn row(status: RegistryStatus) -> RegistryFacts {
        RegistryFacts {
            status,
            seed_digest: Some("seed".into()),
            modules_current: true,
            purges_current: true,
            declared_current: true,
            slug_current: true,
            slug_refused: false,
            plan_current: true,
            plan_recorded: true,
            has_verifier: true,
            database_recorded: true,
            activated: true,
            access_recorded: true,
            recorded_access: Some(AccessLevel::ReadWrite),
            state_current: true,
            tombstone: None,
            departed_at: None,
            hastened_at: None,
            purging: false,
            preserved: false,
            rolling_back: false,
            takeover: None,
            verification_required: false,
            rotation_due: false,
            previous: PreviousState::Absent,
        }
    }

    pub fn whole(status: RegistryStatus) -> ObservedFacts {
        ObservedFacts {
            registry: Observation::Known(row(status)),
            server: Observation::Known(ServerFacts {
                database: DatabaseFacts::Ours,
                building: BuildingFacts::Absent,
                login: LoginFacts::Ours { can_login: true, access_current: true, connections: -1 },
                previous: LoginFacts::Absent,
                reader: LoginFacts::Absent,
                exceeds_level: false,
                unrepairable: vec![],
            }),
            connection_secret: SecretFacts::Current,
            reader: ReaderFacts::default(),
        }
    }

    pub fn registered() -> ObservedFacts {
        let mut row = row(RegistryStatus::Provisioning);
        (row.seed_digest, row.modules_current, row.has_verifier, row.database_recorded) =
            (None, false, false, false);
        row.activated = false;
        ObservedFacts {
            registry: Observation::Known(row),
            server: Observation::Known(ServerFacts {
                database: DatabaseFacts::Absent,
                building: BuildingFacts::Absent,
                login: LoginFacts::Absent,
                previous: LoginFacts::Absent,
                reader: LoginFacts::Absent,
                exceeds_level: false,
                unrepairable: vec![],
            }),
            connection_secret: SecretFacts::Absent,
            reader: ReaderFacts::default(),
        }
    }

    pub const BLOCKED: ProvisionTarget<'_> =
        ProvisionTarget { access: AccessLevel::Blocked, state: RegistryStatus::Suspended, ..WANTED };

    /// An active tenant with full access recorded, for which another level is evaluated.
    pub fn access_reevaluated(status: RegistryStatus) -> ObservedFacts {
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

    pub fn steps(plan: NextAction) -> Vec<Step> {
        match plan {
            NextAction::Run { steps, .. } => steps,
            NextAction::Done => vec![],
            NextAction::Blocked(why) => panic!("blocked: {why:?}"),
        }
    }
}
