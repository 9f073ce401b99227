//! Changes of access by time alone: trials, validity, inactivity.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use sqlx::{Connection, Executor};
use tenantry::api::{
    ANNOTATION_RESUME_REQUESTED_AT,
    conditions::{READY, find_condition},
    tenant_status::{Access, TenantState},
};
use tenantry_dev::{Stop, installation::install_rights, rights::Scope};
use tenantry_test_support::World;

const DAY: i64 = 24 * 3600;

#[tokio::test]
async fn trial_ends_on_time_as_planned() {
    let world = World::new("timed-trial").await;
    let suspend = json!({"trialDays": 14, "trialEnd": {"action": "Suspend", "mode": "ReadOnly"}});
    world.fleet.apply_plan("timed-suspend", suspend).await;
    world
        .fleet
        .apply_plan(
            "timed-change",
            json!({"trialDays": 7, "trialEnd": {"action": "ChangePlan", "plan": "free"}}),
        )
        .await;
    world.apply("suspends", json!({"plan": "timed-suspend"})).await;
    world.apply("changes", json!({"plan": "timed-change"})).await;
    let status = world.fleet.access("suspends", Access::ReadWrite).await.status.unwrap();
    assert_eq!(status.state, Some(TenantState::Trial));
    assert_eq!(find_condition(&status.conditions, READY).unwrap().reason, "Trial");
    let ends = status.trial_ends_at.unwrap().0;
    let expected = Timestamp::now() + SignedDuration::from_hours(14 * 24);
    assert!((ends - expected).total(k8s_openapi::jiff::Unit::Second).unwrap().abs() < 120.0, "{ends}");
    world.fleet.access("changes", Access::ReadWrite).await;
    let mut open = world.fleet.login("suspends").await.unwrap();

    world.set_clock_ahead(12 * DAY);
    world.event("suspends", "TrialEnding", "its access is ReadOnly").await;
    // The other trial has ended meanwhile: its tenant is on the next plan, without an interruption.
    let changed = |tenant: Option<&tenantry::api::tenant::Tenant>| {
        tenant.is_some_and(|t| t.status.as_ref().unwrap().plan.as_deref() == Some("free"))
    };
    world.fleet.wait("changes", "on its new plan", changed).await;
    let status = world.fleet.ready("changes").await.status.unwrap();
    assert_eq!((status.state, status.access), (Some(TenantState::Active), Some(Access::ReadWrite)));
    let plan = "SELECT plan = 'free' AND status = 'active' FROM tenants WHERE slug = $1";
    assert!(world.holds("tenantry_system", plan, "changes").await);
    world
        .fleet
        .login("suspends")
        .await
        .unwrap()
        .execute("INSERT INTO users (email) VALUES ('a@a.example')")
        .await
        .unwrap();

    world.set_clock_ahead(14 * DAY + 60);
    let status = world.fleet.access("suspends", Access::ReadOnly).await.status.unwrap();
    assert_eq!(status.state, Some(TenantState::Suspended));
    assert_eq!(status.state_updated_by.as_deref(), Some("tenantry"));
    assert!(open.execute("SELECT 1").await.is_err());
    // A longer trial restores access.
    let later = (Timestamp::now() + SignedDuration::from_hours(30 * 24)).to_string();
    world.apply("suspends", json!({"plan": "timed-suspend", "trial": {"endsAt": later}})).await;
    let status = world.fleet.access("suspends", Access::ReadWrite).await.status.unwrap();
    assert_eq!(status.state, Some(TenantState::Trial));
    // Another plan ends the trial, and the tenant stays active.
    world.apply("suspends", json!({"plan": "starter"})).await;
    let status = world.fleet.access("suspends", Access::ReadWrite).await.status.unwrap();
    assert_eq!((status.state, status.trial_ends_at), (Some(TenantState::Active), None));
}

#[tokio::test]
async fn deadline_passed_without_operator_is_enforced_after_start() {
    let world = World::new("timed-down").await;
    let after = |days: i64| (Timestamp::now() + SignedDuration::from_hours(24 * days)).to_string();
    world.apply("acme", json!({"validity": {"notAfter": after(3)}})).await;
    world.apply("later", json!({"validity": {"notBefore": after(3)}})).await;
    world.fleet.access("acme", Access::ReadWrite).await;
    world.fleet.access("later", Access::Blocked).await;
    world.installation.operator().stop().await.unwrap();
    world.set_clock_ahead(4 * DAY);
    world.installation.operator().start().await.unwrap();
    world.fleet.access("acme", Access::Blocked).await;
    world.fleet.access("later", Access::ReadWrite).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn unused_admin_credentials_are_issued_again_when_they_expire() {
    let world = World::new("timed-admins").await;
    let admins = json!([{"email": "ada@acme.example"}]);
    world.apply("acme", json!({"admins": admins})).await;
    world.fleet.ready("acme").await;
    let first = world.fleet.secret("acme-admin", "admins.json").await;
    world.set_clock_ahead(6 * DAY);
    world.apply("acme", json!({"displayName": "Acme", "admins": admins})).await;
    world.fleet.ready("acme").await;
    assert_eq!(world.fleet.secret("acme-admin", "admins.json").await, first);
    world.set_clock_ahead(7 * DAY + 60);
    world.event("acme", "AdminSecretReplaced", "not used before it expired").await;
    assert_ne!(world.fleet.secret("acme-admin", "admins.json").await, first);
    world.fleet.ready("acme").await;
}

#[tokio::test]
async fn trial_end_without_its_plan_is_reported_and_changes_nothing() {
    let world = World::new("timed-missing").await;
    let end = json!({"action": "ChangePlan", "plan": "timed-missing-next"});
    world.fleet.apply_plan("timed-missing", json!({"trialDays": 1, "trialEnd": end})).await;
    world.apply("acme", json!({"plan": "timed-missing"})).await;
    world.fleet.access("acme", Access::ReadWrite).await;
    world.set_clock_ahead(2 * DAY);
    let status = world.fleet.reason("acme", READY, "PlanNotFound").await.status.unwrap();
    assert_eq!((status.access, status.plan.as_deref()), (Some(Access::ReadWrite), Some("timed-missing")));
    world.fleet.apply_plan("timed-missing-next", json!({})).await;
    let status = world.fleet.ready("acme").await.status.unwrap();
    assert_eq!(
        (status.state, status.plan.as_deref()),
        (Some(TenantState::Active), Some("timed-missing-next"))
    );
}

#[tokio::test]
async fn inactive_tenant_is_warned_held_and_resumed_on_request() {
    let world = World::new("timed-idle").await;
    let policy =
        json!({"inactivity": {"warnDays": 60, "holdDays": 90}, "suspensionMode": {"Inactivity": "ReadOnly"}});
    world.fleet.apply_plan("timed-idle", policy).await;
    for name in ["idle", "busy"] {
        world.apply(name, json!({"plan": "timed-idle"})).await;
        world.fleet.access(name, Access::ReadWrite).await;
    }
    let uri = world.fleet.secret("busy-db", "uri").await;
    // A first sample, to count from. Not a day later: the daily check has sessions of its own just then.
    let looked = "SELECT bool_and(sessions_seen IS NOT NULL) FROM tenants WHERE slug <> $1";
    world.set_clock_ahead(120);
    world.until("both were sampled", async || world.holds("tenantry_system", looked, "").await).await;
    let mut session = sqlx::PgConnection::connect(&uri).await.unwrap();
    session.execute("SELECT 1").await.unwrap();
    world.set_clock_ahead(61 * DAY);
    world.event("idle", "Inactive", "the tenant was not used since").await;
    let used = "SELECT last_session_at > created_at + interval '60 days' AND inactivity_warned_at IS NULL
                FROM tenants WHERE slug = $1";
    world.until("the other was used", async || world.holds("tenantry_system", used, "busy").await).await;
    session.close().await.unwrap();

    world.set_clock_ahead(91 * DAY);
    let status = world.fleet.access("idle", Access::ReadOnly).await.status.unwrap();
    assert_eq!(status.holds[0].name, "inactivity");
    assert_eq!(
        world.fleet.tenants.get("busy").await.unwrap().status.unwrap().access,
        Some(Access::ReadWrite)
    );
    let annotations = json!({"metadata": {"annotations": {ANNOTATION_RESUME_REQUESTED_AT: "2027-03-01"}}});
    world.fleet.tenants.patch("idle", &PatchParams::default(), &Patch::Merge(annotations)).await.unwrap();
    let status = world.fleet.access("idle", Access::ReadWrite).await.status.unwrap();
    assert!(status.holds.is_empty());
}

#[tokio::test]
async fn holds_survive_deletion_and_restoration() {
    let world = World::new("timed-holds").await;
    world.apply("acme", json!({})).await;
    world.fleet.ready("acme").await;
    world.fleet.apply_hold("legal", "acme", json!({"mode": "ReadOnly", "trigger": "TermsViolation"})).await;
    world.fleet.access("acme", Access::ReadOnly).await;
    world.fleet.delete("acme").await;
    // Deleting the hold while no Tenant exists grants no access.
    world.fleet.delete_hold("legal").await;
    world.apply("acme", json!({})).await;
    let status = world.fleet.access("acme", Access::ReadOnly).await.status.unwrap();
    assert_eq!((status.holds[0].name.as_str(), status.state), ("legal", Some(TenantState::Suspended)));
    // Applied and deleted again, the hold is lifted.
    world.fleet.apply_hold("legal", "acme", json!({"mode": "ReadOnly", "trigger": "TermsViolation"})).await;
    world.fleet.hold_reason("legal", "Verified").await;
    world.fleet.delete_hold("legal").await;
    world.fleet.access("acme", Access::ReadWrite).await;
}

#[tokio::test]
async fn deleted_namespace_lifts_no_hold() {
    let world = World::new("timed-namespace").await;
    world.apply("acme", json!({})).await;
    world.fleet.ready("acme").await;
    world.fleet.apply_hold("legal", "acme", json!({})).await;
    world.fleet.hold_reason("legal", "Verified").await;
    let kubectl = tenantry_test_support::CONTROL_PLANE.kubectl();
    kubectl.run(&["delete", "namespace", world.name]).await.unwrap();
    kubectl.run(&["create", "namespace", world.name]).await.unwrap();
    // As `helm upgrade` does: the Role went with the namespace.
    let (operators, watched) = (format!("{}-system", world.name), [world.name.to_owned()]);
    let scope = Scope { namespace: &operators, watched: &watched, lease: None };
    install_rights(&kubectl, scope).await.unwrap();
    world.apply("acme", json!({})).await;
    let status = world.fleet.access("acme", Access::Blocked).await.status.unwrap();
    assert_eq!(status.holds[0].name, "legal");
    // The operator was refused what it requested there while its Role was gone, which is expected of no namespace that exists.
    kubectl.run(&["delete", "namespace", world.name]).await.unwrap();
}

#[tokio::test]
async fn suspension_waits_for_server_and_is_not_reported_early() {
    let world = World::new("timed-server").await;
    let second = world.second_server("timed-server-2").await;
    world.apply("acme", json!({"server": "timed-server-2"})).await;
    world.fleet.ready("acme").await;
    second.stop(Stop::Fast).await.unwrap();
    world.fleet.apply_hold("billing", "acme", json!({})).await;
    world.fleet.hold_reason("billing", "Enforcing").await;
    let status = world.fleet.reason("acme", READY, "ServerNotReady").await.status.unwrap();
    assert_eq!(status.state, Some(TenantState::Active));
    assert_ne!(status.access, Some(Access::Blocked));
    second.start_again().await.unwrap();
    world.fleet.access("acme", Access::Blocked).await;
    world.fleet.hold_reason("billing", "Verified").await;
}
