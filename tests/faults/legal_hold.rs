//! A legal hold stops every purge that has not begun, with the breaker on.

use k8s_openapi::api::events::v1::Event;
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sqlx::Executor;
use tenantry::api::{
    conditions::{DEPROVISIONED, IN_FORCE, READY, find_condition},
    tenant::Tenant,
    tenant_hold::TenantHold,
    tenant_status::{Access, HoldMode},
};
use tenantry_test_support::{Options, World};

const DAY: i64 = 24 * 3600;
const PRESERVED: &str = "SELECT status = 'deprovisioning' AND access = 'Blocked' AND legal_hold
                         AND purge_started_at IS NULL FROM tenants WHERE slug = $1";

async fn guarded(name: &'static str) -> World {
    World::with(name, Options { breaker: Some(8), ..Options::default() }).await
}

fn legal() -> Value {
    json!({"mode": "None", "preserve": true})
}

fn grace(days: i64) -> Value {
    json!({"offboarding": {"gracePeriodSeconds": days * DAY}})
}

fn message(hold: &TenantHold) -> String {
    find_condition(&hold.status.as_ref().unwrap().conditions, IN_FORCE).unwrap().message.clone()
}

#[tokio::test]
async fn data_is_kept_until_the_hold_is_lifted() {
    let world = guarded("legal").await;
    let names = [("kept", 0), ("staying", 0), ("retained", 0), ("alone", 1), ("control", 0), ("later", 1)];
    for (name, days) in names {
        world.apply(name, grace(days)).await;
    }
    for (name, _) in names {
        world.fleet.ready(name).await;
    }
    for name in ["kept", "staying", "retained"] {
        world.fleet.apply_hold(&format!("legal-{name}"), name, legal()).await;
        world.fleet.hold_reason(&format!("legal-{name}"), "LegalHold").await;
    }
    // It restricts nothing.
    let shown = |tenant: Option<&Tenant>| {
        tenant.and_then(|tenant| tenant.status.as_ref()).is_some_and(|status| status.holds.len() == 1)
    };
    let status = world.fleet.wait("kept", "held", shown).await.status.unwrap();
    assert_eq!((status.access, status.holds[0].mode), (Some(Access::ReadWrite), HoldMode::None));
    let mut session = world.fleet.login("kept").await.unwrap();
    session.execute("INSERT INTO users (email) VALUES ('kept@kept.example')").await.unwrap();
    drop(session);

    // Neither a deletion without grace, nor Deprovisioned, nor Retain ends it. The object is released.
    for name in ["kept", "control", "alone", "later"] {
        world.fleet.delete(name).await;
    }
    let state = json!({"state": "Deprovisioned", "stateReason": "contract ended",
        "offboarding": {"gracePeriodSeconds": 0}});
    world.apply("staying", state.clone()).await;
    let mut retain = state;
    retain["deletionPolicy"] = json!("Retain");
    world.apply("retained", retain).await;
    assert_eq!(world.status("control").await.as_deref(), Some("deprovisioned"), "without a hold");
    for name in ["staying", "retained"] {
        let status = world.fleet.reason(name, DEPROVISIONED, "LegalHold").await.status.unwrap();
        let ready = find_condition(&status.conditions, READY).unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "LegalHold"));
        assert!(ready.message.contains(&format!("kept by legal hold \"legal-{name}\"")), "{ready:?}");
    }
    // One that is only in the registry any more.
    world.fleet.apply_hold("court", "alone", legal()).await;
    let court = world.fleet.hold_reason("court", "LegalHold").await;
    assert!(message(&court).contains("can be restored"), "{}", message(&court));
    // The hold outlives its object, and says so.
    world.fleet.delete_hold("legal-kept").await;
    let events = Api::<Event>::namespaced(world.fleet.client.clone(), world.name);
    world
        .until("an Event says that the hold stays", async || {
            let all = events.list(&ListParams::default()).await.unwrap();
            all.iter().any(|event| event.reason.as_deref() == Some("LegalHoldKept"))
        })
        .await;

    world.installation.operator().kill().await.unwrap();
    world.delete_lease().await;
    world.set_clock_ahead(400 * DAY);
    world.installation.operator().start().await.unwrap();
    // The purge of one without a hold shows that the clock was read.
    world.until_status("later", "deprovisioned").await;
    for name in ["kept", "staying", "alone", "retained"] {
        assert!(world.holds("tenantry_system", PRESERVED, name).await, "{name}");
        assert!(world.database_exists(&format!("tenant_{name}")).await, "{name}");
    }

    // Lifted: applied again and deleted where no Tenant exists, else deleted.
    world.fleet.apply_hold("legal-kept", "kept", legal()).await;
    world.fleet.hold_reason("legal-kept", "LegalHold").await;
    world.apply("kept", json!({})).await;
    world.fleet.ready("kept").await;
    let mut session = world.fleet.login("kept").await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut session).await.unwrap();
    assert_eq!(kept, 1);
    for (name, hold) in [("alone", "court"), ("staying", "legal-staying"), ("retained", "legal-retained")] {
        world.fleet.delete_hold(hold).await;
        world.until_status(name, "deprovisioned").await;
        assert_eq!(world.database_exists(&format!("tenant_{name}")).await, name == "retained", "{name}");
    }
}

#[tokio::test]
async fn purge_waits_for_holds_that_cannot_be_read_and_a_later_one_is_too_late() {
    let world = guarded("legal-race").await;
    for name in ["raced", "begun"] {
        world.apply(name, grace(1)).await;
        world.fleet.ready(name).await;
    }
    world.fleet.delete("raced").await;
    world.until_status("raced", "deprovisioning").await;
    world.installation.operator().stop().await.unwrap();
    // Applied while no operator runs, and not readable: its time is out of range.
    let hold = world.fleet.apply_hold("legal", "raced", legal()).await;
    let status = |time: &str| {
        let condition = json!({"type": "InForce", "status": "False", "reason": "Waiting", "message": "",
            "lastTransitionTime": time});
        Patch::Merge(json!({"status": {"conditions": [condition]}}))
    };
    let late = status("9999-12-31T23:59:59Z");
    // The answer cannot be decoded either.
    let _ = world.fleet.holds.patch_status(&hold.name_any(), &PatchParams::default(), &late).await;
    world.set_clock_ahead(2 * DAY);
    world.installation.operator().start().await.unwrap();
    let log = world.fleet.log();
    let waits = async || std::fs::read_to_string(log).unwrap().contains("the tombstone waits");
    world.until("the tombstone waits", waits).await;
    let untouched = "SELECT purge_started_at IS NULL AND NOT legal_hold FROM tenants WHERE slug = $1";
    assert!(world.holds("tenantry_system", untouched, "raced").await);
    let readable = status("2026-01-01T00:00:00Z");
    world.fleet.holds.patch_status("legal", &PatchParams::default(), &readable).await.unwrap();
    let recorded = async || world.holds("tenantry_system", PRESERVED, "raced").await;
    world.until("the hold is recorded", recorded).await;
    assert!(world.database_exists("tenant_raced").await);

    // Only a superuser can end this session: the purge has begun, and does not end.
    let blocking = world.superuser("tenant_begun").await;
    world.fleet.delete("begun").await;
    world.set_clock_ahead(4 * DAY);
    let begun = "SELECT purge_started_at IS NOT NULL FROM tenants WHERE slug = $1";
    world.until("the purge has begun", async || world.holds("tenantry_system", begun, "begun").await).await;
    world.fleet.apply_hold("late", "begun", legal()).await;
    let late = world.fleet.hold_reason("late", "Purging").await;
    assert!(
        message(&late).starts_with("too late: the purge of Tenant \"begun\" began"),
        "{}",
        message(&late)
    );
    let recorded = "SELECT legal_hold FROM tenants WHERE slug = $1";
    assert!(!world.holds("tenantry_system", recorded, "begun").await);
    drop(blocking);
    world.until_status("begun", "deprovisioned").await;
}
