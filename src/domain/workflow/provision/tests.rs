//! Which action follows from what is observed of an active tenant.

mod reader;
mod rotation;

use super::*;
use crate::domain::{takeover::TakeoverRefusal, workflow::fixtures::*};

/// A target with another seed.
const OTHER: ProvisionTarget<'_> = ProvisionTarget { seed_digest: "other", ..WANTED };

#[test]
fn new_tenant_is_claimed_and_registered_first() {
    let nothing = ObservedFacts {
        registry: Observation::Absent,
        server: Observation::Absent,
        connection_secret: SecretFacts::Absent,
        reader: ReaderFacts::default(),
    };
    let plan = plan_provision(TenantObject { has_finalizer: false, ..OBJECT }, WANTED, &nothing);
    assert_eq!(
        plan,
        NextAction::Run {
            kind: WorkflowKind::Provision,
            steps: vec![Step::ClaimFinalizer, Step::Register],
            again: true
        }
    );
}

#[test]
fn registered_tenant_is_not_recreated_without_its_row() {
    let mut observed = registered();
    observed.registry = Observation::Absent;
    let object = TenantObject { was_registered: true, ..OBJECT };
    assert_eq!(plan_provision(object, WANTED, &observed), NextAction::Blocked(BlockedReason::RowMissing));
    let asked = TenantObject { adopts_row: true, ..object };
    assert_eq!(steps(plan_provision(asked, WANTED, &observed)), [Step::AdoptRow]);
    let paused = TenantObject { paused: true, ..asked };
    assert_eq!(plan_provision(paused, WANTED, &observed), NextAction::Blocked(BlockedReason::RowMissing));
}

#[test]
fn tenant_that_is_elsewhere_is_not_registered_afresh() {
    let mut observed = registered();
    observed.registry = Observation::Absent;
    let object = TenantObject { was_registered: true, is_elsewhere: true, ..OBJECT };
    assert_eq!(plan_provision(object, WANTED, &observed), NextAction::Blocked(BlockedReason::Elsewhere));
    let asked = TenantObject { adopts_row: true, ..object };
    assert_eq!(steps(plan_provision(asked, WANTED, &observed)), [Step::AdoptRow]);
}

#[test]
fn row_that_forgot_the_activation_is_corrected_first() {
    let mut observed = registered();
    let object = TenantObject { was_activated: true, ..OBJECT };
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    (row.status, row.rolling_back) = (RegistryStatus::Failed, true);
    assert_eq!(steps(plan_provision(object, WANTED, &observed)), [Step::RestoreActivation]);
}

#[test]
fn new_tenant_is_not_claimed_before_server_is_ready() {
    let waiting = ObservedFacts {
        registry: Observation::Absent,
        server: Observation::Unknown("not ready".into()),
        connection_secret: SecretFacts::Absent,
        reader: ReaderFacts::default(),
    };
    let object = TenantObject { has_finalizer: false, ..OBJECT };
    let wait = NextAction::Blocked(BlockedReason::ServerUnknown("not ready".into()));
    assert_eq!(plan_provision(object, WANTED, &waiting), wait);
}

#[test]
fn registered_tenant_is_provisioned_and_activated_last() {
    assert_eq!(
        steps(plan_provision(OBJECT, WANTED, &registered())),
        [
            Step::CreateRoles,
            Step::CreateDatabase,
            Step::ApplyMigrations,
            Step::Seed,
            Step::ApplyPlan,
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
    assert_eq!(plan_provision(OBJECT, WANTED, &whole(RegistryStatus::Active)), NextAction::Done);
}

#[test]
fn incomplete_database_is_recreated_and_seeded() {
    let mut observed = registered();
    observed.server = Observation::Known(ServerFacts {
        database: DatabaseFacts::Absent,
        building: BuildingFacts::Incomplete,
        login: LoginFacts::Ours { can_login: false, access_current: false, connections: -1 },
        previous: LoginFacts::Absent,
        reader: LoginFacts::Absent,
        exceeds_level: false,
        unrepairable: vec![],
    });
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    (row.seed_digest, row.modules_current) = (Some("seed".into()), true);
    let steps = steps(plan_provision(OBJECT, WANTED, &observed));
    // The limits are written too, once.
    let expected = [Step::CreateDatabase, Step::Seed, Step::ApplyPlan];
    let planned: Vec<Step> = steps.into_iter().filter(|step| expected.contains(step)).collect();
    assert_eq!(planned, expected);
}

#[test]
fn failed_provisioning_continues_at_the_failed_step() {
    let mut observed = registered();
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.modules_current = true;
    observed.server = Observation::Known(ServerFacts {
        database: DatabaseFacts::Absent,
        building: BuildingFacts::Ready,
        login: LoginFacts::Ours { can_login: false, access_current: false, connections: -1 },
        previous: LoginFacts::Absent,
        reader: LoginFacts::Absent,
        exceeds_level: false,
        unrepairable: vec![],
    });
    assert_eq!(steps(plan_provision(OBJECT, WANTED, &observed))[0], Step::Seed);
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    (row.plan_current, row.plan_recorded) = (false, false);
    assert_eq!(steps(plan_provision(OBJECT, WANTED, &observed))[..2], [Step::ApplyPlan, Step::Seed]);
}

#[test]
fn lost_database_is_reported_and_never_recreated() {
    let mut observed = whole(RegistryStatus::Active);
    let Observation::Known(server) = &mut observed.server else { unreachable!() };
    server.database = DatabaseFacts::Absent;
    assert_eq!(
        plan_provision(OBJECT, WANTED, &observed),
        NextAction::Blocked(BlockedReason::DatabaseMissing)
    );
}

#[test]
fn changed_seed_is_one_step() {
    let plan = plan_provision(OBJECT, OTHER, &whole(RegistryStatus::Active));
    assert_eq!(plan, NextAction::Run { kind: WorkflowKind::Update, steps: vec![Step::Seed], again: false });
}

#[test]
fn access_is_revoked_before_it_is_recorded() {
    let plan = plan_provision(OBJECT, BLOCKED, &access_reevaluated(RegistryStatus::Active));
    let steps = vec![Step::EnforceAccess, Step::RecordState];
    let suspend = |again| NextAction::Run { kind: WorkflowKind::Suspend, steps: steps.clone(), again };
    assert_eq!(plan, suspend(false));
    // Before all other work, which a tenant could delay by holding a lock.
    let busy = ProvisionTarget { seed_digest: "other", ..BLOCKED };
    assert_eq!(plan_provision(OBJECT, busy, &access_reevaluated(RegistryStatus::Active)), suspend(true));
}

#[test]
fn granted_access_is_verified_with_the_login() {
    let mut observed = access_reevaluated(RegistryStatus::Suspended);
    let (Observation::Known(row), Observation::Known(server)) =
        (&mut observed.registry, &mut observed.server)
    else {
        unreachable!()
    };
    row.recorded_access = Some(AccessLevel::Blocked);
    server.login = LoginFacts::Ours { can_login: false, access_current: false, connections: -1 };
    let steps = vec![Step::EnforceAccess, Step::PublishCredentials, Step::Verify, Step::RecordState];
    let resume = NextAction::Run { kind: WorkflowKind::Resume, steps, again: false };
    assert_eq!(plan_provision(OBJECT, WANTED, &observed), resume);
}

#[test]
fn failing_migration_delays_no_access_and_no_credentials() {
    let mut observed = access_reevaluated(RegistryStatus::Suspended);
    observed.connection_secret = SecretFacts::Absent;
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    (row.recorded_access, row.modules_current) = (Some(AccessLevel::ReadOnly), false);
    let access = [Step::EnforceAccess, Step::PublishCredentials, Step::Verify, Step::RecordState];
    let resumed = steps(plan_provision(OBJECT, OTHER, &observed));
    // The seed may need what a migration creates.
    assert_eq!(resumed, [&access[..], &[Step::ApplyMigrations, Step::Seed]].concat());
    // What drops data is the last of all, and not done in an undelete.
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.purges_current = false;
    assert_eq!(steps(plan_provision(OBJECT, OTHER, &observed)).last(), Some(&Step::PurgeModules));
    let mut observed = tombstone();
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.purges_current = false;
    assert!(!steps(plan_provision(OBJECT, WANTED, &observed)).contains(&Step::PurgeModules));
    // An undelete too.
    let mut observed = tombstone();
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.modules_current = false;
    let restored = steps(plan_provision(OBJECT, WANTED, &observed));
    assert_eq!(restored.last(), Some(&Step::ApplyMigrations), "{restored:?}");
    // The limits of a database that has none yet are created by a migration.
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    (row.plan_recorded, row.plan_current) = (false, false);
    let restored = steps(plan_provision(OBJECT, WANTED, &observed));
    assert_eq!(restored[1..3], [Step::ApplyMigrations, Step::ApplyPlan]);
}

#[test]
fn suspended_tenant_needs_no_login() {
    let mut observed = whole(RegistryStatus::Suspended);
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.recorded_access = Some(AccessLevel::Blocked);
    let Observation::Known(server) = &mut observed.server else { unreachable!() };
    server.login = LoginFacts::Ours { can_login: false, access_current: true, connections: -1 };
    assert_eq!(plan_provision(OBJECT, BLOCKED, &observed), NextAction::Done);
}

#[test]
fn plan_change_at_trial_end_keeps_access() {
    let mut observed = whole(RegistryStatus::Trial);
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    (row.state_current, row.plan_current) = (false, false);
    let steps = vec![Step::ApplyPlan, Step::PublishCredentials, Step::RecordState];
    let update = NextAction::Run { kind: WorkflowKind::Update, steps, again: false };
    assert_eq!(plan_provision(OBJECT, WANTED, &observed), update);
}

#[test]
fn lost_secret_gets_new_verified_credentials() {
    let mut observed = whole(RegistryStatus::Active);
    observed.connection_secret = SecretFacts::Absent;
    assert_eq!(steps(plan_provision(OBJECT, WANTED, &observed)), [Step::PublishCredentials, Step::Verify]);
}

#[test]
fn unknown_server_is_not_treated_as_absent() {
    let mut observed = whole(RegistryStatus::Active);
    observed.server = Observation::Unknown("down".into());
    assert_eq!(
        plan_provision(OBJECT, WANTED, &observed),
        NextAction::Blocked(BlockedReason::ServerUnknown("down".into()))
    );
}

#[test]
fn foreign_objects_are_never_adopted() {
    let mut observed = registered();
    let Observation::Known(server) = &mut observed.server else { unreachable!() };
    (server.database, server.login) = (DatabaseFacts::Foreign, LoginFacts::Foreign);
    assert_eq!(
        plan_provision(OBJECT, WANTED, &observed),
        NextAction::Blocked(BlockedReason::ForeignDatabase)
    );
}

/// A tenant in its grace period, with its access revoked.
fn tombstone() -> ObservedFacts {
    let mut observed = whole(RegistryStatus::Deprovisioning);
    let Observation::Known(server) = &mut observed.server else { unreachable!() };
    server.login = LoginFacts::Ours { can_login: false, access_current: false, connections: -1 };
    observed
}

#[test]
fn tombstone_is_restored_with_data_and_password() {
    let wanted =
        vec![Step::Reinstate, Step::EnforceAccess, Step::PublishCredentials, Step::Verify, Step::RecordState];
    let plan = plan_provision(OBJECT, WANTED, &tombstone());
    assert_eq!(plan, NextAction::Run { kind: WorkflowKind::Undelete, steps: wanted, again: false });
    // The tombstone is removed at once, even if the server is unreachable: the purge must not come first.
    let mut observed = tombstone();
    observed.server = Observation::Unknown("down".into());
    let plan = plan_provision(OBJECT, WANTED, &observed);
    assert_eq!(
        plan,
        NextAction::Run { kind: WorkflowKind::Undelete, steps: vec![Step::Reinstate], again: true }
    );
}

#[test]
fn begun_purge_is_not_undone() {
    let mut observed = tombstone();
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.purging = true;
    let closed = NextAction::Blocked(BlockedReason::RowClosed(RegistryStatus::Deprovisioning));
    assert_eq!(plan_provision(OBJECT, WANTED, &observed), closed);
}

#[test]
fn rollback_removes_everything() {
    let mut observed = whole(RegistryStatus::Failed);
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    (row.rolling_back, row.activated) = (true, false);
    assert_eq!(
        steps(plan_provision(OBJECT, WANTED, &observed)),
        [Step::CutAccess, Step::DropDatabase, Step::DropRoles, Step::RemoveSecrets, Step::RecordRollback]
    );
}

#[test]
fn paused_tenant_is_blocked_only_if_work_is_due() {
    let object = TenantObject { paused: true, ..OBJECT };
    assert_eq!(plan_provision(object, WANTED, &whole(RegistryStatus::Active)), NextAction::Done);
    assert_eq!(
        plan_provision(object, OTHER, &whole(RegistryStatus::Active)),
        NextAction::Blocked(BlockedReason::Paused)
    );
    let mut observed = registered();
    observed.registry = Observation::Absent;
    assert_eq!(plan_provision(object, WANTED, &observed), NextAction::Blocked(BlockedReason::Paused));
}

/// What is planned first for a Suspended tenant that has its level on record, after a manual change.
fn regained(change: impl FnOnce(&mut ServerFacts)) -> NextAction {
    let mut observed = whole(RegistryStatus::Suspended);
    let (Observation::Known(row), Observation::Known(server)) =
        (&mut observed.registry, &mut observed.server)
    else {
        unreachable!()
    };
    row.recorded_access = Some(AccessLevel::Blocked);
    (row.modules_current, row.declared_current) = (false, false);
    server.login = LoginFacts::Ours { can_login: true, access_current: false, connections: -1 };
    server.exceeds_level = true;
    change(server);
    plan_provision(OBJECT, BLOCKED, &observed)
}

#[test]
fn access_regained_by_hand_is_taken_back_before_everything_else() {
    let first = |steps| NextAction::Run { kind: WorkflowKind::Repair, steps, again: true };
    assert_eq!(regained(|_| {}), first(vec![Step::EnforceAccess]));
    assert_eq!(regained(|server| server.login = LoginFacts::Renamed), first(vec![Step::EnforceAccess]));
    // Also of a database that is lost or not the tenant's; then that is reported.
    for database in [DatabaseFacts::Absent, DatabaseFacts::Foreign] {
        assert_eq!(regained(|server| server.database = database), first(vec![Step::EnforceAccess]));
        let reported = regained(|server| (server.database, server.exceeds_level) = (database, false));
        assert!(matches!(reported, NextAction::Blocked(_)), "{reported:?}");
    }
    // Without an excess, the order is that of the steps.
    let steps = steps(regained(|server| server.exceeds_level = false));
    assert_eq!(steps[0], Step::Register);
}

/// A tenant whose database existed before it.
fn adopted(takeover: Takeover, database: DatabaseFacts) -> ObservedFacts {
    let mut observed = registered();
    let (Observation::Known(row), Observation::Known(server)) =
        (&mut observed.registry, &mut observed.server)
    else {
        unreachable!()
    };
    row.takeover = Some(takeover);
    (row.plan_current, row.plan_recorded, row.access_recorded) = (false, false, false);
    row.database_recorded = database == DatabaseFacts::Ours;
    server.database = database;
    observed
}

#[test]
fn adopted_database_is_taken_over_and_never_created() {
    use Step::*;
    let rest = [ApplyMigrations, ApplyPlan, Seed, EnforceAccess, PublishCredentials, Verify, Activate];
    for database in [DatabaseFacts::Foreign, DatabaseFacts::Ours] {
        let planned = steps(plan_provision(OBJECT, WANTED, &adopted(Takeover::Pending, database)));
        assert_eq!(planned, [&[CreateRoles, TakeOver], &rest[..]].concat(), "{database:?}");
    }
    let planned = steps(plan_provision(OBJECT, WANTED, &adopted(Takeover::Done, DatabaseFacts::Ours)));
    assert_eq!(planned, [&[CreateRoles], &rest[..]].concat());
    let blocked = |takeover, database| plan_provision(OBJECT, WANTED, &adopted(takeover, database));
    for takeover in Takeover::ALL {
        let missing = NextAction::Blocked(BlockedReason::DatabaseMissing);
        assert_eq!(blocked(takeover, DatabaseFacts::Absent), missing);
    }
    let foreign = NextAction::Blocked(BlockedReason::ForeignDatabase);
    assert_eq!(blocked(Takeover::Done, DatabaseFacts::Foreign), foreign);
}

#[test]
fn rollback_gives_an_adopted_database_back() {
    for takeover in Takeover::ALL {
        let mut observed = adopted(takeover, DatabaseFacts::Ours);
        let Observation::Known(row) = &mut observed.registry else { unreachable!() };
        row.rolling_back = true;
        let planned = steps(plan_provision(OBJECT, WANTED, &observed));
        assert!(planned.contains(&Step::GiveBack) && !planned.contains(&Step::DropDatabase), "{planned:?}");
    }
}

#[test]
fn tenant_whose_takeover_is_refused_is_not_registered() {
    let refusal = || Some(TakeoverRefusal::Unconfirmed { digest: "ab".into() });
    let new = ObservedFacts {
        registry: Observation::Absent,
        server: Observation::Absent,
        connection_secret: SecretFacts::Absent,
        reader: ReaderFacts::default(),
    };
    let action = plan_provision(OBJECT, WANTED, &new);
    assert_eq!(action.clone().unless_refused(None), action);
    assert!(matches!(action.unless_refused(refusal()), NextAction::Blocked(BlockedReason::NotAdopted(_))));
    let paused = NextAction::Blocked(BlockedReason::Paused);
    assert_eq!(paused.clone().unless_refused(refusal()), paused);
}

/// An active tenant whose spec has another slug.
fn renamed(refused: bool, change: impl FnOnce(&mut RegistryFacts)) -> ObservedFacts {
    let mut observed = whole(RegistryStatus::Active);
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    (row.slug_current, row.slug_refused) = (false, refused);
    change(row);
    observed
}

#[test]
fn slug_is_changed_and_nothing_else_waits_for_one_that_is_taken() {
    let update = |steps| NextAction::Run { kind: WorkflowKind::Update, steps, again: false };
    assert_eq!(plan_provision(OBJECT, WANTED, &renamed(false, |_| {})), update(vec![Step::ChangeSlug]));
    let more = |row: &mut RegistryFacts| row.seed_digest = None;
    let first = plan_provision(OBJECT, WANTED, &renamed(false, more));
    assert_eq!(first, update(vec![Step::ChangeSlug, Step::Seed]));
    let last = plan_provision(OBJECT, WANTED, &renamed(true, more));
    assert_eq!(last, update(vec![Step::Seed, Step::ChangeSlug]));
}

#[test]
fn tenant_that_is_made_keeps_its_slug_until_it_is_in_use() {
    let mut observed = registered();
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.slug_current = false;
    let NextAction::Run { steps, again, .. } = plan_provision(OBJECT, WANTED, &observed) else {
        panic!("not provisioned");
    };
    assert!(
        !steps.contains(&Step::ChangeSlug) && steps.last() == Some(&Step::Activate) && again,
        "{steps:?}"
    );
}
