//! The rotation of credentials, and the end of the previous login.

use super::*;

/// An active tenant whose credentials are due for a rotation.
fn rotating() -> ObservedFacts {
    let mut observed = whole(RegistryStatus::Active);
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.rotation_due = true;
    observed
}

#[test]
fn rotation_makes_the_other_login_and_publishes_it_in_one_workflow() {
    use Step::*;
    let rotation = [RotateLogin, CreateRoles, ApplyPlan, EnforceAccess, PublishCredentials, Verify];
    let planned = plan_provision(OBJECT, WANTED, &rotating());
    assert_eq!(
        planned,
        NextAction::Run { kind: WorkflowKind::Update, steps: rotation.to_vec(), again: false }
    );
    // Interrupted after the first step: the other login does not exist yet, and has no password.
    let mut begun = rotating();
    let (Observation::Known(row), Observation::Known(server)) = (&mut begun.registry, &mut begun.server)
    else {
        unreachable!()
    };
    (row.rotation_due, row.previous, row.has_verifier) = (false, PreviousState::Needed, false);
    (server.previous, server.login) = (server.login, LoginFacts::Absent);
    assert_eq!(steps(plan_provision(OBJECT, WANTED, &begun)), rotation[1..]);
    // Interrupted before the publication was recorded: the time of the previous login has not begun.
    let mut published = rotating();
    let Observation::Known(row) = &mut published.registry else { unreachable!() };
    (row.rotation_due, row.previous) = (false, PreviousState::Needed);
    let Observation::Known(server) = &mut published.server else { unreachable!() };
    server.previous = server.login;
    assert_eq!(steps(plan_provision(OBJECT, WANTED, &published)), [PublishCredentials, Verify]);
}

#[test]
fn rotation_waits_for_access_and_for_the_end_of_the_one_before() {
    use Step::*;
    let plan = |change: fn(&mut RegistryFacts, &mut ServerFacts), target| {
        let mut observed = rotating();
        let (Observation::Known(row), Observation::Known(server)) =
            (&mut observed.registry, &mut observed.server)
        else {
            unreachable!()
        };
        change(row, server);
        plan_provision(OBJECT, target, &observed)
    };
    // A Blocked tenant has no use for other credentials yet.
    assert_eq!(plan(|row, _| row.recorded_access = Some(AccessLevel::Blocked), BLOCKED), NextAction::Done);
    // A password that was never given cannot be the previous one.
    let without = steps(plan(|row, _| row.has_verifier = false, WANTED));
    assert!(!without.contains(&RotateLogin), "{without:?}");
    let over =
        plan(|row, server| (row.previous, server.previous) = (PreviousState::Over, server.login), WANTED);
    // The rotation is planned once the login of its name is ended.
    let retire = NextAction::Run { kind: WorkflowKind::Repair, steps: vec![RetireLogin], again: true };
    assert_eq!(over, retire);
}

#[test]
fn rotation_delays_no_restriction() {
    let mut observed = access_reevaluated(RegistryStatus::Active);
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.rotation_due = true;
    let target = ProvisionTarget { access: AccessLevel::ReadOnly, ..BLOCKED };
    let NextAction::Run { steps, again, .. } = plan_provision(OBJECT, target, &observed) else { panic!() };
    assert_eq!((steps, again), (vec![Step::EnforceAccess, Step::RecordState], true));
}
