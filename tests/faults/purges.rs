//! What a purge waits for, and what it verifies.

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sqlx::Executor;
use tenantry::api::{
    FINALIZER,
    conditions::{READY, REGISTERED},
    plan::TenantPlan,
    tenant_status::Access,
};
use tenantry_test_support::{World, login};

const DAY: i64 = 24 * 3600;

fn deprovisioned(more: Value) -> Value {
    let mut spec = json!({"state": "Deprovisioned", "stateReason": "contract ended"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

#[tokio::test]
async fn deletion_undone_without_leader_is_not_purged() {
    let world = World::new("purges-undone").await;
    let names = ["back", "again", "retained", "longer", "held", "gone"];
    let mut ids = Vec::new();
    for name in names {
        world.apply(name, json!({})).await;
        ids.push(world.fleet.ready(name).await.status.unwrap().tenant_id);
    }
    let mut session = world.fleet.login("back").await.unwrap();
    session.execute("INSERT INTO users (email) VALUES ('kept@back.example')").await.unwrap();
    drop(session);
    for name in names {
        match name {
            "again" | "gone" => world.fleet.delete(name).await,
            _ => drop(world.apply(name, deprovisioned(json!({}))).await),
        }
        world.until_status(name, "deprovisioning").await;
    }
    world.installation.operator().stop().await.unwrap();

    // Every way to restore a tenant, and every way to keep its data.
    world.apply("back", json!({})).await;
    world.apply("again", json!({})).await;
    world.apply("retained", deprovisioned(json!({"deletionPolicy": "Retain"}))).await;
    world.apply("longer", deprovisioned(json!({"offboarding": {"gracePeriodSeconds": 60 * DAY}}))).await;
    world.apply("held", deprovisioned(json!({"paused": true}))).await;
    world.set_clock_ahead(31 * DAY);
    world.installation.operator().start().await.unwrap();

    world.until_status("gone", "deprovisioned").await;
    world.until_status("retained", "deprovisioned").await;
    for (name, id) in names.iter().zip(ids).take(2) {
        assert_eq!(world.fleet.ready(name).await.status.unwrap().tenant_id, id, "{name}");
    }
    let mut session = world.fleet.login("back").await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut session).await.unwrap();
    assert_eq!(kept, 1);
    for name in ["retained", "longer", "held"] {
        assert!(world.database_exists(&format!("tenant_{name}")).await, "{name}");
    }
    for name in ["longer", "held"] {
        assert_eq!(world.status(name).await.as_deref(), Some("deprovisioning"), "{name}");
    }
}

#[tokio::test]
async fn deleted_plan_does_not_shorten_grace_periods() {
    let world = World::new("purges-plan").await;
    let plans = Api::<TenantPlan>::all(world.fleet.client.clone());
    let plan = async |days: i64| {
        let object = json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantPlan",
            "metadata": {"name": "purges-plan"},
            "spec": {"limits": {}, "graceSeconds": {"TermsViolation": days * DAY}}});
        plans
            .patch("purges-plan", &PatchParams::apply("tests").force(), &Patch::Apply(object))
            .await
            .unwrap();
    };
    plan(30).await;
    let leaving =
        || deprovisioned(json!({"plan": "purges-plan", "offboarding": {"trigger": "TermsViolation"}}));
    world.apply("living", json!({"plan": "purges-plan"})).await;
    world.fleet.ready("living").await;
    world.apply("acme", json!({"plan": "purges-plan"})).await;
    world.fleet.ready("acme").await;
    world.apply("acme", leaving()).await;
    world.until_status("acme", "deprovisioning").await;
    // An existing plan may shorten the grace period, at once.
    plan(20).await;
    let days = "SELECT purge_after = deprovisioned_at + interval '20 days' FROM tenants WHERE slug = $1";
    world.until("twenty days", async || world.holds("tenantry_system", days, "acme").await).await;

    // It is in use: it is deleted only when its finalizer is removed by hand. It gets that some time after its tenants.
    let guarded =
        async || plans.get("purges-plan").await.unwrap().finalizers().iter().any(|name| name == FINALIZER);
    world.until("the plan has its finalizer", guarded).await;
    plans.delete("purges-plan", &DeleteParams::default()).await.unwrap();
    let free = json!({"metadata": {"finalizers": null}});
    plans.patch("purges-plan", &PatchParams::default(), &Patch::Merge(free)).await.unwrap();
    world.fleet.reason("living", READY, "PlanNotFound").await;
    // A tenant without a grace period of its own has a day at least.
    world.apply("living", leaving()).await;
    world.until_status("living", "deprovisioning").await;
    let day = "SELECT purge_after = deprovisioned_at + interval '1 day' FROM tenants WHERE slug = $1";
    assert!(world.holds("tenantry_system", day, "living").await);
    world.set_clock_ahead(2 * DAY);
    world.until_status("living", "deprovisioned").await;
    assert!(world.database_exists("tenant_acme").await);
    assert!(world.holds("tenantry_system", days, "acme").await);
    world.set_clock_ahead(21 * DAY);
    world.until_status("acme", "deprovisioned").await;
}

#[tokio::test]
async fn foreign_database_or_login_proves_no_revocation_and_no_drop() {
    let world = World::new("purges-foreign").await;
    for name in ["acme", "other"] {
        world.apply(name, json!({})).await;
        world.fleet.ready(name).await;
    }
    let uri = world.fleet.secret("other-db", "uri").await.replace("tenant_other_app", "aside");
    let mut superuser = world.superuser("postgres").await;

    // A foreign database: the tenant's own has another name. The two are exchanged in one transaction, here and at the end:
    // where the tenant's own is seen to be gone, it counts as dropped.
    world.fleet.delete("acme").await;
    superuser.execute("CREATE DATABASE foreign_acme").await.unwrap();
    let exchange =
        "ALTER DATABASE tenant_acme RENAME TO elsewhere; ALTER DATABASE foreign_acme RENAME TO tenant_acme";
    superuser.execute(exchange).await.unwrap();
    world.set_clock_ahead(31 * DAY);
    let waits = async || std::fs::read_to_string(world.fleet.log()).unwrap().contains("reason=\"Conflict\"");
    world.until("the tombstone waits", waits).await;
    assert_eq!(world.status("acme").await.as_deref(), Some("deprovisioning"));
    let kept = "SELECT database_exists AND purge_started_at IS NULL FROM tenants WHERE slug = $1";
    assert!(world.holds("tenantry_system", kept, "acme").await);
    let back =
        "ALTER DATABASE tenant_acme RENAME TO foreign_acme; ALTER DATABASE elsewhere RENAME TO tenant_acme";
    superuser.execute(back).await.unwrap();
    world.until_status("acme", "deprovisioned").await;
    assert!(!world.database_exists("tenant_acme").await);

    // A foreign login: the tenant's own has another name, and loses its access under that. (SCRAM survives a rename.) While the
    // tenant is active, the operator would give it its name back.
    world.installation.operator().stop().await.unwrap();
    superuser.execute("ALTER ROLE tenant_other_app RENAME TO aside").await.unwrap();
    login(&uri).await.unwrap();
    superuser.execute("CREATE ROLE tenant_other_app").await.unwrap();
    world.apply("other", deprovisioned(json!({}))).await;
    world.installation.operator().start().await.unwrap();
    world.until_status("other", "deprovisioning").await;
    let status = world.fleet.reason("other", READY, "Conflict").await.status.unwrap();
    assert_ne!(status.access, Some(Access::Blocked));
    world.until("the renamed login is refused", async || login(&uri).await.is_err()).await;
    superuser
        .execute("DROP ROLE tenant_other_app; ALTER ROLE aside RENAME TO tenant_other_app")
        .await
        .unwrap();
    world.apply("other", deprovisioned(json!({"displayName": "look again"}))).await;
    world.fleet.reason("other", READY, "GracePeriod").await;
    assert!(login(&uri.replace("aside", "tenant_other_app")).await.is_err());
}

#[tokio::test]
async fn purge_that_failed_halfway_continues_after_reapply() {
    let world = World::new("purges-half").await;
    world.apply("acme", json!({})).await;
    let before = world.fleet.ready("acme").await.status.unwrap().tenant_id;
    // Only a superuser can end this session.
    let blocking = world.superuser("tenant_acme").await;
    world.fleet.delete("acme").await;
    world.set_clock_ahead(31 * DAY);
    let begun = "SELECT purge_started_at IS NOT NULL FROM tenants WHERE slug = $1";
    world.until("the purge has begun", async || world.holds("tenantry_system", begun, "acme").await).await;
    world.apply("acme", json!({})).await;
    world.fleet.reason("acme", REGISTERED, "SlugTaken").await;
    drop(blocking);
    let after = world.fleet.ready("acme").await.status.unwrap().tenant_id;
    assert_ne!(after, before, "a new tenant, once the former one is gone");
}
