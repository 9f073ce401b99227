//! The previous login of a rotation: it is compared as the login is, and ended after its time.

use super::*;
use crate::domain::{rotation::PreviousState, tenant_facts::OtherLogin, workflow::fixtures};

/// A tenant with a previous login for which a level is in force too.
fn rotated(access: AccessLevel) -> TenantFacts {
    let mut facts = healthy(access);
    let login = facts.login.clone().unwrap();
    facts.previous = Some(OtherLogin {
        kind: OtherKind::Previous,
        name: "tenant_acme_b".into(),
        may_connect: login.can_login,
        role: Some(LoginProperties { name: "tenant_acme_b".into(), oid: 3, ..login }),
    });
    facts
}

fn role(facts: &mut TenantFacts) -> &mut LoginProperties {
    facts.previous.as_mut().unwrap().role.as_mut().unwrap()
}

/// What the planner sees of an active tenant with this previous login.
fn observed_with(server: ServerFacts, access: AccessLevel, previous: PreviousState) -> ObservedFacts {
    let mut observed = observed(server, access);
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.previous = previous;
    observed
}

fn valid() -> PreviousState {
    PreviousState::ValidUntil(jiff::Timestamp::UNIX_EPOCH)
}

fn plan(facts: &TenantFacts, expected: &Expected, previous: PreviousState) -> NextAction {
    let target = ProvisionTarget { access: expected.access, connections: CONNECTIONS, ..WANTED };
    plan_provision(OBJECT, target, &observed_with(server_facts(facts, expected), expected.access, previous))
}

#[test]
fn previous_login_in_its_time_is_no_difference() {
    for access in AccessLevel::ALL {
        let facts = rotated(access);
        assert_eq!(mismatches(&facts, &expected(access)), [], "{access}");
        assert_eq!(access_in_force(&facts, RECORDED), Some(access));
        assert_eq!(plan(&facts, &expected(access), valid()), NextAction::Done);
    }
    assert!(!is_reachable(&rotated(AccessLevel::Blocked), RECORDED));
}

#[test]
fn change_of_the_previous_login_is_repaired_as_one_of_the_login() {
    use AccessLevel::{Blocked, ReadOnly, ReadWrite};
    let enforce = Step::EnforceAccess;
    let changes: [(ManualChange, AccessLevel, &str, Step, bool); 9] = [
        (|f| role(f).can_login = false, ReadWrite, "the login was NOLOGIN", enforce, false),
        (|f| role(f).can_login = true, Blocked, "the login had LOGIN", enforce, true),
        (|f| f.previous.as_mut().unwrap().may_connect = true, Blocked, "had CONNECT", enforce, true),
        (|f| f.previous.as_mut().unwrap().may_connect = false, ReadOnly, "lacked CONNECT", enforce, false),
        (|f| role(f).groups = vec!["tenantry_rw".into()], ReadOnly, "a member of tenantry_rw", enforce, true),
        (|f| role(f).foreign_members = vec!["bob".into()], ReadWrite, "bob had", enforce, true),
        (|f| role(f).is_revocation_unproven = true, ReadOnly, "not proven", enforce, true),
        (|f| role(f).ownership = Ownership::NoComment, ReadWrite, "comment was changed", enforce, false),
        (|f| role(f).connection_limit = 1, ReadWrite, "a connection limit of 1", Step::ApplyPlan, false),
    ];
    for (change, access, phrase, step, grants) in changes {
        let mut facts = rotated(access);
        change(&mut facts);
        let found = mismatches(&facts, &expected(access));
        let [mismatch] = &found[..] else { panic!("{phrase}: {found:?}") };
        let text = mismatch.to_string();
        assert!(text.contains(phrase) && text.contains("previous login tenant_acme_b"), "{text}");
        assert_eq!((mismatch.repaired_by(), mismatch.grants_access()), (Some(step), grants), "{text}");
        let NextAction::Run { steps, .. } = plan(&facts, &expected(access), valid()) else {
            panic!("{phrase}: not repaired")
        };
        assert!(steps.contains(&step), "{phrase}: {steps:?}");
        // With an invalid spec, a restricted tenant loses what it regained.
        if grants && access < ReadWrite {
            assert_eq!(access_in_force(&facts, RECORDED), None, "{phrase}");
            let target = ProvisionTarget { access, ..WANTED };
            let observed = observed_with(server_facts(&facts, &expected(access)), access, valid());
            let restriction = fixtures::steps(plan_restriction(OBJECT, target, &observed));
            assert!(restriction.contains(&Step::EnforceAccess), "{phrase}");
        }
        if grants && access == Blocked {
            assert!(is_reachable(&facts, RECORDED), "{phrase}");
        }
    }
}

#[test]
fn kept_login_that_the_operator_may_not_change_waits_for_a_person_and_proves_no_other_level() {
    for access in AccessLevel::ALL {
        let mut facts = rotated(access);
        (role(&mut facts).is_kept, role(&mut facts).is_out_of_reach) = (true, true);
        let found = mismatches(&facts, &expected(access));
        let [mismatch] = &found[..] else { panic!("{found:?}") };
        assert!(
            mismatch.to_string().contains("GRANT \"tenant_acme_b\" TO tenantry_admin WITH ADMIN TRUE"),
            "{mismatch}"
        );
        assert_eq!(mismatch.repaired_by(), None);
        assert_eq!(mismatch.reason(), crate::api::reason::Reason::MissingRight);
        assert_eq!(access_in_force(&facts, RECORDED), Some(access));
        assert!(matches!(plan(&facts, &expected(access), valid()), NextAction::Blocked(_)));
    }
}

#[test]
fn previous_login_is_ended_after_its_time_or_forgotten_once_it_is_gone() {
    let full = AccessLevel::ReadWrite;
    let over = Expected { is_previous_over: true, ..expected(full) };
    let found = mismatches(&rotated(full), &over);
    assert_eq!(found, [Mismatch::PreviousLoginOver("tenant_acme_b".into())]);
    // It is not a change by hand.
    assert!(found.iter().all(Mismatch::comes_with_time));
    assert!(check(&found, full).needs_reconcile());
    let retire = |action| fixtures::steps(action) == [Step::RetireLogin];
    assert!(retire(plan(&rotated(full), &over, PreviousState::Over)));
    // An interrupted end goes on: it gets nothing back.
    let mut cut = rotated(full);
    (role(&mut cut).can_login, role(&mut cut).groups) = (false, vec![]);
    assert!(retire(plan(&cut, &over, PreviousState::Over)));
    // It was dropped, by this process or by hand, or its name is another owner's now.
    let mut gone = rotated(full);
    gone.previous.as_mut().unwrap().role = None;
    let mut foreign = rotated(full);
    (role(&mut foreign).ownership, role(&mut foreign).oid) = (Ownership::NoComment, 9);
    for facts in [gone, foreign] {
        let [mismatch] = &mismatches(&facts, &expected(full))[..] else { panic!() };
        assert_eq!(mismatch.repaired_by(), Some(Step::RetireLogin));
        assert_eq!(access_in_force(&facts, RECORDED), Some(full));
        assert!(retire(plan(&facts, &expected(full), valid())));
    }
    // With an invalid spec it ends too.
    let observed = observed_with(server_facts(&rotated(full), &over), full, PreviousState::Over);
    assert!(retire(plan_restriction(OBJECT, WANTED, &observed)));
}

#[test]
fn interrupted_rotation_is_restricted_and_cut_off_by_its_previous_login() {
    let access = AccessLevel::ReadOnly;
    let mut facts = rotated(AccessLevel::ReadWrite);
    facts.login = None;
    let server = server_facts(&facts, &expected(access));
    assert!(server.has_login() && !server.are_others_current() && server.exceeds_level);
    let mut observed = observed_with(server, AccessLevel::ReadWrite, PreviousState::Needed);
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    (row.access_recorded, row.has_verifier) = (false, false);
    let target = ProvisionTarget { access, connections: CONNECTIONS, ..WANTED };
    let first = fixtures::steps(plan_provision(OBJECT, target, &observed));
    assert_eq!(first, [Step::CreateRoles, Step::EnforceAccess]);
    let invalid = fixtures::steps(plan_restriction(OBJECT, target, &observed));
    assert_eq!(invalid, [Step::CreateRoles, Step::EnforceAccess, Step::RecordState]);
}
