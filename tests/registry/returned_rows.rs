//! Every change of one tenant's row returns the row as it is stored.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tenantry::{
    api::tenant_status::WorkflowKind,
    domain::{
        access::{AccessLevel, gates::EffectiveGate, holds::Hold, holds::Party, holds::with},
        identity::TenantId,
        offboarding::PurgeTerms,
        record::{ModuleVersion, TenantRecord},
        usage::entitlements::Entitlements,
    },
    registry::{Deadline, Declared, HoldChange, NewPlan, Registry, WorkflowOutcome},
};
use uuid::Uuid;

use crate::{
    registration::tombstone,
    system::{System, created, in_use, tenant},
};

async fn assert_stored(registry: &Registry, what: &str, returned: TenantRecord) {
    let stored = registry.by_id(returned.id).await.unwrap().unwrap();
    assert_eq!(returned, stored, "{what}");
}

/// Runs an update twice: the first time it changes the row, the second time it does not.
macro_rules! twice {
    ($registry:ident.$function:ident($($argument:expr),*)) => {
        for changed in [true, false] {
            let update = $registry.$function($($argument),*).await.unwrap();
            assert_eq!(update.changed, changed, stringify!($function));
            assert_stored(&$registry, stringify!($function), update.record).await;
        }
    };
}

async fn provision(registry: &Registry, id: TenantId, run: Uuid) {
    let gates = [EffectiveGate { name: "contract".into(), done: true }];
    let now = Timestamp::now();
    let settings = [("theme".to_owned(), json!("light"))].into();
    let declared = Declared {
        name: "Acme",
        settings: &settings,
        retain: true,
        gates: &gates,
        gates_done_at: Some(now),
        gates_changed_by: "ada",
    };
    twice!(registry.update_declared(id, &declared));
    twice!(registry.record_database_exists(id, true));
    twice!(registry.set_modules(id, &[ModuleVersion { name: "core".into(), version: 2 }]));
    twice!(registry.record_seed(id, "digest", &[("users".to_owned(), 1)].into(), now));
    let forgotten = registry.forget_contents(id).await.unwrap().record;
    assert_eq!((&forgotten.seed_digest, forgotten.usage["users"]), (&None, 1));
    assert_stored(registry, "forget_contents", forgotten).await;
    let entitlements = Entitlements { plan: "large".into(), ..Entitlements::default() };
    let usage = [("storageBytes".to_owned(), 7)].into();
    let plan =
        NewPlan { entitlements: &entitlements, usage: &usage, at: now, actor: "ada", generation: Some(2) };
    twice!(registry.record_entitlements(id, &plan, run));
    twice!(registry.set_credential(id, Some("SCRAM-SHA-256$x"), Some(b"d")));
    twice!(registry.set_verification_required(id, true));
    twice!(registry.set_access(id, Some(AccessLevel::ReadWrite)));
}

#[tokio::test]
async fn every_update_returns_the_stored_row() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let id = row.id;
        let workflow = registry.begin_workflow(id, WorkflowKind::Provision).await.unwrap();
        let run = workflow.id;
        twice!(registry.fail(id, "MigrationFailed", true, run));
        twice!(registry.rolled_back(id, run));
        twice!(registry.retry(id, run));
        provision(&registry, id, run).await;
        twice!(registry.activate(id, &in_use(), &["contract".to_owned()], run));
        registry.finish_workflow(&workflow, WorkflowOutcome::Succeeded).await.unwrap();
        twice!(registry.record_end_warning(id, Timestamp::UNIX_EPOCH));
        let warned = registry.record_inactivity_warning(id, Timestamp::UNIX_EPOCH).await.unwrap();
        assert_stored(&registry, "warned_of_inactivity", warned).await;
        let hold = Hold {
            name: "billing".into(),
            mode: None,
            preserve: None,
            trigger: None,
            reason: "unpaid".into(),
            since: Timestamp::UNIX_EPOCH,
            party: Party::TenantHold,
        };
        let after = with(&[], hold.clone()).unwrap();
        let change =
            HoldChange { before: &[], after: &after, hold: &hold, actor: "ada", placed_by: Some("ada") };
        let held = registry.change_holds(id, &change).await.unwrap().unwrap();
        assert_stored(&registry, "change_holds", held).await;
    }
}

#[tokio::test]
async fn every_step_of_offboarding_returns_the_stored_row() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("acme")).await.id;
        registry.activate(id, &in_use(), &[], Uuid::new_v4()).await.unwrap();
        registry.set_access(id, Some(AccessLevel::Blocked)).await.unwrap();
        let workflow = registry.begin_workflow(id, WorkflowKind::Deprovision).await.unwrap();
        let (run, uid, zero) = (workflow.id, "uid-of-acme", SignedDuration::ZERO);
        let terms = tombstone(false).terms;
        twice!(registry.begin_deprovisioning(id, &tombstone(false), Some(run)));
        twice!(registry.reinstate(id, "ada", run));
        registry.begin_deprovisioning(id, &tombstone(true), Some(run)).await.unwrap();
        twice!(registry.change_terms(id, PurgeTerms { held: true, ..terms }, "ada", run));
        registry.change_terms(id, terms, "ada", run).await.unwrap();
        let doubted = registry.doubt_revocation(id).await.unwrap().unwrap();
        assert_stored(&registry, "doubt_revocation", doubted).await;
        for what in ["may_close", "begin_purge", "begin_purge again", "close", "close again"] {
            let answer = match what {
                "may_close" => registry.may_close(id, uid, zero).await,
                "close" | "close again" => {
                    registry.close(id, uid, zero, run).await.map(|closing| closing.deadline)
                }
                _ => registry.begin_purge(id, uid, zero, run).await,
            };
            let Deadline::Passed(record) = answer.unwrap() else { panic!("{what} was refused") };
            let closed = what.starts_with("close");
            assert_eq!((record.has_open_workflow, record.closed_at.is_some()), (!closed, closed), "{what}");
            assert_stored(&registry, what, *record).await;
        }
    }
}
