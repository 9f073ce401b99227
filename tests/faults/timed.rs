//! What time alone does to a tenant: trials, validity, and that nobody uses it.

use k8s_openapi::{
    api::events::v1::Event,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sqlx::{Connection, Executor};
use tenantry::api::{
    ANNOTATION_RESUME_REQUESTED_AT,
    conditions::{READY, find_condition, reason},
    plan::TenantPlan,
    tenant_status::{Access, TenantState},
};
use tenantry_dev::Stop;

use crate::world::World;

const DAY: i64 = 24 * 3600;

impl World {
    /// A TenantPlan of a test's own.
    async fn plan(&self, name: &str, spec: Value) {
        let plan = json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantPlan",
            "metadata": {"name": name}, "spec": spec});
        let plans = Api::<TenantPlan>::all(self.fleet.client.clone());
        plans.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(plan)).await.unwrap();
    }

    /// Waits for an Event about a Tenant.
    async fn told(&self, name: &str, reason: &str, says: &str) {
        let events = Api::<Event>::namespaced(self.fleet.client.clone(), self.name);
        self.until(&format!("an Event {reason} about {name}"), async || {
            let all = events.list(&ListParams::default()).await.unwrap();
            all.iter().any(|event| {
                event.reason.as_deref() == Some(reason)
                    && event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(name)
                    && event.note.as_deref().unwrap_or_default().contains(says)
            })
        })
        .await;
    }
}

#[tokio::test]
async fn a_trial_ends_on_time_as_its_plan_says() {
    let world = World::new("timed-trial").await;
    let suspend = json!({"trialDays": 14, "trialEnd": {"action": "Suspend", "mode": "ReadOnly"}});
    world.plan("timed-suspend", suspend).await;
    world
        .plan("timed-change", json!({"trialDays": 7, "trialEnd": {"action": "ChangePlan", "plan": "free"}}))
        .await;
    world.apply("suspends", json!({"plan": "timed-suspend"})).await;
    world.apply("changes", json!({"plan": "timed-change"})).await;
    let status = world.fleet.may("suspends", Access::ReadWrite).await.status.unwrap();
    assert_eq!(status.state, Some(TenantState::Trial));
    assert_eq!(find_condition(&status.conditions, READY).unwrap().reason, reason::TRIAL);
    let ends = status.trial_ends_at.unwrap().0;
    let expected = Timestamp::now() + SignedDuration::from_hours(14 * 24);
    assert!((ends - expected).total(k8s_openapi::jiff::Unit::Second).unwrap().abs() < 120.0, "{ends}");
    world.fleet.may("changes", Access::ReadWrite).await;
    let mut open = world.fleet.login("suspends").await.unwrap();

    world.ahead(12 * DAY);
    world.told("suspends", "TrialEnding", "its access is ReadOnly").await;
    // The other one has ended meanwhile, and nobody noticed but its plan.
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

    world.ahead(14 * DAY + 60);
    let status = world.fleet.may("suspends", Access::ReadOnly).await.status.unwrap();
    assert_eq!(status.state, Some(TenantState::Suspended));
    assert_eq!(status.state_updated_by.as_deref(), Some("tenantry"));
    assert!(open.execute("SELECT 1").await.is_err());
    // Longer: let in again.
    let later = (Timestamp::now() + SignedDuration::from_hours(30 * 24)).to_string();
    world.apply("suspends", json!({"plan": "timed-suspend", "trial": {"endsAt": later}})).await;
    let status = world.fleet.may("suspends", Access::ReadWrite).await.status.unwrap();
    assert_eq!(status.state, Some(TenantState::Trial));
    // Another plan ends it, and the tenant stays.
    world.apply("suspends", json!({"plan": "starter"})).await;
    let status = world.fleet.may("suspends", Access::ReadWrite).await.status.unwrap();
    assert_eq!((status.state, status.trial_ends_at), (Some(TenantState::Active), None));
}

#[tokio::test]
async fn what_ended_while_the_operator_was_down_ends_when_it_is_back() {
    let world = World::new("timed-down").await;
    let after = |days: i64| (Timestamp::now() + SignedDuration::from_hours(24 * days)).to_string();
    world.apply("acme", json!({"validity": {"notAfter": after(3)}})).await;
    world.apply("later", json!({"validity": {"notBefore": after(3)}})).await;
    world.fleet.may("acme", Access::ReadWrite).await;
    world.fleet.may("later", Access::Blocked).await;
    world.installation.operator().stop().await.unwrap();
    world.ahead(4 * DAY);
    world.installation.operator().start().await.unwrap();
    world.fleet.may("acme", Access::Blocked).await;
    world.fleet.may("later", Access::ReadWrite).await;
}

#[tokio::test]
async fn a_trial_that_leads_to_a_plan_that_does_not_exist_says_so_and_changes_nothing() {
    let world = World::new("timed-missing").await;
    let end = json!({"action": "ChangePlan", "plan": "timed-missing-next"});
    world.plan("timed-missing", json!({"trialDays": 1, "trialEnd": end})).await;
    world.apply("acme", json!({"plan": "timed-missing"})).await;
    world.fleet.may("acme", Access::ReadWrite).await;
    world.ahead(2 * DAY);
    let status = world.fleet.reason("acme", READY, reason::PLAN_NOT_FOUND).await.status.unwrap();
    assert_eq!((status.access, status.plan.as_deref()), (Some(Access::ReadWrite), Some("timed-missing")));
    world.plan("timed-missing-next", json!({})).await;
    let status = world.fleet.ready("acme").await.status.unwrap();
    assert_eq!(
        (status.state, status.plan.as_deref()),
        (Some(TenantState::Active), Some("timed-missing-next"))
    );
}

#[tokio::test]
async fn a_tenant_that_nobody_uses_is_warned_of_and_held_until_somebody_asks_for_it() {
    let world = World::new("timed-idle").await;
    let policy =
        json!({"inactivity": {"warnDays": 60, "holdDays": 90}, "suspensionMode": {"Inactivity": "ReadOnly"}});
    world.plan("timed-idle", policy).await;
    for name in ["idle", "busy"] {
        world.apply(name, json!({"plan": "timed-idle"})).await;
        world.fleet.may(name, Access::ReadWrite).await;
    }
    let uri = world.fleet.secret("busy-db", "uri").await;
    // A first look, to count from.
    let looked = "SELECT bool_and(sessions_seen IS NOT NULL) FROM tenants WHERE slug <> $1";
    world.ahead(DAY);
    world.until("both were looked at", async || world.holds("tenantry_system", looked, "").await).await;
    let mut session = sqlx::PgConnection::connect(&uri).await.unwrap();
    session.execute("SELECT 1").await.unwrap();
    world.ahead(61 * DAY);
    world.told("idle", "Inactive", "nobody has used the tenant since").await;
    let used = "SELECT last_session_at > created_at + interval '60 days' AND inactivity_warned_at IS NULL
                FROM tenants WHERE slug = $1";
    world.until("the other was used", async || world.holds("tenantry_system", used, "busy").await).await;
    session.close().await.unwrap();

    world.ahead(91 * DAY);
    let status = world.fleet.may("idle", Access::ReadOnly).await.status.unwrap();
    assert_eq!(status.holds[0].name, "inactivity");
    assert_eq!(
        world.fleet.tenants.get("busy").await.unwrap().status.unwrap().access,
        Some(Access::ReadWrite)
    );
    let annotations = json!({"metadata": {"annotations": {ANNOTATION_RESUME_REQUESTED_AT: "2027-03-01"}}});
    world.fleet.tenants.patch("idle", &PatchParams::default(), &Patch::Merge(annotations)).await.unwrap();
    let status = world.fleet.may("idle", Access::ReadWrite).await.status.unwrap();
    assert!(status.holds.is_empty());
}

#[tokio::test]
async fn holds_survive_a_deletion_and_an_undelete() {
    let world = World::new("timed-holds").await;
    world.apply("acme", json!({})).await;
    world.fleet.ready("acme").await;
    world.fleet.hold("legal", "acme", json!({"mode": "ReadOnly", "trigger": "TermsViolation"})).await;
    world.fleet.may("acme", Access::ReadOnly).await;
    world.fleet.delete("acme").await;
    // Whoever deletes it now does not let anybody in.
    world.fleet.unhold("legal").await;
    world.apply("acme", json!({})).await;
    let status = world.fleet.may("acme", Access::ReadOnly).await.status.unwrap();
    assert_eq!((status.holds[0].name.as_str(), status.state), ("legal", Some(TenantState::Suspended)));
    // Applied and deleted again, it is lifted.
    world.fleet.hold("legal", "acme", json!({"mode": "ReadOnly", "trigger": "TermsViolation"})).await;
    world.fleet.hold_is("legal", reason::VERIFIED).await;
    world.fleet.unhold("legal").await;
    world.fleet.may("acme", Access::ReadWrite).await;
}

#[tokio::test]
async fn a_namespace_that_is_deleted_lifts_no_hold() {
    let world = World::new("timed-namespace").await;
    world.apply("acme", json!({})).await;
    world.fleet.ready("acme").await;
    world.fleet.hold("legal", "acme", json!({})).await;
    world.fleet.hold_is("legal", reason::VERIFIED).await;
    let kubectl = crate::world::PLANE.kubectl();
    kubectl.run(&["delete", "namespace", world.name]).await.unwrap();
    kubectl.run(&["create", "namespace", world.name]).await.unwrap();
    world.apply("acme", json!({})).await;
    let status = world.fleet.may("acme", Access::Blocked).await.status.unwrap();
    assert_eq!(status.holds[0].name, "legal");
}

#[tokio::test]
async fn a_suspension_waits_for_its_server_and_is_not_said_before() {
    let world = World::new("timed-server").await;
    let second = world.second_server("timed-server-2").await;
    world.apply("acme", json!({"server": "timed-server-2"})).await;
    world.fleet.ready("acme").await;
    second.stop(Stop::Fast).await.unwrap();
    world.fleet.hold("billing", "acme", json!({})).await;
    world.fleet.hold_is("billing", reason::ENFORCING).await;
    let status = world.fleet.reason("acme", READY, reason::SERVER_NOT_READY).await.status.unwrap();
    assert_eq!(status.state, Some(TenantState::Active));
    assert_ne!(status.access, Some(Access::Blocked));
    second.start_again().await.unwrap();
    world.fleet.may("acme", Access::Blocked).await;
    world.fleet.hold_is("billing", reason::VERIFIED).await;
}
