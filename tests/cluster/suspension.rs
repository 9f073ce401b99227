//! Suspension by the spec: enforced in PostgreSQL, for open sessions too, before it is reported.

use std::time::Instant;

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tenantry::api::{
    conditions::{ACCESS_ENFORCED, READY, RECONCILING, STALLED, find_condition},
    tenant_status::{Access, StepState, StepStatus, TenantState, WorkflowKind},
};
use tenantry_test_support::{
    Fleet,
    shared_operator::{ask, registry_status},
};

#[tokio::test]
async fn suspension_ends_sessions_and_resumption_restores_everything() {
    let fleet = Fleet::new("suspension").await;
    fleet.apply("susp", json!({})).await;
    let before = fleet.ready("susp").await.status.unwrap();
    let uri = fleet.secret("susp-db", "uri").await;
    let mut open = fleet.login("susp").await.unwrap();
    open.execute("INSERT INTO users (email) VALUES ('kept@acme.example')").await.unwrap();

    let why =
        json!({"state": "Suspended", "stateReason": "unpaid since May", "suspension": {"mode": "Blocked"}});
    fleet.apply("susp", why).await;
    let status = fleet.access("susp", Access::Blocked).await.status.unwrap();
    assert!(open.execute("SELECT 1").await.is_err());
    assert!(PgConnection::connect(&uri).await.is_err());
    assert_eq!(status.state, Some(TenantState::Suspended));
    assert!(status.suspended_at.is_some());
    assert_eq!(status.workflow.as_ref().unwrap().kind, WorkflowKind::Suspend);
    assert_eq!(status.binding, before.binding);
    // Healthy, for Flux and Argo CD: what the spec asks for is in force.
    let ready = find_condition(&status.conditions, READY).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "Suspended"));
    assert!(
        ready.message.contains("spec.state is Suspended (Blocked): unpaid since May"),
        "{}",
        ready.message
    );
    assert_eq!(find_condition(&status.conditions, ACCESS_ENFORCED).unwrap().status, "True");
    assert!(find_condition(&status.conditions, RECONCILING).is_none());
    assert!(find_condition(&status.conditions, STALLED).is_none());
    assert_eq!(registry_status("susp").await.as_deref(), Some("suspended"));

    // Stricter and weaker, without access in between.
    let read = json!({"state": "Suspended", "stateReason": "unpaid", "suspension": {"mode": "ReadOnly"}});
    fleet.apply("susp", read).await;
    fleet.access("susp", Access::ReadOnly).await;
    let mut reader = fleet.login("susp").await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut reader).await.unwrap();
    assert_eq!(kept, 1);
    assert!(reader.execute("DELETE FROM users").await.is_err());

    fleet.apply("susp", json!({})).await;
    let status = fleet.access("susp", Access::ReadWrite).await.status.unwrap();
    assert_eq!((status.state, status.suspended_at), (Some(TenantState::Active), None));
    assert_eq!(status.workflow.unwrap().kind, WorkflowKind::Resume);
    assert_eq!(fleet.secret("susp-db", "uri").await, uri);
    fleet.login("susp").await.unwrap().execute("DELETE FROM users").await.unwrap();
    let log: String = ask(
        "tenantry_system",
        "SELECT string_agg(action, ' ' ORDER BY a.id) FROM activity a JOIN tenants t ON t.id = tenant_id
         WHERE slug = $1 AND action IN ('Suspended', 'SuspensionChanged', 'Resumed')",
        "susp",
    )
    .await;
    assert_eq!(log, "Suspended SuspensionChanged Resumed");
}

#[tokio::test]
async fn tenant_suspended_from_creation_cannot_log_in() {
    let fleet = Fleet::new("suspended-at-birth").await;
    fleet.apply("susp-birth", json!({"state": "Suspended", "stateReason": "not yet"})).await;
    let status = fleet.access("susp-birth", Access::Blocked).await.status.unwrap();
    assert_eq!(status.state, Some(TenantState::Suspended));
    assert!(fleet.login("susp-birth").await.is_err());
    assert!(status.binding.is_some());
    fleet.apply("susp-birth", json!({})).await;
    fleet.access("susp-birth", Access::ReadWrite).await;
    fleet.login("susp-birth").await.unwrap();
}

#[tokio::test]
async fn suspended_tenant_can_be_changed_and_deleted() {
    let fleet = Fleet::new("suspended-changes").await;
    let suspended = json!({"state": "Suspended", "stateReason": "unpaid"});
    fleet.apply("susp-change", suspended.clone()).await;
    fleet.access("susp-change", Access::Blocked).await;
    let mut more = suspended.clone();
    more["settings"] = json!({"theme": "dark"});
    fleet.apply("susp-change", more).await;
    fleet.access("susp-change", Access::Blocked).await;
    let theme = "SELECT settings->>'theme' = 'dark' FROM tenants WHERE slug = $1";
    assert!(ask::<bool>("tenantry_system", theme, "susp-change").await);
    let mut other = suspended.clone();
    other["plan"] = json!("professional");
    fleet.apply("susp-change", other).await;
    let status = fleet.access("susp-change", Access::Blocked).await.status.unwrap();
    assert_eq!(status.plan.as_deref(), Some("professional"));
    let plan = "SELECT plan = 'professional' FROM tenants WHERE slug = $1";
    assert!(ask::<bool>("tenantry_system", plan, "susp-change").await);
    fleet.delete("susp-change").await;
    assert_eq!(registry_status("susp-change").await.as_deref(), Some("deprovisioned"));
}

#[tokio::test]
async fn invalid_spec_does_not_lift_suspension() {
    let fleet = Fleet::new("suspended-invalid").await;
    fleet.apply("susp-invalid", json!({})).await;
    fleet.ready("susp-invalid").await;
    let mut open = fleet.login("susp-invalid").await.unwrap();
    let mut spec = json!({"state": "Suspended", "stateReason": "abuse"});
    spec["settings"] = json!({"large": "x".repeat(70_000)});
    fleet.apply("susp-invalid", spec).await;
    let status = fleet.reason("susp-invalid", READY, "SettingsTooLarge").await.status.unwrap();
    assert_eq!((status.access, status.state), (Some(Access::Blocked), Some(TenantState::Suspended)));
    assert!(open.execute("SELECT 1").await.is_err());
    // Nor does it end a suspension.
    let large = json!({"settings": {"large": "y".repeat(70_000)}});
    fleet.apply("susp-invalid", large).await;
    let observed = |tenant: Option<&tenantry::api::tenant::Tenant>| {
        tenant.is_some_and(|t| t.status.as_ref().unwrap().observed_generation == t.metadata.generation)
    };
    let status = fleet.wait("susp-invalid", "observed", observed).await.status.unwrap();
    assert_eq!(status.access, Some(Access::Blocked));
    fleet.apply("susp-invalid", json!({})).await;
    fleet.access("susp-invalid", Access::ReadWrite).await;
}

#[tokio::test]
async fn tenant_outside_its_validity_is_blocked() {
    let fleet = Fleet::new("suspended-validity").await;
    let now = Timestamp::now();
    let hours = |n: i64| (now + k8s_openapi::jiff::SignedDuration::from_hours(n)).to_string();
    fleet.apply("valid", json!({"validity": {"notBefore": hours(1)}})).await;
    let status = fleet.access("valid", Access::Blocked).await.status.unwrap();
    assert_eq!(status.state, Some(TenantState::Suspended));
    fleet.apply("valid", json!({"validity": {"notBefore": hours(-1), "notAfter": hours(1)}})).await;
    fleet.access("valid", Access::ReadWrite).await;
    fleet.apply("valid", json!({"validity": {"notAfter": hours(-1)}})).await;
    fleet.access("valid", Access::Blocked).await;
}

#[tokio::test]
async fn suspended_tenants_have_no_session_when_status_shows_it() {
    const TENANTS: usize = 50;
    const SESSIONS: usize = 5;
    let fleet = Fleet::new("suspended-fifty").await;
    let names: Vec<String> = (0..TENANTS).map(|n| format!("fifty-{n}")).collect();
    join_all(names.iter().map(|name| fleet.apply(name, json!({})))).await;
    join_all(names.iter().map(|name| fleet.ready(name))).await;
    let open: Vec<Vec<PgConnection>> = join_all(names.iter().map(async |name| {
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            sessions.push(fleet.login(name).await.unwrap());
        }
        sessions
    }))
    .await;
    let suspended = json!({"state": "Suspended", "stateReason": "unpaid", "suspension": {"mode": "Blocked"}});
    let begun = Instant::now();
    let slowest = join_all(names.iter().map(async |name| {
        fleet.apply(name, suspended.clone()).await;
        fleet.access(name, Access::Blocked).await;
        // At once, not a second later.
        let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        let login = format!("tenant_{}_app", name.replace('-', "_"));
        assert_eq!(ask::<i64>("postgres", left, &login).await, 0, "{name}");
        assert!(fleet.login(name).await.is_err(), "{name}");
        begun.elapsed()
    }))
    .await
    .into_iter()
    .max();
    for session in open.into_iter().flatten().collect::<Vec<_>>().iter_mut() {
        assert!(session.execute("SELECT 1").await.is_err());
    }
    println!("{TENANTS} tenants with {SESSIONS} sessions each are suspended after {slowest:?}");
}

#[tokio::test]
async fn tenant_holding_a_lock_cannot_delay_suspension() {
    let fleet = Fleet::new("suspended-locked").await;
    fleet.apply("locked", json!({})).await;
    fleet.ready("locked").await;
    let mut session = fleet.login("locked").await.unwrap();
    session.execute("BEGIN; LOCK TABLE settings IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut spec = json!({"state": "Suspended", "stateReason": "abuse", "settings": {"theme": "dark"}});
    spec["admins"] = json!([{"email": "new@acme.example"}]);
    fleet.apply("locked", spec).await;
    fleet.access("locked", Access::Blocked).await;
    assert!(session.execute("SELECT 1").await.is_err());
    let status = fleet.tenants.get("locked").await.unwrap().status.unwrap();
    let failed = |step: &StepStatus| step.state == StepState::Failed;
    assert!(!status.workflow.unwrap().steps.iter().any(failed), "the lock went with its session");
}
