//! Which action follows from what is observed of a tenant that is being deprovisioned.

use jiff::Timestamp;

use super::*;
use crate::domain::{observed::Takeover, workflow::fixtures::*};

const NOW: Timestamp = Timestamp::constant(1_000_000, 0);
const LATER: Timestamp = Timestamp::constant(2_000_000, 0);
const NO_GRACE: PurgeTerms = PurgeTerms { purge_after: NOW, retain: false, held: false };
const GRACE: PurgeTerms = PurgeTerms { purge_after: LATER, retain: false, held: false };
const RETAIN: PurgeTerms = PurgeTerms { purge_after: LATER, retain: true, held: false };
const DELETED: TenantObject = TenantObject { state: ObjectState::Deleting(NOW), ..OBJECT };
const PRESENT: TenantObject = OBJECT;
const ABSENT: TenantObject = TenantObject { has_finalizer: false, state: ObjectState::Deleted, ..OBJECT };
/// When the release is overdue.
const OVERDUE: Timestamp = Timestamp::constant(1_000_060, 0);

fn plan(object: TenantObject, terms: PurgeTerms, observed: &ObservedFacts) -> Vec<Step> {
    steps(plan_deprovision(object, terms, observed, NOW))
}

/// Access is revoked, and the tombstone has these terms.
fn with_tombstone(terms: PurgeTerms) -> ObservedFacts {
    let mut observed = whole(RegistryStatus::Deprovisioning);
    let (Observation::Known(row), Observation::Known(server)) =
        (&mut observed.registry, &mut observed.server)
    else {
        unreachable!()
    };
    (row.tombstone, row.access_recorded) = (Some(terms), true);
    server.login = LoginFacts::Ours { can_login: false, access_current: true, connections: -1 };
    observed
}

/// An active tenant, whose access is not revoked yet.
fn active() -> ObservedFacts {
    let mut observed = whole(RegistryStatus::Active);
    let (Observation::Known(row), Observation::Known(server)) =
        (&mut observed.registry, &mut observed.server)
    else {
        unreachable!()
    };
    row.access_recorded = false;
    server.login = LoginFacts::Ours { can_login: true, access_current: false, connections: -1 };
    observed
}

fn unreachable_server(mut observed: ObservedFacts) -> ObservedFacts {
    observed.server = Observation::Unknown("down".into());
    observed
}

#[test]
fn purge_without_grace_runs_all_steps_in_order() {
    assert_eq!(
        plan(DELETED, NO_GRACE, &active()),
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
fn object_with_grace_is_released_after_tombstone_and_revocation() {
    for terms in [GRACE, RETAIN, PurgeTerms { held: true, ..NO_GRACE }] {
        let wanted = [Step::CutAccess, Step::Tombstone, Step::ReleaseFinalizer];
        assert_eq!(plan(DELETED, terms, &active()), wanted, "{terms:?}");
        assert_eq!(plan(DELETED, terms, &with_tombstone(terms)), [Step::ReleaseFinalizer], "{terms:?}");
    }
}

#[test]
fn drop_waits_for_grace_period_while_object_exists() {
    assert_eq!(plan(PRESENT, GRACE, &active()), [Step::CutAccess, Step::Tombstone]);
    assert_eq!(plan_deprovision(PRESENT, GRACE, &with_tombstone(GRACE), NOW), NextAction::Done);
    let ends = [Step::DropDatabase, Step::DropRoles, Step::RemoveSecrets, Step::Close];
    assert_eq!(steps(plan_deprovision(PRESENT, GRACE, &with_tombstone(GRACE), LATER)), ends);
    let row = |status| {
        let mut observed = whole(status);
        observed.server = Observation::Absent;
        observed
    };
    assert_eq!(plan_deprovision(PRESENT, GRACE, &row(RegistryStatus::Deprovisioned), NOW), NextAction::Done);
}

#[test]
fn purge_needs_no_object() {
    assert_eq!(plan_deprovision(ABSENT, GRACE, &with_tombstone(GRACE), NOW), NextAction::Done);
    let ends = [Step::DropDatabase, Step::DropRoles, Step::RemoveSecrets, Step::Close];
    assert_eq!(steps(plan_deprovision(ABSENT, GRACE, &with_tombstone(GRACE), LATER)), ends);
    let kept = [Step::RemoveSecrets, Step::Close];
    assert_eq!(steps(plan_deprovision(ABSENT, RETAIN, &with_tombstone(RETAIN), LATER)), kept);
    let held = PurgeTerms { held: true, ..GRACE };
    assert_eq!(plan_deprovision(ABSENT, held, &with_tombstone(held), LATER), NextAction::Done);
}

#[test]
fn changed_terms_are_recorded_until_purge_begins() {
    assert_eq!(plan(PRESENT, RETAIN, &with_tombstone(GRACE)), [Step::Tombstone]);
    let mut begun = with_tombstone(NO_GRACE);
    let Observation::Known(row) = &mut begun.registry else { unreachable!() };
    row.purging = true;
    let ends = [Step::DropDatabase, Step::DropRoles, Step::RemoveSecrets, Step::Close];
    assert_eq!(plan(PRESENT, RETAIN, &begun), ends, "a database that is partly dropped cannot be retained");
}

#[test]
fn removed_finalizer_is_added_again() {
    let kept = TenantObject { has_finalizer: false, ..PRESENT };
    assert_eq!(plan(kept, GRACE, &with_tombstone(GRACE)), [Step::ClaimFinalizer]);
    assert_eq!(plan(ABSENT, GRACE, &with_tombstone(GRACE)), []);
}

#[test]
fn open_breaker_releases_object_and_keeps_data() {
    let frozen = PurgeContext { now: NOW, breaker: BreakerState::Open };
    let plan = |object, observed: &ObservedFacts| steps(plan_deprovision(object, NO_GRACE, observed, frozen));
    let released = [Step::CutAccess, Step::Tombstone, Step::ReleaseFinalizer];
    assert_eq!(plan(DELETED, &active()), released);
    assert_eq!(plan(DELETED, &with_tombstone(NO_GRACE)), [Step::ReleaseFinalizer]);
    assert_eq!(plan(ABSENT, &with_tombstone(NO_GRACE)), []);
    // A purge that has begun is finished, a tenant that was never active is dropped, a retained one is only closed.
    let mut begun = with_tombstone(NO_GRACE);
    let Observation::Known(row) = &mut begun.registry else { unreachable!() };
    row.purging = true;
    assert!(plan(ABSENT, &begun).contains(&Step::DropDatabase));
    let mut never = with_tombstone(NO_GRACE);
    let Observation::Known(row) = &mut never.registry else { unreachable!() };
    row.activated = false;
    assert!(plan(ABSENT, &never).contains(&Step::DropDatabase));
    let kept = PurgeTerms { purge_after: NOW, ..RETAIN };
    let closed = steps(plan_deprovision(ABSENT, kept, &with_tombstone(kept), frozen));
    assert_eq!(closed, [Step::RemoveSecrets, Step::Close]);
}

#[test]
fn purge_waits_until_breaker_has_counted_it() {
    let at = |seconds: i64| PurgeContext {
        now: NOW + SignedDuration::from_secs(seconds),
        breaker: BreakerState::Closed,
    };
    let first = steps(plan_deprovision(DELETED, NO_GRACE, &active(), at(0)));
    assert_eq!(
        first,
        [Step::CutAccess, Step::Tombstone],
        "the object is kept until the tenant is deprovisioned"
    );
    let mut observed = with_tombstone(NO_GRACE);
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.departed_at = Some(NOW);
    let unknown = PurgeContext { now: LATER, breaker: BreakerState::Unknown };
    assert_eq!(plan_deprovision(DELETED, NO_GRACE, &observed, unknown), NextAction::Done);
    assert_eq!(plan_deprovision(DELETED, NO_GRACE, &observed, at(4)), NextAction::Done);
    assert!(steps(plan_deprovision(DELETED, NO_GRACE, &observed, at(5))).contains(&Step::DropDatabase));
    // Its grace was made shorter later.
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.hastened_at = Some(NOW + SignedDuration::from_secs(60));
    assert_eq!(plan_deprovision(DELETED, NO_GRACE, &observed, at(64)), NextAction::Done);
    assert!(steps(plan_deprovision(DELETED, NO_GRACE, &observed, at(65))).contains(&Step::DropDatabase));
}

#[test]
fn run_that_changes_terms_does_not_act_on_them() {
    let held = PurgeTerms { held: true, ..NO_GRACE };
    for recorded in [GRACE, held, PurgeTerms { retain: true, ..NO_GRACE }] {
        assert_eq!(plan(PRESENT, NO_GRACE, &with_tombstone(recorded)), [Step::Tombstone], "{recorded:?}");
        // Without grace, the object is kept until the next run has dropped the database.
        assert_eq!(plan(DELETED, NO_GRACE, &with_tombstone(recorded)), [Step::Tombstone], "{recorded:?}");
    }
    let retain = PurgeTerms { retain: true, ..NO_GRACE };
    assert_eq!(plan(PRESENT, retain, &with_tombstone(GRACE)), [Step::Tombstone]);
    assert_eq!(plan(DELETED, retain, &with_tombstone(GRACE)), [Step::Tombstone, Step::ReleaseFinalizer]);
    let ends = [Step::DropDatabase, Step::DropRoles, Step::RemoveSecrets, Step::Close];
    assert_eq!(plan(PRESENT, NO_GRACE, &with_tombstone(NO_GRACE)), ends);
}

#[test]
fn tombstone_is_written_while_server_is_unreachable() {
    let wait = NextAction::Blocked(BlockedReason::ServerUnknown("down".into()));
    for terms in [GRACE, NO_GRACE] {
        let before = unreachable_server(active());
        assert_eq!(plan(DELETED, terms, &before), [Step::Tombstone]);
        assert_eq!(plan_deprovision(DELETED, terms, &unreachable_server(with_tombstone(terms)), NOW), wait);
    }
    // After a minute the object is released and the registry continues; without grace it is kept.
    let when_overdue =
        |terms| plan_deprovision(DELETED, terms, &unreachable_server(with_tombstone(terms)), OVERDUE);
    assert_eq!(steps(when_overdue(GRACE)), [Step::ReleaseFinalizer]);
    assert_eq!(steps(when_overdue(RETAIN)), [Step::ReleaseFinalizer]);
    assert_eq!(when_overdue(NO_GRACE), wait);
}

#[test]
fn failed_revocation_keeps_object_for_one_minute() {
    let mut unverified = with_tombstone(GRACE);
    let Observation::Known(server) = &mut unverified.server else { unreachable!() };
    server.login = LoginFacts::Ours { can_login: false, access_current: false, connections: -1 };
    assert_eq!(plan(DELETED, GRACE, &unverified), [Step::CutAccess, Step::ReleaseFinalizer]);
    assert_eq!(steps(plan_deprovision(DELETED, GRACE, &unverified, OVERDUE)), [Step::ReleaseFinalizer]);
    // The first attempt is made even if it is late.
    let first = plan_deprovision(DELETED, GRACE, &active(), OVERDUE);
    assert_eq!(steps(first), [Step::CutAccess, Step::Tombstone, Step::ReleaseFinalizer]);
}

#[test]
fn retained_database_is_never_dropped() {
    let retain = PurgeTerms { retain: true, ..NO_GRACE };
    let steps = plan(DELETED, retain, &active());
    assert!(!steps.contains(&Step::DropDatabase) && !steps.contains(&Step::DropRoles));
    assert!(steps.contains(&Step::Close));
    assert_eq!(steps.last(), Some(&Step::ReleaseFinalizer));
}

#[test]
fn missing_database_is_recorded_as_dropped() {
    let mut observed = with_tombstone(NO_GRACE);
    let Observation::Known(server) = &mut observed.server else { unreachable!() };
    (server.database, server.login) = (DatabaseFacts::Absent, LoginFacts::Absent);
    assert_eq!(
        plan(DELETED, NO_GRACE, &observed),
        [Step::DropDatabase, Step::RemoveSecrets, Step::Close, Step::ReleaseFinalizer]
    );
}

#[test]
fn unregistered_tenant_is_released_at_once() {
    let mut observed = registered();
    observed.registry = Observation::Absent;
    assert_eq!(plan(DELETED, NO_GRACE, &observed), [Step::ReleaseFinalizer]);
    assert_eq!(plan(PRESENT, NO_GRACE, &observed), [Step::ClaimFinalizer, Step::Register]);
    assert_eq!(plan_deprovision(ABSENT, NO_GRACE, &observed, NOW), NextAction::Done);
}

#[test]
fn registered_tenant_is_not_released_without_its_row() {
    let mut observed = registered();
    observed.registry = Observation::Absent;
    for object in [DELETED, PRESENT] {
        let object = TenantObject { was_registered: true, ..object };
        assert_eq!(
            plan_deprovision(object, NO_GRACE, &observed, OVERDUE),
            NextAction::Blocked(BlockedReason::RowMissing)
        );
        let asked = TenantObject { adopts_row: true, ..object };
        assert_eq!(steps(plan_deprovision(asked, NO_GRACE, &observed, OVERDUE)), [Step::AdoptRow]);
    }
}

/// The row accounts for what the tenant has: nothing is lost with the object.
#[test]
fn object_of_a_tenant_that_is_elsewhere_is_released_and_never_registered() {
    let mut observed = registered();
    observed.registry = Observation::Absent;
    let elsewhere = |object| TenantObject { was_registered: true, is_elsewhere: true, ..object };
    let plan = |object| plan_deprovision(object, NO_GRACE, &observed, OVERDUE);
    assert_eq!(steps(plan(elsewhere(DELETED))), [Step::ReleaseFinalizer]);
    assert_eq!(plan(elsewhere(PRESENT)), NextAction::Blocked(BlockedReason::Elsewhere));
    let asked = TenantObject { adopts_row: true, ..elsewhere(PRESENT) };
    assert_eq!(steps(plan(asked)), [Step::AdoptRow]);
}

#[test]
fn paused_tenant_is_not_deprovisioned_by_its_spec() {
    let object = TenantObject { paused: true, ..PRESENT };
    let held = PurgeTerms { held: true, ..GRACE };
    assert_eq!(plan_deprovision(object, held, &active(), NOW), NextAction::Blocked(BlockedReason::Paused));
}

#[test]
fn unknown_registry_is_not_treated_as_absent() {
    let mut observed = active();
    observed.registry = Observation::Unknown("down".into());
    for object in [DELETED, PRESENT, ABSENT] {
        let plan = plan_deprovision(object, NO_GRACE, &observed, NOW);
        assert_eq!(plan, NextAction::Blocked(BlockedReason::RegistryUnknown("down".into())));
    }
}

#[test]
fn foreign_database_and_login_are_never_changed() {
    let mut observed = registered();
    observed.server = Observation::Known(crate::domain::observed::ServerFacts {
        database: DatabaseFacts::Foreign,
        building: BuildingFacts::Absent,
        login: LoginFacts::Foreign,
        previous: LoginFacts::Absent,
        reader: LoginFacts::Absent,
        exceeds_level: false,
        unrepairable: vec![],
    });
    assert_eq!(
        plan(DELETED, NO_GRACE, &observed),
        [Step::Tombstone, Step::RemoveSecrets, Step::Close, Step::ReleaseFinalizer]
    );
}

#[test]
fn foreign_login_does_not_prove_revocation() {
    let foreign = |access_recorded, terms| {
        let mut observed = with_tombstone(terms);
        let (Observation::Known(row), Observation::Known(server)) =
            (&mut observed.registry, &mut observed.server)
        else {
            unreachable!()
        };
        (row.access_recorded, server.login) = (access_recorded, LoginFacts::Foreign);
        observed
    };
    // CutAccess fails with the reason; the tombstone is written, and after a minute the object is released.
    assert_eq!(plan(DELETED, GRACE, &foreign(false, GRACE)), [Step::CutAccess, Step::ReleaseFinalizer]);
    let late = plan_deprovision(DELETED, GRACE, &foreign(false, GRACE), OVERDUE);
    assert_eq!(steps(late), [Step::ReleaseFinalizer]);
    let purge = plan(PRESENT, NO_GRACE, &foreign(false, NO_GRACE));
    assert_eq!(purge[..2], [Step::CutAccess, Step::DropDatabase]);
    assert!(!plan(PRESENT, NO_GRACE, &foreign(true, NO_GRACE)).contains(&Step::CutAccess));
}

#[test]
fn foreign_database_does_not_prove_the_drop() {
    let foreign = |mut observed: ObservedFacts| {
        let Observation::Known(server) = &mut observed.server else { unreachable!() };
        server.database = DatabaseFacts::Foreign;
        observed
    };
    let stuck = NextAction::Blocked(BlockedReason::ForeignDatabase);
    assert_eq!(plan_deprovision(DELETED, NO_GRACE, &foreign(with_tombstone(NO_GRACE)), NOW), stuck);
    assert_eq!(plan(DELETED, NO_GRACE, &foreign(active())), [Step::CutAccess, Step::Tombstone]);
    // With grace left, nothing is dropped.
    assert_eq!(plan(DELETED, GRACE, &foreign(with_tombstone(GRACE))), [Step::ReleaseFinalizer]);
    // Its drop was recorded, or the tenant was never active: the other database does not matter.
    for (recorded, activated) in [(false, true), (true, false)] {
        let mut observed = foreign(with_tombstone(NO_GRACE));
        let Observation::Known(row) = &mut observed.registry else { unreachable!() };
        (row.database_recorded, row.activated) = (recorded, activated);
        assert_eq!(plan(PRESENT, NO_GRACE, &observed).last(), Some(&Step::Close));
    }
}

#[test]
fn row_that_forgot_the_activation_is_corrected_before_anything_is_dropped() {
    let mut observed = with_tombstone(NO_GRACE);
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.activated = false;
    assert!(plan(DELETED, NO_GRACE, &observed).contains(&Step::DropDatabase), "nothing shows an activation");
    let shown = |object| TenantObject { was_activated: true, ..object };
    assert_eq!(plan(shown(DELETED), NO_GRACE, &observed), [Step::RestoreActivation]);
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.database_recorded = false;
    assert_eq!(plan(ABSENT, NO_GRACE, &observed), [Step::RestoreActivation], "its database exists");
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.purging = true;
    assert!(plan(shown(DELETED), NO_GRACE, &observed).contains(&Step::DropDatabase), "it has begun");
}

#[test]
fn legal_hold_stops_every_purge_that_has_not_begun() {
    let preserved = |mut observed: ObservedFacts| {
        let Observation::Known(row) = &mut observed.registry else { unreachable!() };
        row.preserved = true;
        observed
    };
    let retained = PurgeTerms { purge_after: NOW, ..RETAIN };
    for (object, released) in [(PRESENT, false), (DELETED, true), (ABSENT, false)] {
        for terms in [NO_GRACE, retained] {
            for breaker in [BreakerState::Disabled, BreakerState::Closed, BreakerState::Unknown] {
                let context = PurgeContext { now: LATER, breaker };
                for activated in [true, false] {
                    let mut observed = preserved(with_tombstone(terms));
                    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
                    row.activated = activated;
                    let wanted: &[Step] = if released { &[Step::ReleaseFinalizer] } else { &[] };
                    let found = steps(plan_deprovision(object, terms, &observed, context));
                    assert_eq!(found, wanted, "{object:?} {terms:?} {breaker:?} {activated}");
                }
            }
        }
    }
    // Access is revoked, and the registry knows, as with grace left.
    let first = [Step::CutAccess, Step::Tombstone, Step::ReleaseFinalizer];
    assert_eq!(plan(DELETED, NO_GRACE, &preserved(active())), first);
    // It is too late for a purge that has begun.
    let mut begun = preserved(with_tombstone(NO_GRACE));
    let Observation::Known(row) = &mut begun.registry else { unreachable!() };
    row.purging = true;
    assert!(plan(ABSENT, NO_GRACE, &begun).contains(&Step::DropDatabase));
}

#[test]
fn adopted_database_is_given_back_until_the_tenant_was_active() {
    for takeover in Takeover::ALL {
        for retain in [false, true] {
            let mut observed = whole(RegistryStatus::Deprovisioning);
            let Observation::Known(row) = &mut observed.registry else { unreachable!() };
            let terms = PurgeTerms { purge_after: Timestamp::UNIX_EPOCH, retain, held: false };
            (row.takeover, row.activated, row.tombstone) = (Some(takeover), false, Some(terms));
            let deleting = TenantObject { state: ObjectState::Deleting(Timestamp::UNIX_EPOCH), ..OBJECT };
            let now = PurgeContext { now: Timestamp::UNIX_EPOCH, breaker: BreakerState::Disabled };
            let planned = steps(plan_deprovision(deleting, terms, &observed, now));
            assert!(planned.contains(&Step::GiveBack) && planned.contains(&Step::Close), "{planned:?}");
            assert!(!planned.contains(&Step::DropDatabase), "{planned:?}");

            let Observation::Known(row) = &mut observed.registry else { unreachable!() };
            row.activated = true;
            let planned = steps(plan_deprovision(deleting, terms, &observed, now));
            assert!(!planned.contains(&Step::GiveBack), "{planned:?}");
            assert_eq!(planned.contains(&Step::DropDatabase), !retain, "{planned:?}");
        }
    }
}
