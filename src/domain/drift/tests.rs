//! Tests of the mismatches: the phrase and the repair of each, and that every one is repaired or reported.

mod changes;
mod previous;
mod reader;

use uuid::Uuid;

use self::changes::{ManualChange, changes, database, granted_by_a_superuser, login, stray};
use super::*;
use crate::{
    api::reason::Reason,
    domain::{
        identity::TenantId,
        observed::{Observation, ObservedFacts, RegistryStatus},
        tenant_facts::Ownership,
        workflow::{
            BlockedReason, NextAction, ProvisionTarget,
            fixtures::{OBJECT, WANTED, whole},
            plan_provision, plan_restriction,
        },
    },
};

/// The oids of [`healthy`].
const RECORDED: RecordedOids = RecordedOids {
    database: Some(1),
    login: Some(2),
    previous_login: Some(3),
    is_previous_kept: false,
    may_be_given_back: false,
    reader_login: Some(4),
};
const CONNECTIONS: i32 = 20;

fn expected(access: AccessLevel) -> Expected {
    Expected { recorded: RECORDED, access, connections: CONNECTIONS, is_previous_over: false }
}

/// A tenant for which a level is in force.
fn healthy(access: AccessLevel) -> TenantFacts {
    let is_blocked = access == AccessLevel::Blocked;
    TenantFacts {
        database: Some(DatabaseProperties {
            name: "tenant_acme".into(),
            oid: 1,
            ownership: Ownership::Ours,
            is_adopting: false,
            owned_by_dba: true,
            allow_connections: true,
            drop_interrupted: false,
            connection_limit: -1,
            template_digest: None,
            login_may_connect: !is_blocked,
            open_to_public: false,
            is_template: false,
            settings: vec![],
        }),
        building: None,
        login: Some(LoginProperties {
            name: "tenant_acme_app".into(),
            oid: 2,
            ownership: Ownership::Ours,
            can_login: !is_blocked,
            groups: access.group().map(str::to_owned).into_iter().collect(),
            inherits: true,
            valid_until: None,
            settings: vec![],
            flawed_groups: vec![],
            foreign_grants: vec![],
            foreign_memberships: vec![],
            foreign_members: vec![],
            may_create: false,
            has_superuser_attributes: false,
            connection_limit: CONNECTIONS,
            is_revocation_unproven: false,
            is_kept: false,
            is_out_of_reach: false,
        }),
        previous: None,
        reader: None,
        strays: vec![],
    }
}

fn changed(change: ManualChange, access: AccessLevel) -> TenantFacts {
    let mut facts = healthy(access);
    change(&mut facts);
    facts
}

/// What the planner sees of an active tenant whose recorded level is in force according to the registry.
fn observed(server: ServerFacts, access: AccessLevel) -> ObservedFacts {
    let mut observed = whole(RegistryStatus::Active);
    let Observation::Known(row) = &mut observed.registry else { unreachable!() };
    row.recorded_access = Some(access);
    observed.server = Observation::Known(server);
    observed
}

fn check(mismatches: &[Mismatch], access: AccessLevel) -> DriftCheck<'_> {
    DriftCheck {
        mismatches,
        access,
        recorded_access: Some(access),
        is_paused: false,
        has_valid_spec: true,
        is_reported: false,
        is_retried: false,
    }
}

#[test]
fn healthy_tenant_has_no_mismatch() {
    for access in AccessLevel::ALL {
        let facts = healthy(access);
        assert_eq!(mismatches(&facts, &expected(access)), [], "{access}");
        assert_eq!(access_in_force(&facts, RECORDED), Some(access));
        assert!(!check(&[], access).needs_reconcile());
    }
}

#[test]
fn own_database_with_another_oid_was_restored() {
    let facts = healthy(AccessLevel::ReadWrite);
    let recorded = |oid| RecordedOids { database: oid, login: Some(2), ..RecordedOids::default() };
    assert!(facts.is_restored(recorded(Some(9))));
    assert!(!facts.is_restored(RECORDED) && !facts.is_restored(recorded(None)));
    let foreign = changed(
        |facts| facts.database.as_mut().unwrap().ownership = Ownership::NoComment,
        AccessLevel::Blocked,
    );
    assert!(!foreign.is_restored(recorded(Some(9))));
}

#[test]
fn every_change_is_one_mismatch() {
    for (change, access, phrase, step) in changes() {
        let found = mismatches(&changed(change, access), &expected(access));
        let [mismatch] = &found[..] else {
            assert!(phrase.is_empty() && found.is_empty(), "{phrase}: {found:?}");
            continue;
        };
        assert!(mismatch.to_string().contains(phrase), "{phrase}: {mismatch}");
        assert_eq!(mismatch.repaired_by(), step, "{mismatch}");
    }
}

/// Every mismatch that makes the drift check requeue a tenant, at every level, is repaired by the plan or reported in
/// a condition that ends the requeues. A foreign owner of a Blocked tenant's database used to be neither.
#[test]
fn mismatch_is_repaired_or_reported() {
    for (change, _, phrase, _) in changes() {
        for access in AccessLevel::ALL {
            let facts = changed(change, access);
            let expected = expected(access);
            let found = mismatches(&facts, &expected);
            if !check(&found, access).needs_reconcile() {
                continue;
            }
            let target = ProvisionTarget { access, connections: CONNECTIONS, ..WANTED };
            let observed = observed(server_facts(&facts, &expected), access);
            match plan_provision(OBJECT, target, &observed) {
                NextAction::Run { steps, again, .. } => {
                    for step in found.iter().filter_map(Mismatch::repaired_by) {
                        assert!(steps.contains(&step) || again, "{phrase} at {access}: {steps:?}");
                    }
                    assert!(found.iter().any(|mismatch| mismatch.repaired_by().is_some()), "{phrase}");
                }
                NextAction::Blocked(
                    BlockedReason::DatabaseMissing
                    | BlockedReason::ForeignDatabase
                    | BlockedReason::ForeignLogin
                    | BlockedReason::Unrepairable(_),
                ) => {
                    assert!(found.iter().any(|mismatch| mismatch.repaired_by().is_none()), "{phrase}");
                }
                other => panic!("{phrase} at {access}: {other:?}"),
            }
            for mismatch in found.iter().filter(|mismatch| mismatch.repaired_by().is_none()) {
                assert!(REPORTED.contains(&mismatch.reason()), "{mismatch}");
            }
            // Once it is reported, it ends, unless a restricted tenant has access.
            let is_regained = access < AccessLevel::ReadWrite
                && found.iter().any(|mismatch| mismatch.grants_access() && mismatch.repaired_by().is_some());
            let reported = DriftCheck { is_reported: true, ..check(&found, access) };
            assert_eq!(reported.needs_reconcile(), is_regained, "{phrase} at {access}");
        }
    }
}

#[test]
fn foreign_owner_of_a_blocked_tenant_is_reported() {
    let facts = changed(|facts| database(facts).owned_by_dba = false, AccessLevel::Blocked);
    let expected = expected(AccessLevel::Blocked);
    let found = mismatches(&facts, &expected);
    assert!(check(&found, AccessLevel::Blocked).needs_reconcile());
    let target = ProvisionTarget {
        access: AccessLevel::Blocked,
        connections: CONNECTIONS,
        state: RegistryStatus::Suspended,
        ..WANTED
    };
    let observed = observed(server_facts(&facts, &expected), AccessLevel::Blocked);
    let plan = plan_provision(OBJECT, target, &observed);
    assert_eq!(plan, NextAction::Blocked(BlockedReason::Unrepairable(found.clone())));
    assert_eq!(found[0].reason(), Reason::MissingRight);
    // Access is revoked nevertheless.
    assert_eq!(access_in_force(&facts, RECORDED), Some(AccessLevel::Blocked));
    assert!(!is_reachable(&facts, RECORDED));
}

#[test]
fn failed_repair_waits_for_its_next_attempt_unless_access_was_regained() {
    let found = [Mismatch::DatabaseConnectionLimit(3)];
    let failed = DriftCheck { is_retried: true, ..check(&found, AccessLevel::ReadWrite) };
    assert!(!failed.needs_reconcile());
    let regained = [Mismatch::ConnectGranted];
    assert!(DriftCheck { is_retried: true, ..check(&regained, AccessLevel::Blocked) }.needs_reconcile());
}

#[test]
fn repair_by_hand_clears_the_report() {
    for is_paused in [false, true] {
        let reported = DriftCheck { is_reported: true, is_paused, ..check(&[], AccessLevel::ReadWrite) };
        assert!(reported.needs_reconcile());
    }
    // What was found inside the database is not seen here: the recorded level was withdrawn.
    let doubted =
        DriftCheck { is_reported: true, recorded_access: None, ..check(&[], AccessLevel::ReadOnly) };
    assert!(!doubted.needs_reconcile());
    let found = [Mismatch::DatabaseMissing];
    let paused = DriftCheck { is_paused: true, ..check(&found, AccessLevel::ReadWrite) };
    assert!(!paused.needs_reconcile());
    assert!(!DriftCheck { is_reported: true, ..paused }.needs_reconcile());
}

#[test]
fn invalid_spec_is_requeued_only_to_revoke_access() {
    for (change, _, phrase, _) in changes() {
        for access in AccessLevel::ALL {
            for recorded_access in AccessLevel::ALL {
                let facts = changed(change, access);
                let expected = expected(access);
                let found = mismatches(&facts, &expected);
                let check = DriftCheck {
                    recorded_access: Some(recorded_access),
                    has_valid_spec: false,
                    ..check(&found, access)
                };
                let target = ProvisionTarget { access, ..WANTED };
                let observed = observed(server_facts(&facts, &expected), recorded_access);
                let revokes = matches!(
                    plan_restriction(OBJECT, target, &observed),
                    NextAction::Run { steps, .. } if steps.contains(&Step::EnforceAccess)
                );
                if check.needs_reconcile() {
                    assert!(revokes, "{phrase} at {access}, recorded {recorded_access}");
                }
            }
        }
    }
    let found = [Mismatch::PublicRights];
    let check = DriftCheck { has_valid_spec: false, ..check(&found, AccessLevel::ReadOnly) };
    assert!(check.needs_reconcile());
}

#[test]
fn level_is_in_force_only_without_contradiction() {
    let in_force = |change: ManualChange, access| access_in_force(&changed(change, access), RECORDED);
    let (blocked, full) = (AccessLevel::Blocked, AccessLevel::ReadWrite);
    // The group of its level may be granted by anyone.
    let in_its_group = |f: &mut TenantFacts| {
        login(f).groups.clear();
        login(f).foreign_grants = granted_by_a_superuser("tenantry_rw", "tenant_acme_app");
    };
    assert_eq!(in_force(in_its_group, full), Some(full));
    // A role that lost its access is no way in; one that cannot log in has no use for a group.
    assert_eq!(in_force(|f| f.strays = vec![stray(false)], blocked), Some(blocked));
    let granted: ManualChange =
        |f| login(f).foreign_grants = granted_by_a_superuser("tenantry_rw", "tenant_acme_app");
    assert_eq!(in_force(granted, blocked), Some(blocked));
    // A login without LOGIN, or with another limit, still has its level.
    assert_eq!(in_force(|f| login(f).can_login = false, full), Some(full));
    assert_eq!(in_force(|f| login(f).connection_limit = 3, full), Some(full));
    assert_eq!(in_force(|f| f.login = None, blocked), Some(blocked));
    assert_eq!(in_force(|f| f.database = None, blocked), Some(blocked));
    let contradict: [ManualChange; 12] = [
        |f| f.strays = vec![stray(true)],
        |f| login(f).inherits = false,
        |f| login(f).flawed_groups.push("tenantry_rw".into()),
        |f| login(f).foreign_grants = granted_by_a_superuser("tenantry_ro", "tenant_acme_app"),
        |f| f.database = None,
        |f| database(f).owned_by_dba = false,
        |f| database(f).open_to_public = true,
        |f| database(f).login_may_connect = false,
        |f| login(f).groups.push("tenantry_ro".into()),
        |f| login(f).foreign_memberships.push("other".into()),
        |f| login(f).has_superuser_attributes = true,
        |f| login(f).is_revocation_unproven = true,
    ];
    for change in contradict {
        assert_eq!(in_force(change, full), None);
    }
}

#[test]
fn blocked_tenant_is_reachable_by_what_grants_access() {
    let reachable = |change: ManualChange| is_reachable(&changed(change, AccessLevel::Blocked), RECORDED);
    let grants: [ManualChange; 8] = [
        |f| f.strays = vec![stray(true)],
        |f| {
            f.login = None;
            f.strays = vec![stray(true)];
        },
        |f| database(f).login_may_connect = true,
        |f| database(f).open_to_public = true,
        |f| login(f).can_login = true,
        |f| login(f).groups.push("tenantry_ro".into()),
        |f| login(f).foreign_members.push("other".into()),
        |f| login(f).is_revocation_unproven = true,
    ];
    assert!(grants.into_iter().all(reachable));
    let grants_nothing: [ManualChange; 5] = [
        |_| {},
        |f| f.login = None,
        |f| login(f).may_create = true,
        |f| {
            database(f).open_to_public = true;
            database(f).allow_connections = false;
        },
        |f| {
            database(f).ownership = Ownership::OtherTenant(TenantId(Uuid::from_u128(9)));
            database(f).login_may_connect = true;
        },
    ];
    assert!(!grants_nothing.into_iter().any(reachable));
}
