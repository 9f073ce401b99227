//! Holds: one per party, stacked; the strictest wins, and all must be lifted.

use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};
use serde_json::json;
use sqlx::Executor;
use tenantry::api::tenant_status::{Access, HoldMode, TenantState};
use tenantry_test_support::{Fleet, shared_operator::ask};

#[tokio::test]
async fn strictest_hold_wins_and_each_must_be_lifted() {
    let fleet = Fleet::new("holds-stack").await;
    fleet.apply("stack", json!({})).await;
    fleet.ready("stack").await;
    let mut open = fleet.login("stack").await.unwrap();

    fleet.apply_hold("billing", "stack", json!({"mode": "ReadOnly", "trigger": "PaymentFailure"})).await;
    fleet.hold_reason("billing", "Verified").await;
    let status = fleet.access("stack", Access::ReadOnly).await.status.unwrap();
    assert_eq!(status.state, Some(TenantState::Suspended));
    assert!(open.execute("SELECT 1").await.is_err());
    let held = &status.holds[0];
    assert_eq!((held.name.as_str(), held.mode), ("billing", HoldMode::ReadOnly));
    assert!(held.since.is_some() && held.reason.as_deref() == Some("held by billing"));

    fleet.apply_hold("security", "stack", json!({"trigger": "SecurityIncident"})).await;
    fleet.hold_reason("security", "Verified").await;
    fleet.access("stack", Access::Blocked).await;
    assert!(fleet.login("stack").await.is_err());

    fleet.delete_hold("security").await;
    let status = fleet.access("stack", Access::ReadOnly).await.status.unwrap();
    assert_eq!(status.holds.len(), 1);
    // A suspension by the spec stacks too.
    fleet.apply("stack", json!({"state": "Suspended", "stateReason": "by hand"})).await;
    fleet.access("stack", Access::Blocked).await;
    fleet.delete_hold("billing").await;
    fleet.access("stack", Access::Blocked).await;
    fleet.apply("stack", json!({})).await;
    let status = fleet.access("stack", Access::ReadWrite).await.status.unwrap();
    assert_eq!((status.state, status.holds.len()), (Some(TenantState::Active), 0));
    let mut session = fleet.login("stack").await.unwrap();
    session.execute("INSERT INTO users (email) VALUES ('a@acme.example')").await.unwrap();
}

#[tokio::test]
async fn hold_without_tenant_applies_from_first_activation() {
    let fleet = Fleet::new("holds-first").await;
    fleet.apply_hold("legal", "held-first", json!({"mode": "Blocked"})).await;
    fleet.hold_reason("legal", "TenantNotFound").await;
    fleet.apply("held-first", json!({"paused": true})).await;
    fleet.hold_reason("legal", "Paused").await;
    let events = Api::<Event>::namespaced(fleet.client.clone(), fleet.tenants.namespace().unwrap());
    let is_reported = async || {
        let all = events.list(&ListParams::default()).await.unwrap();
        all.iter().any(|event| {
            event.reason.as_deref() == Some("Paused")
                && event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some("legal")
        })
    };
    fleet.until("an Event says that the Tenant of the hold is paused").is_true(is_reported).await;
    fleet.apply("held-first", json!({})).await;
    fleet.access("held-first", Access::Blocked).await;
    fleet.hold_reason("legal", "Verified").await;
    // It never had more access.
    let opened = "SELECT NOT EXISTS (SELECT FROM activity a JOIN tenants t ON t.id = a.tenant_id
                  WHERE slug = $1 AND details->>'status' IN ('active', 'trial'))";
    assert!(ask::<bool>("tenantry_system", opened, "held-first").await);
    assert!(fleet.login("held-first").await.is_err());
    fleet.delete_hold("legal").await;
    fleet.access("held-first", Access::ReadWrite).await;
}

#[tokio::test]
async fn hold_applied_with_its_tenant_takes_effect() {
    let fleet = Fleet::new("holds-together").await;
    for n in 0..10 {
        let name = format!("together-{n}");
        fleet.apply_hold(&format!("legal-{n}"), &name, json!({})).await;
        fleet.apply(&name, json!({})).await;
    }
    for n in 0..10 {
        fleet.access(&format!("together-{n}"), Access::Blocked).await;
    }
    let opened = "SELECT NOT EXISTS (SELECT FROM activity a JOIN tenants t ON t.id = a.tenant_id
                  WHERE slug LIKE $1 AND details->>'status' IN ('active', 'trial'))";
    assert!(ask::<bool>("tenantry_system", opened, "together-%").await);
}

#[tokio::test]
async fn mode_of_a_hold_can_change() {
    let fleet = Fleet::new("holds-change").await;
    fleet.apply("hold-mode", json!({})).await;
    fleet.apply_hold("billing", "hold-mode", json!({"mode": "ReadOnly"})).await;
    fleet.access("hold-mode", Access::ReadOnly).await;
    fleet.apply_hold("billing", "hold-mode", json!({"mode": "Blocked"})).await;
    fleet.access("hold-mode", Access::Blocked).await;
    // The state stays Suspended: the change of access has an Event of its own.
    let events = Api::<Event>::namespaced(fleet.client.clone(), "holds-change");
    let reported = async || {
        let all = events.list(&ListParams::default()).await.unwrap();
        all.iter()
            .filter_map(|event| event.note.as_deref())
            .any(|note| note.starts_with("access is Blocked, and was ReadOnly: hold \"billing\" (Blocked)"))
    };
    fleet.until("an Event reports the change of access").is_true(reported).await;
    fleet.apply_hold("billing", "hold-mode", json!({"mode": "ReadOnly"})).await;
    fleet.access("hold-mode", Access::ReadOnly).await;
    fleet.login("hold-mode").await.unwrap();
}
