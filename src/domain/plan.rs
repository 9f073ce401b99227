//! The plan: which steps bring what was observed to what is desired. Pure and total; steps come from what is
//! observed, never from what a status says was done.

use super::{
    observed::{
        BuildingFacts, DatabaseFacts, LoginFacts, Observation, Observed, RegistryFacts, RegistryStatus,
        SecretFacts,
    },
    steps::Step,
};
use crate::api::{tenant::DeletionPolicy, tenant_status::WorkflowKind};

/// What the object itself says, needed whatever its spec is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectFacts {
    /// Our finalizer is on it.
    pub has_finalizer: bool,
    /// It was deleted, and waits for its finalizers.
    pub deleting: bool,
    /// `spec.paused`.
    pub paused: bool,
    /// Whether the database is dropped at the end, or kept.
    pub deletion_policy: DeletionPolicy,
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
    /// The registry row is closed or going away, while the object lives.
    RowGone(RegistryStatus),
    /// `spec.paused` holds the work back.
    Paused,
}

/// Plans for a Tenant that lives, with a valid spec whose seed has the digest `seed_digest`.
pub fn plan_living(object: ObjectFacts, seed_digest: &str, observed: &Observed) -> Plan {
    let row = match &observed.registry {
        Observation::Unknown(why) => return Plan::Blocked(Blocked::RegistryUnknown(why.clone())),
        Observation::Absent if object.paused => return Plan::Blocked(Blocked::Paused),
        Observation::Absent => {
            // Nothing of a new tenant is anywhere before its server has passed the preflight.
            if let Observation::Unknown(why) = &observed.server {
                return Plan::Blocked(Blocked::ServerUnknown(why.clone()));
            }
            let mut steps = Vec::new();
            if !object.has_finalizer {
                steps.push(Step::ClaimFinalizer);
            }
            steps.push(Step::Register);
            return Plan::Run { kind: WorkflowKind::Provision, steps, again: true };
        }
        Observation::Known(row) => row,
    };
    if matches!(row.status, RegistryStatus::Deprovisioning | RegistryStatus::Deprovisioned) {
        return Plan::Blocked(Blocked::RowGone(row.status));
    }
    let server = match &observed.server {
        Observation::Known(facts) => facts,
        Observation::Unknown(why) => return Plan::Blocked(Blocked::ServerUnknown(why.clone())),
        Observation::Absent => {
            return Plan::Blocked(Blocked::ServerUnknown("the server was not asked".into()));
        }
    };
    let handed_out = row.status.was_active();
    match server.database {
        DatabaseFacts::Foreign => return Plan::Blocked(Blocked::ForeignDatabase),
        DatabaseFacts::Absent if handed_out => return Plan::Blocked(Blocked::DatabaseMissing),
        DatabaseFacts::Absent | DatabaseFacts::Ours => {}
    }
    if server.login == LoginFacts::Foreign {
        return Plan::Blocked(Blocked::ForeignLogin);
    }
    let published = server.database == DatabaseFacts::Ours;
    let create = !published && server.building != BuildingFacts::Ready;
    let (can_login, access_current) = match server.login {
        LoginFacts::Ours { can_login, access_current } => (can_login, access_current),
        LoginFacts::Absent | LoginFacts::Foreign => (false, false),
    };
    let credentials_current =
        row.has_verifier && can_login && observed.connection_secret == SecretFacts::Current;

    // Each step with the observation that asks for it, in the order in which they are run.
    let wanted = [
        (Step::ClaimFinalizer, !object.has_finalizer),
        (Step::Register, !row.declared_current),
        (Step::CreateRoles, server.login == LoginFacts::Absent),
        (Step::CreateDatabase, create),
        (Step::ApplyMigrations, create || !row.modules_current),
        (Step::Seed, create || row.seed_digest.as_deref() != Some(seed_digest)),
        (Step::PublishDatabase, !published),
        (Step::EnforceAccess, !published || !access_current),
        (Step::PublishCredentials, !credentials_current),
        (Step::Verify, !handed_out || !credentials_current),
        (Step::Activate, !handed_out),
    ];
    let steps: Vec<Step> = wanted.into_iter().filter(|(_, asked)| *asked).map(|(step, _)| step).collect();
    if steps.is_empty() {
        return Plan::Nothing;
    }
    // A paused tenant that needs nothing is as good as any other; one that needs work waits.
    if object.paused {
        return Plan::Blocked(Blocked::Paused);
    }
    let kind = if handed_out { WorkflowKind::Repair } else { WorkflowKind::Provision };
    Plan::Run { kind, steps, again: false }
}

/// Plans for a Tenant that was deleted. It needs no valid spec: only the row and the recorded names.
pub fn plan_leaving(object: ObjectFacts, observed: &Observed) -> Plan {
    if !object.has_finalizer {
        return Plan::Nothing;
    }
    let leave = |steps| Plan::Run { kind: WorkflowKind::Deprovision, steps, again: false };
    let row: &RegistryFacts = match &observed.registry {
        Observation::Unknown(why) => return Plan::Blocked(Blocked::RegistryUnknown(why.clone())),
        // Never registered, or the loser of a slug conflict: nothing outside the object is its own.
        Observation::Absent => return leave(vec![Step::ReleaseFinalizer]),
        Observation::Known(row) => row,
    };
    if row.status == RegistryStatus::Deprovisioned {
        return leave(vec![Step::RemoveSecrets, Step::ReleaseFinalizer]);
    }
    let server = match &observed.server {
        Observation::Known(facts) => facts,
        Observation::Unknown(why) => return Plan::Blocked(Blocked::ServerUnknown(why.clone())),
        Observation::Absent => {
            return Plan::Blocked(Blocked::ServerUnknown("the server was not asked".into()));
        }
    };
    let login_ours = matches!(server.login, LoginFacts::Ours { .. });
    let database_ours = server.database == DatabaseFacts::Ours || server.building != BuildingFacts::Absent;
    // One that is recorded and not there was dropped by a run that was cut off, or by hand: that is recorded then.
    let purge = object.deletion_policy == DeletionPolicy::Purge;
    // A paused deletion is cut and marked at once; only what cannot be undone waits.
    let held = purge && object.paused;
    if held && row.status == RegistryStatus::Deprovisioning {
        return Plan::Blocked(Blocked::Paused);
    }
    let wanted = [
        (Step::CutAccess, login_ours),
        (Step::Tombstone, row.status != RegistryStatus::Deprovisioning),
        (Step::DropDatabase, purge && !held && (database_ours || row.database_recorded)),
        (Step::DropRoles, purge && !held && login_ours),
        (Step::RemoveSecrets, !held),
        (Step::Close, !held),
        (Step::ReleaseFinalizer, !held),
    ];
    leave(wanted.into_iter().filter(|(_, asked)| *asked).map(|(step, _)| step).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::observed::ServerFacts;

    const OBJECT: ObjectFacts = ObjectFacts {
        has_finalizer: true,
        deleting: false,
        paused: false,
        deletion_policy: DeletionPolicy::Purge,
    };

    fn row(status: RegistryStatus) -> RegistryFacts {
        RegistryFacts {
            status,
            seed_digest: Some("seed".into()),
            modules_current: true,
            declared_current: true,
            has_verifier: true,
            database_recorded: true,
        }
    }

    fn whole(status: RegistryStatus) -> Observed {
        Observed {
            registry: Observation::Known(row(status)),
            server: Observation::Known(ServerFacts {
                database: DatabaseFacts::Ours,
                building: BuildingFacts::Absent,
                login: LoginFacts::Ours { can_login: true, access_current: true },
            }),
            connection_secret: SecretFacts::Current,
        }
    }

    fn registered() -> Observed {
        let mut row = row(RegistryStatus::Provisioning);
        (row.seed_digest, row.modules_current, row.has_verifier, row.database_recorded) =
            (None, false, false, false);
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

    fn steps(plan: Plan) -> Vec<Step> {
        match plan {
            Plan::Run { steps, .. } => steps,
            Plan::Nothing => vec![],
            Plan::Blocked(why) => panic!("blocked: {why:?}"),
        }
    }

    #[test]
    fn a_new_tenant_is_claimed_and_registered_before_anything_else() {
        let nothing = Observed {
            registry: Observation::Absent,
            server: Observation::Absent,
            connection_secret: SecretFacts::Absent,
        };
        let plan = plan_living(ObjectFacts { has_finalizer: false, ..OBJECT }, "seed", &nothing);
        assert_eq!(
            plan,
            Plan::Run {
                kind: WorkflowKind::Provision,
                steps: vec![Step::ClaimFinalizer, Step::Register],
                again: true
            }
        );
    }

    #[test]
    fn a_new_tenant_is_not_even_claimed_before_its_server_is_ready() {
        let waiting = Observed {
            registry: Observation::Absent,
            server: Observation::Unknown("not ready".into()),
            connection_secret: SecretFacts::Absent,
        };
        let object = ObjectFacts { has_finalizer: false, ..OBJECT };
        let wait = Plan::Blocked(Blocked::ServerUnknown("not ready".into()));
        assert_eq!(plan_living(object, "seed", &waiting), wait);
    }

    #[test]
    fn a_registered_tenant_is_built_and_activated_last() {
        assert_eq!(
            steps(plan_living(OBJECT, "seed", &registered())),
            [
                Step::CreateRoles,
                Step::CreateDatabase,
                Step::ApplyMigrations,
                Step::Seed,
                Step::PublishDatabase,
                Step::EnforceAccess,
                Step::PublishCredentials,
                Step::Verify,
                Step::Activate,
            ]
        );
    }

    #[test]
    fn steady_state_plans_nothing() {
        assert_eq!(plan_living(OBJECT, "seed", &whole(RegistryStatus::Active)), Plan::Nothing);
    }

    #[test]
    fn a_database_cut_off_while_being_built_is_seeded_again() {
        let mut observed = registered();
        observed.server = Observation::Known(ServerFacts {
            database: DatabaseFacts::Absent,
            building: BuildingFacts::Incomplete,
            login: LoginFacts::Ours { can_login: false, access_current: false },
        });
        let Observation::Known(row) = &mut observed.registry else { unreachable!() };
        (row.seed_digest, row.modules_current) = (Some("seed".into()), true);
        let steps = steps(plan_living(OBJECT, "seed", &observed));
        assert!(steps.contains(&Step::CreateDatabase) && steps.contains(&Step::Seed));
    }

    #[test]
    fn a_lost_database_is_reported_never_made_again() {
        let mut observed = whole(RegistryStatus::Active);
        let Observation::Known(server) = &mut observed.server else { unreachable!() };
        server.database = DatabaseFacts::Absent;
        assert_eq!(plan_living(OBJECT, "seed", &observed), Plan::Blocked(Blocked::DatabaseMissing));
    }

    #[test]
    fn a_changed_seed_is_one_step() {
        let plan = plan_living(OBJECT, "other", &whole(RegistryStatus::Active));
        assert_eq!(plan, Plan::Run { kind: WorkflowKind::Repair, steps: vec![Step::Seed], again: false });
    }

    #[test]
    fn a_lost_secret_gets_new_credentials_and_a_proof() {
        let mut observed = whole(RegistryStatus::Active);
        observed.connection_secret = SecretFacts::Absent;
        assert_eq!(steps(plan_living(OBJECT, "seed", &observed)), [Step::PublishCredentials, Step::Verify]);
    }

    #[test]
    fn an_unknown_is_never_taken_for_an_absent() {
        let mut observed = whole(RegistryStatus::Active);
        observed.server = Observation::Unknown("down".into());
        assert_eq!(
            plan_living(OBJECT, "seed", &observed),
            Plan::Blocked(Blocked::ServerUnknown("down".into()))
        );
        assert_eq!(plan_leaving(OBJECT, &observed), Plan::Blocked(Blocked::ServerUnknown("down".into())));
        observed.registry = Observation::Unknown("down".into());
        assert!(matches!(plan_leaving(OBJECT, &observed), Plan::Blocked(Blocked::RegistryUnknown(_))));
    }

    #[test]
    fn going_away_runs_in_the_order_that_loses_nothing() {
        assert_eq!(
            steps(plan_leaving(OBJECT, &whole(RegistryStatus::Active))),
            [
                Step::CutAccess,
                Step::Tombstone,
                Step::DropDatabase,
                Step::DropRoles,
                Step::RemoveSecrets,
                Step::Close,
                Step::ReleaseFinalizer,
            ]
        );
    }

    #[test]
    fn retain_drops_nothing() {
        let object = ObjectFacts { deletion_policy: DeletionPolicy::Retain, ..OBJECT };
        let steps = steps(plan_leaving(object, &whole(RegistryStatus::Active)));
        assert!(!steps.contains(&Step::DropDatabase) && !steps.contains(&Step::DropRoles));
        assert_eq!(steps.last(), Some(&Step::ReleaseFinalizer));
    }

    #[test]
    fn nothing_foreign_is_ever_cut_or_dropped() {
        let mut observed = registered();
        observed.server = Observation::Known(ServerFacts {
            database: DatabaseFacts::Foreign,
            building: BuildingFacts::Absent,
            login: LoginFacts::Foreign,
        });
        assert_eq!(
            steps(plan_leaving(OBJECT, &observed)),
            [Step::Tombstone, Step::RemoveSecrets, Step::Close, Step::ReleaseFinalizer]
        );
        assert_eq!(plan_living(OBJECT, "seed", &observed), Plan::Blocked(Blocked::ForeignDatabase));
    }

    #[test]
    fn a_database_that_is_gone_already_is_recorded_as_gone() {
        let mut observed = whole(RegistryStatus::Deprovisioning);
        let Observation::Known(server) = &mut observed.server else { unreachable!() };
        (server.database, server.login) = (DatabaseFacts::Absent, LoginFacts::Absent);
        assert_eq!(
            steps(plan_leaving(OBJECT, &observed)),
            [Step::DropDatabase, Step::RemoveSecrets, Step::Close, Step::ReleaseFinalizer]
        );
    }

    #[test]
    fn a_tenant_that_never_registered_leaves_at_once() {
        let mut observed = registered();
        observed.registry = Observation::Absent;
        assert_eq!(steps(plan_leaving(OBJECT, &observed)), [Step::ReleaseFinalizer]);
    }

    #[test]
    fn a_paused_tenant_is_left_alone_and_told_from_one_that_waits() {
        let object = ObjectFacts { paused: true, ..OBJECT };
        assert_eq!(plan_living(object, "seed", &whole(RegistryStatus::Active)), Plan::Nothing);
        assert_eq!(
            plan_living(object, "other", &whole(RegistryStatus::Active)),
            Plan::Blocked(Blocked::Paused)
        );
        let mut observed = registered();
        observed.registry = Observation::Absent;
        assert_eq!(plan_living(object, "seed", &observed), Plan::Blocked(Blocked::Paused));
    }

    #[test]
    fn a_paused_deletion_is_cut_and_waits_with_the_rest() {
        let object = ObjectFacts { paused: true, ..OBJECT };
        assert_eq!(
            steps(plan_leaving(object, &whole(RegistryStatus::Active))),
            [Step::CutAccess, Step::Tombstone]
        );
        assert_eq!(
            plan_leaving(object, &whole(RegistryStatus::Deprovisioning)),
            Plan::Blocked(Blocked::Paused)
        );
    }
}
