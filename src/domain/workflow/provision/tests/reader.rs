//! The reader login: created on demand, after everything of the login itself, and ended once it is not asked for any more.

use super::*;
use crate::domain::workflow::plan_restriction;

const USABLE: LoginFacts = LoginFacts::Ours { can_login: true, access_current: true, connections: 5 };

fn active(login: LoginFacts, reader: ReaderFacts) -> ObservedFacts {
    let mut observed = whole(RegistryStatus::Active);
    let Observation::Known(server) = &mut observed.server else { unreachable!() };
    (server.reader, observed.reader) = (login, reader);
    observed
}

fn reader(is_wanted: bool, is_recorded: bool, is_published: bool) -> ReaderFacts {
    ReaderFacts { is_wanted, is_recorded, is_published }
}

#[test]
fn reader_login_is_created_once_asked_for_and_removed_once_not() {
    let plan = |login, reader| plan_provision(OBJECT, WANTED, &active(login, reader));
    let run = |kind, step| NextAction::Run { kind, steps: vec![step], again: false };
    let created = run(WorkflowKind::Update, Step::PublishReader);
    assert_eq!(plan(LoginFacts::Absent, reader(true, false, false)), created);
    assert_eq!(plan(USABLE, reader(true, true, true)), NextAction::Done);
    // Interrupted, its Secret lost, or its role.
    let repaired = run(WorkflowKind::Repair, Step::PublishReader);
    assert_eq!(plan(USABLE, reader(true, true, false)), repaired);
    assert_eq!(plan(LoginFacts::Absent, reader(true, true, true)), repaired);
    let removed = run(WorkflowKind::Update, Step::RemoveReader);
    assert_eq!(plan(USABLE, reader(false, true, true)), removed);
    assert_eq!(plan(LoginFacts::Absent, reader(false, true, false)), removed);
    let invalid = plan_restriction(OBJECT, WANTED, &active(USABLE, reader(false, true, true)));
    assert_eq!(steps(invalid), [Step::RemoveReader]);
    let paused = TenantObject { paused: true, ..OBJECT };
    let planned = plan_provision(paused, WANTED, &active(USABLE, reader(false, true, true)));
    assert_eq!(planned, NextAction::Blocked(BlockedReason::Paused));
}

#[test]
fn reader_login_comes_after_the_activation_and_delays_nothing_of_the_login() {
    let mut observed = registered();
    let ends = |planned: &NextAction| matches!(planned, NextAction::Run { again: false, .. });
    assert!(ends(&plan_provision(OBJECT, WANTED, &observed)));
    observed.reader = reader(true, false, false);
    let planned = plan_provision(OBJECT, WANTED, &observed);
    // Not Ready before that.
    assert!(!ends(&planned) && !steps(planned).contains(&Step::PublishReader));
    let mut busy = active(LoginFacts::Absent, reader(true, false, false));
    let Observation::Known(row) = &mut busy.registry else { unreachable!() };
    (row.rotation_due, row.state_current, row.modules_current) = (true, false, false);
    let planned = steps(plan_provision(OBJECT, OTHER, &busy));
    let last = [Step::RecordState, Step::PublishReader, Step::ApplyMigrations, Step::Seed];
    assert_eq!(planned[planned.len() - 4..], last);
}

#[test]
fn rotation_and_plan_renew_its_secret_too() {
    let changes: [fn(&mut RegistryFacts); 2] =
        [|row| row.rotation_due = true, |row| row.plan_current = false];
    for change in changes {
        let mut observed = active(USABLE, reader(true, true, true));
        let Observation::Known(row) = &mut observed.registry else { unreachable!() };
        change(row);
        let planned = steps(plan_provision(OBJECT, WANTED, &observed));
        assert_eq!(planned.last(), Some(&Step::PublishReader), "{planned:?}");
    }
}

#[test]
fn restriction_goes_first_and_includes_it() {
    let mut observed = access_reevaluated(RegistryStatus::Active);
    observed.reader = reader(true, false, false);
    let planned = plan_provision(OBJECT, BLOCKED, &observed);
    assert_eq!(steps(planned), [Step::EnforceAccess, Step::RecordState]);
}
