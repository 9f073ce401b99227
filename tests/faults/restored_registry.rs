//! A registry that was restored to an older state: what it does not know any more is not taken for true.

use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};
use tenantry::api::{
    ANNOTATION_ADOPT_ROW,
    conditions::{READY, find_condition},
    tenant::Tenant,
    tenant_hold::TenantHold,
    tenant_status::Access,
};
use tenantry_test_support::{World, login};

/// Changes the registry as a restore does, without its rules.
pub async fn restore(world: &World, statements: &str) {
    let mut registry = world.superuser("tenantry_system").await;
    registry
        .execute(AssertSqlSafe(format!("SET session_replication_role = replica; {statements}")))
        .await
        .unwrap();
}

async fn write_user(world: &World, name: &str) -> String {
    let mut session = world.fleet.login(name).await.unwrap();
    session.execute("INSERT INTO users (email) VALUES ('kept@acme.example')").await.unwrap();
    world.fleet.secret(&format!("{name}-db"), "uri").await
}

async fn has_user(uri: &str) -> bool {
    let mut session = login(uri).await.unwrap();
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut session).await.unwrap();
    users == 1
}

#[tokio::test]
async fn restored_registry_is_not_believed() {
    let world = World::new("restored-rows").await;
    for name in ["forgotten", "leaving", "held", "outlived"] {
        world.apply(name, json!({})).await;
        world.fleet.ready(name).await;
    }
    let uri = write_user(&world, "forgotten").await;
    for (hold, tenant) in [("security", "held"), ("fraud", "outlived")] {
        world.fleet.apply_hold(hold, tenant, json!({"mode": "Blocked"})).await;
        world.fleet.access(tenant, Access::Blocked).await;
        world.fleet.hold_reason(hold, "Verified").await;
    }
    world.installation.operator().stop().await.unwrap();
    restore(
        &world,
        "UPDATE tenants SET status = 'provisioning', activated_at = NULL, database_exists = false, access = 'Unknown',
             password_verifier = NULL, password_digest = NULL, module_versions = '{}', seed_digest = NULL,
             entitlements = NULL, database_oid = NULL, login_oid = NULL WHERE slug IN ('forgotten', 'leaving');
         UPDATE tenants SET status = 'active', status_reason = NULL, suspended_at = NULL, holds = '[]',
             access = 'ReadWrite' WHERE slug IN ('held', 'outlived')",
    )
    .await;
    world.fleet.tenants.delete("leaving", &DeleteParams::default()).await.unwrap();
    // The object of a hold is lost; the hold stays in force.
    let holds = Api::<TenantHold>::namespaced(world.fleet.client.clone(), world.name);
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    holds.patch("fraud", &PatchParams::default(), &free).await.unwrap();
    holds.delete("fraud", &DeleteParams::default()).await.unwrap();
    world.installation.operator().start().await.unwrap();

    world.event("forgotten", "RegistryBehind", "never activated").await;
    // Its status of before says Ready, too.
    let restored = "SELECT status = 'active' AND access = 'ReadWrite' AND password_verifier IS NOT NULL
                    FROM tenants WHERE slug = $1";
    world
        .until("its row is restored", async || world.holds("tenantry_system", restored, "forgotten").await)
        .await;
    world.fleet.ready("forgotten").await;
    assert!(has_user(&uri).await, "with its data and its password");
    let grace = "SELECT activated_at IS NOT NULL AND purge_started_at IS NULL
                 AND purge_after > now() + interval '29 days' FROM tenants WHERE slug = $1";
    world.until_status("leaving", "deprovisioning").await;
    assert!(world.holds("tenantry_system", grace, "leaving").await);
    assert!(world.database_exists("tenant_leaving").await);

    world.event("outlived", "RegistryBehind", "\"fraud\"").await;
    for tenant in ["held", "outlived"] {
        let placed = "SELECT holds <> '[]' AND access = 'Blocked' AND status = 'suspended' FROM tenants
                      WHERE slug = $1";
        world
            .until("its hold is in force", async || world.holds("tenantry_system", placed, tenant).await)
            .await;
        // It never had access in between.
        let opened = "SELECT NOT EXISTS (SELECT FROM activity a JOIN tenants t ON t.id = a.tenant_id
                      WHERE slug = $1 AND action = 'Resumed')";
        assert!(world.holds("tenantry_system", opened, tenant).await);
        assert!(world.fleet.login(tenant).await.is_err());
    }
}

#[tokio::test]
async fn lost_row_is_written_again_as_asked_for() {
    let world = World::new("restored-lost").await;
    for name in ["acme", "gone"] {
        world.apply(name, json!({})).await;
        world.fleet.ready(name).await;
    }
    // Its slug was used before; the registry still has the row of then.
    let at_once = json!({"offboarding": {"gracePeriodSeconds": 0}});
    world.apply("reused", at_once.clone()).await;
    let earlier = world.fleet.ready("reused").await;
    world.fleet.delete("reused").await;
    world.fleet.deleted("reused", &earlier).await;
    world.until_status("reused", "deprovisioned").await;
    world.apply("reused", at_once).await;
    let reused = world.fleet.ready("reused").await.status.unwrap().tenant_id.unwrap();
    let reused_uri = write_user(&world, "reused").await;
    let earlier = earlier.status.unwrap().tenant_id.unwrap();
    let (uri, kept) = (write_user(&world, "acme").await, write_user(&world, "gone").await);
    let id = world.fleet.ready("acme").await.status.unwrap().tenant_id.unwrap();
    let gone = world.fleet.ready("gone").await;
    let older = format!(
        "DELETE FROM tenants WHERE id <> '{earlier}'; DELETE FROM deletion_receipts;
         UPDATE tenants SET status = 'active', closed_at = NULL, deprovisioned_at = NULL, purge_after = NULL,
             purge_started_at = NULL, database_exists = true, access = 'ReadWrite', updated_at = now()"
    );
    restore(&world, &older).await;
    let adopt = async |name: &str, id: &str| {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION_ADOPT_ROW: id}}}));
        world.fleet.tenants.patch(name, &PatchParams::default(), &patch).await.unwrap();
    };
    world.apply("acme", json!({"displayName": "look"})).await;
    world.fleet.reason("acme", READY, "RegistryRowMissing").await;
    // A hold is not recorded before the row is there.
    world.fleet.apply_hold("billing", "acme", json!({"mode": "ReadOnly"})).await;
    world.fleet.hold_reason("billing", "RegistryRowMissing").await;
    world.event("billing", "RegistryRowMissing", ANNOTATION_ADOPT_ROW).await;

    // Another Tenant with that id in its status: it is not known whose the data is.
    world.apply("copy", json!({"slug": "copy", "paused": true})).await;
    let of_acme = world.fleet.tenants.get("acme").await.unwrap().status.unwrap();
    let copied = json!({"status": {"tenantId": id, "server": of_acme.server, "database": of_acme.database}});
    let params = PatchParams::default();
    world.fleet.tenants.patch_status("copy", &params, &Patch::Merge(copied)).await.unwrap();
    adopt("acme", &id).await;
    let refused = |tenant: Option<&Tenant>| {
        let status = tenant.and_then(|tenant| tenant.status.as_ref());
        let ready = status.and_then(|status| find_condition(&status.conditions, READY));
        ready.is_some_and(|ready| ready.message.contains("/copy has the id"))
    };
    world.fleet.wait("acme", "refused", refused).await;

    // A database with another comment is not the tenant's.
    let mut superuser = world.superuser("postgres").await;
    let comment: String = sqlx::query_scalar(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'tenant_acme'",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    superuser.execute("COMMENT ON DATABASE tenant_acme IS 'of another'").await.unwrap();
    world.fleet.tenants.delete("copy", &DeleteParams::default()).await.unwrap();
    let none = json!({"metadata": {"finalizers": null}});
    // It may have had none.
    let _ = world.fleet.tenants.patch("copy", &params, &Patch::Merge(none)).await;
    world.apply("acme", json!({"displayName": "look at the comment"})).await;
    let refused = |tenant: Option<&Tenant>| {
        let status = tenant.and_then(|tenant| tenant.status.as_ref());
        status.is_some_and(|status| {
            find_condition(&status.conditions, READY)
                .is_some_and(|ready| ready.message.contains("is not that of tenant"))
        })
    };
    world.fleet.wait("acme", "refused", refused).await;
    assert_eq!(world.status("acme").await, None);
    superuser
        .execute(AssertSqlSafe(format!("COMMENT ON DATABASE tenant_acme IS '{comment}'")))
        .await
        .unwrap();
    world.apply("acme", json!({"displayName": "look again"})).await;
    world.fleet.access("acme", Access::ReadOnly).await;
    world.fleet.delete_hold("billing").await;
    world.fleet.access("acme", Access::ReadWrite).await;
    let status = world.fleet.ready("acme").await.status.unwrap();
    assert_eq!((status.tenant_id.as_deref(), status.access), (Some(id.as_str()), Some(Access::ReadWrite)));
    assert!(has_user(&uri).await, "with its data and its password");
    let annotations = world.fleet.tenants.get("acme").await.unwrap().metadata.annotations;
    assert!(!annotations.unwrap_or_default().contains_key(ANNOTATION_ADOPT_ROW), "it is used once");

    // The row of before is closed: nothing is left of that tenant.
    world.apply("reused", json!({"displayName": "look"})).await;
    world.fleet.reason("reused", READY, "RegistryRowMissing").await;
    adopt("reused", &reused).await;
    world.fleet.reason("reused", READY, "Active").await;
    assert_eq!(world.fleet.ready("reused").await.status.unwrap().tenant_id, Some(reused));
    assert!(has_user(&reused_uri).await, "with its data and its password");
    let closed = "SELECT status = 'deprovisioned' FROM tenants WHERE id::text = $1";
    assert!(world.holds("tenantry_system", closed, &earlier).await);

    // One that is deleted has its grace, once its row is there.
    world.fleet.tenants.delete("gone", &DeleteParams::default()).await.unwrap();
    world.fleet.reason("gone", READY, "RegistryRowMissing").await;
    let id = gone.status.as_ref().unwrap().tenant_id.clone().unwrap();
    adopt("gone", &id).await;
    world.fleet.deleted("gone", &gone).await;
    assert_eq!(world.status("gone").await.as_deref(), Some("deprovisioning"));
    assert!(login(&kept).await.is_err());
    world.apply("gone", json!({})).await;
    assert_eq!(world.fleet.ready("gone").await.status.unwrap().tenant_id, Some(id));
    assert!(has_user(&world.fleet.secret("gone-db", "uri").await).await);
}
