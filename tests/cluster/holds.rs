//! Holds: one per party, stacked; the strictest wins, and all must be lifted.

use serde_json::json;
use sqlx::Executor;
use tenantry::api::{
    conditions::reason,
    tenant_status::{Access, HoldMode, TenantState},
};

use crate::tenants::{Fleet, ask};

#[tokio::test]
async fn the_strictest_of_all_holds_wins_and_lifting_one_gives_back_what_the_rest_allows() {
    let fleet = Fleet::new("holds-stack").await;
    fleet.apply("stack", json!({})).await;
    fleet.ready("stack").await;
    let mut open = fleet.login("stack").await.unwrap();

    fleet.hold("billing", "stack", json!({"mode": "ReadOnly", "trigger": "PaymentFailure"})).await;
    fleet.hold_is("billing", reason::VERIFIED).await;
    let status = fleet.may("stack", Access::ReadOnly).await.status.unwrap();
    assert_eq!(status.state, Some(TenantState::Suspended));
    assert!(open.execute("SELECT 1").await.is_err());
    let held = &status.holds[0];
    assert_eq!((held.name.as_str(), held.mode), ("billing", HoldMode::ReadOnly));
    assert!(held.since.is_some() && held.reason.as_deref() == Some("held by billing"));

    fleet.hold("security", "stack", json!({"trigger": "SecurityIncident"})).await;
    fleet.hold_is("security", reason::VERIFIED).await;
    fleet.may("stack", Access::Blocked).await;
    assert!(fleet.login("stack").await.is_err());

    fleet.unhold("security").await;
    let status = fleet.may("stack", Access::ReadOnly).await.status.unwrap();
    assert_eq!(status.holds.len(), 1);
    // What the spec says stacks too.
    fleet.apply("stack", json!({"state": "Suspended", "stateReason": "by hand"})).await;
    fleet.may("stack", Access::Blocked).await;
    fleet.unhold("billing").await;
    fleet.may("stack", Access::Blocked).await;
    fleet.apply("stack", json!({})).await;
    let status = fleet.may("stack", Access::ReadWrite).await.status.unwrap();
    assert_eq!((status.state, status.holds.len()), (Some(TenantState::Active), 0));
    let mut session = fleet.login("stack").await.unwrap();
    session.execute("INSERT INTO users (email) VALUES ('a@acme.example')").await.unwrap();
}

#[tokio::test]
async fn a_hold_for_a_tenant_that_does_not_exist_yet_applies_from_its_first_moment() {
    let fleet = Fleet::new("holds-first").await;
    fleet.hold("legal", "held-first", json!({"mode": "Blocked"})).await;
    fleet.hold_is("legal", reason::TENANT_NOT_FOUND).await;
    fleet.apply("held-first", json!({})).await;
    fleet.may("held-first", Access::Blocked).await;
    fleet.hold_is("legal", reason::VERIFIED).await;
    // Never more, not for a moment.
    let opened = "SELECT NOT EXISTS (SELECT FROM activity a JOIN tenants t ON t.id = a.tenant_id
                  WHERE slug = $1 AND details->>'status' IN ('active', 'trial'))";
    assert!(ask::<bool>("tenantry_system", opened, "held-first").await);
    assert!(fleet.login("held-first").await.is_err());
    fleet.unhold("legal").await;
    fleet.may("held-first", Access::ReadWrite).await;
}

#[tokio::test]
async fn a_hold_that_is_applied_together_with_its_tenant_is_not_missed() {
    let fleet = Fleet::new("holds-together").await;
    for n in 0..10 {
        let name = format!("together-{n}");
        fleet.hold(&format!("legal-{n}"), &name, json!({})).await;
        fleet.apply(&name, json!({})).await;
    }
    for n in 0..10 {
        fleet.may(&format!("together-{n}"), Access::Blocked).await;
    }
    let opened = "SELECT NOT EXISTS (SELECT FROM activity a JOIN tenants t ON t.id = a.tenant_id
                  WHERE slug LIKE $1 AND details->>'status' IN ('active', 'trial'))";
    assert!(ask::<bool>("tenantry_system", opened, "together-%").await);
}

#[tokio::test]
async fn a_holds_mode_may_change_at_any_time() {
    let fleet = Fleet::new("holds-change").await;
    fleet.apply("hold-mode", json!({})).await;
    fleet.hold("billing", "hold-mode", json!({"mode": "ReadOnly"})).await;
    fleet.may("hold-mode", Access::ReadOnly).await;
    fleet.hold("billing", "hold-mode", json!({"mode": "Blocked"})).await;
    fleet.may("hold-mode", Access::Blocked).await;
    fleet.hold("billing", "hold-mode", json!({"mode": "ReadOnly"})).await;
    fleet.may("hold-mode", Access::ReadOnly).await;
    fleet.login("hold-mode").await.unwrap();
}
