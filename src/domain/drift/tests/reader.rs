//! The reader login: it reads at every level but `Blocked`, and is compared and repaired as the login is.

use super::*;
use crate::domain::{
    observed::ReaderFacts,
    tenant_facts::{OtherLogin, StrayRole},
    workflow::fixtures,
};

/// A tenant with a reader login for which a level is in force too.
fn reading(access: AccessLevel) -> TenantFacts {
    let mut facts = healthy(access);
    let login = facts.login.clone().unwrap();
    facts.reader = Some(OtherLogin {
        kind: OtherKind::Reader,
        name: "tenant_acme_ro".into(),
        may_connect: login.can_login,
        role: Some(LoginProperties {
            name: "tenant_acme_ro".into(),
            oid: 4,
            groups: access.for_reader().group().map(str::to_owned).into_iter().collect(),
            connection_limit: 5,
            ..login
        }),
    });
    facts
}

fn role(facts: &mut TenantFacts) -> &mut LoginProperties {
    facts.reader.as_mut().unwrap().role.as_mut().unwrap()
}

/// What the planner sees of an active tenant with this reader login.
fn observed_with(facts: &TenantFacts, access: AccessLevel, is_wanted: bool) -> ObservedFacts {
    let mut observed = observed(server_facts(facts, &expected(access)), access);
    observed.reader = ReaderFacts { is_wanted, is_recorded: true, is_published: true };
    observed
}

fn target(access: AccessLevel) -> ProvisionTarget<'static> {
    ProvisionTarget { access, connections: CONNECTIONS, ..WANTED }
}

#[test]
fn reader_login_reads_at_every_level_but_blocked() {
    for access in AccessLevel::ALL {
        let facts = reading(access);
        assert_eq!(mismatches(&facts, &expected(access)), [], "{access}");
        assert_eq!(access_in_force(&facts, RECORDED), Some(access));
        let planned = plan_provision(OBJECT, target(access), &observed_with(&facts, access, true));
        assert_eq!(planned, NextAction::Done, "{access}");
    }
    assert!(!is_reachable(&reading(AccessLevel::Blocked), RECORDED));
    // A login with fewer sessions has a reader login with no more.
    let few = Expected { connections: 3, ..expected(AccessLevel::ReadWrite) };
    let texts: Vec<String> = mismatches(&reading(few.access), &few).iter().map(ToString::to_string).collect();
    assert!(
        texts.iter().any(|text| text.contains("tenant_acme_ro") && text.ends_with("5 instead of 3")),
        "{texts:?}"
    );
}

#[test]
fn change_of_the_reader_login_is_repaired_as_one_of_the_login() {
    use AccessLevel::{Blocked, ReadOnly, ReadWrite, ShrinkOnly};
    let enforce = Step::EnforceAccess;
    let changes: [(ManualChange, AccessLevel, &str, Step, bool); 11] = [
        (|f| role(f).can_login = false, ReadOnly, "the login was NOLOGIN", enforce, false),
        (|f| role(f).can_login = true, Blocked, "the login had LOGIN", enforce, true),
        (|f| f.reader.as_mut().unwrap().may_connect = true, Blocked, "had CONNECT", enforce, true),
        (|f| f.reader.as_mut().unwrap().may_connect = false, ReadWrite, "lacked CONNECT", enforce, false),
        (|f| role(f).groups = vec!["tenantry_rw".into()], ReadWrite, "of tenantry_rw", enforce, true),
        (
            |f| role(f).groups = vec!["tenantry_shrink".into()],
            ShrinkOnly,
            "of tenantry_shrink",
            enforce,
            true,
        ),
        (|f| role(f).foreign_memberships = vec!["boss".into()], ReadOnly, "a member of boss", enforce, true),
        (|f| role(f).is_revocation_unproven = true, ReadOnly, "not proven", enforce, true),
        (|f| role(f).ownership = Ownership::NoComment, ReadWrite, "comment was changed", enforce, false),
        (|f| role(f).connection_limit = 9, ReadWrite, "a connection limit of 9", Step::ApplyPlan, false),
        (|f| f.reader.as_mut().unwrap().role = None, Blocked, "did not exist", Step::PublishReader, false),
    ];
    for (change, access, phrase, step, grants) in changes {
        let mut facts = reading(access);
        change(&mut facts);
        let found = mismatches(&facts, &expected(access));
        let [mismatch] = &found[..] else { panic!("{phrase}: {found:?}") };
        let text = mismatch.to_string();
        assert!(text.contains(phrase) && text.contains("reader login tenant_acme_ro"), "{text}");
        assert_eq!((mismatch.repaired_by(), mismatch.grants_access()), (Some(step), grants), "{text}");
        let observed = observed_with(&facts, access, true);
        let steps = fixtures::steps(plan_provision(OBJECT, target(access), &observed));
        assert!(steps.contains(&step), "{phrase}: {steps:?}");
        // With an invalid spec, a restricted tenant loses what it regained.
        if grants && access < ReadWrite {
            assert_eq!(access_in_force(&facts, RECORDED), None, "{phrase}");
            let restriction = fixtures::steps(plan_restriction(OBJECT, target(access), &observed));
            assert!(restriction.contains(&Step::EnforceAccess), "{phrase}");
        }
        if grants && access == Blocked {
            assert!(is_reachable(&facts, RECORDED), "{phrase}");
        }
    }
}

#[test]
fn reader_login_of_a_tenant_without_its_login_is_restricted_and_dropped() {
    let mut facts = reading(AccessLevel::ReadWrite);
    facts.login = None;
    let server = server_facts(&facts, &expected(AccessLevel::Blocked));
    assert!(server.has_login() && !server.are_others_current() && server.exceeds_level);
    // A renamed reader login never becomes the login.
    let reader = facts.reader.take().unwrap().role.unwrap();
    let ownership = reader.ownership;
    facts.strays = vec![StrayRole { name: "x".into(), oid: reader.oid, ownership, has_access: true }];
    assert!(facts.renamed_login(RECORDED).is_none());
}
