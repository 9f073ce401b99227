//! Lost finalizers, objects and registry rows.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use sqlx::Executor;
use tenantry::api::{
    FINALIZER,
    conditions::{DEPROVISIONED, READY, find_condition},
};
use tenantry_test_support::{World, login};

#[tokio::test]
async fn removed_finalizer_is_added_again() {
    let world = World::new("vanished-finalizer").await;
    world.apply("acme", json!({})).await;
    world.fleet.ready("acme").await;
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world.fleet.tenants.patch("acme", &PatchParams::default(), &none).await.unwrap();
    let back = |tenant: Option<&tenantry::api::tenant::Tenant>| {
        tenant.is_some_and(|t| t.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER))
    };
    world.fleet.wait("acme", "claimed again", back).await;
    world.fleet.ready("acme").await;

    // The deletion policy is recorded before the object can vanish.
    world.apply("acme", json!({"deletionPolicy": "Retain"})).await;
    let kept = "SELECT deletion_policy = 'Retain' FROM tenants WHERE slug = $1";
    world.until("its policy is recorded", async || world.holds("tenantry_system", kept, "acme").await).await;
}

#[tokio::test]
async fn tenant_without_registry_row_is_neither_recreated_nor_released() {
    let world = World::new("vanished-row").await;
    world.apply("acme", json!({})).await;
    world.fleet.ready("acme").await;
    let uri = world.fleet.secret("acme-db", "uri").await;
    let mut registry = world.superuser("tenantry_system").await;
    // Bound to another object, as after a restore of the cluster: it is the same tenant.
    registry.execute("UPDATE tenants SET resource_uid = 'of-another-cluster'").await.unwrap();
    world.apply("acme", json!({"displayName": "look"})).await;
    world.fleet.ready("acme").await;
    assert!(
        world.holds("tenantry_system", "SELECT resource_uid <> $1 FROM tenants", "of-another-cluster").await
    );
    // A registry that was restored to an older state.
    registry.execute("SET session_replication_role = replica; DELETE FROM tenants").await.unwrap();
    world.apply("acme", json!({"displayName": "look again"})).await;
    world.fleet.reason("acme", READY, "RegistryRowMissing").await;
    login(&uri).await.unwrap();
    let acme = world.fleet.tenants.delete("acme", &DeleteParams::default()).await.unwrap().left().unwrap();
    let deleted = |tenant: Option<&tenantry::api::tenant::Tenant>| {
        let status = tenant.and_then(|tenant| tenant.status.as_ref());
        status.is_some_and(|status| {
            let condition = find_condition(&status.conditions, DEPROVISIONED);
            condition.is_some_and(|condition| condition.reason == "RegistryRowMissing")
        })
    };
    world.fleet.wait("acme", "held", deleted).await;
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world.fleet.tenants.patch("acme", &PatchParams::default(), &none).await.unwrap();
    world.fleet.deleted("acme", &acme).await;
    assert!(world.database_exists("tenant_acme").await);
}

#[tokio::test]
async fn finalizer_lost_by_replace_is_added_again() {
    let world = World::new("vanished-replace").await;
    world.apply("acme", json!({})).await;
    let id = world.fleet.ready("acme").await.status.unwrap().tenant_id;
    // A whole object, as from a file.
    let replacement = json!({
        "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
        "metadata": {"name": "acme", "namespace": world.name},
        "spec": {"slug": "acme", "displayName": "Acme & Sons", "plan": "starter", "server": world.name},
    });
    let kubectl = world.kubectl();
    // It reads the version that it replaces first: a status that is written just then is a conflict.
    let replaced = world
        .fleet
        .until("it is replaced")
        .observe(async || {
            kubectl.run_with(&["replace", "-f", "-", "-o", "json"], &replacement.to_string()).await
        })
        .await;
    let replaced: tenantry::api::tenant::Tenant = serde_json::from_str(&replaced).unwrap();
    assert!(replaced.metadata.finalizers.is_none());
    let back = |tenant: Option<&tenantry::api::tenant::Tenant>| {
        tenant.is_some_and(|t| t.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER))
    };
    world.fleet.wait("acme", "claimed again", back).await;
    let status = world.fleet.ready("acme").await.status.unwrap();
    assert_eq!(status.tenant_id, id);
    let renamed = "SELECT name = 'Acme & Sons' FROM tenants WHERE slug = $1";
    assert!(world.holds("tenantry_system", renamed, "acme").await);
}

#[tokio::test]
async fn tenant_deleted_without_finalizer_is_revoked_and_kept_a_day() {
    let world = World::new("vanished-object").await;
    world.apply("acme", json!({"offboarding": {"gracePeriodSeconds": 0}})).await;
    let id = world.fleet.ready("acme").await.status.unwrap().tenant_id;
    let uri = world.fleet.secret("acme-db", "uri").await;
    // No operator runs that would add it again.
    world.installation.operator().stop().await.unwrap();
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world.fleet.tenants.patch("acme", &PatchParams::default(), &none).await.unwrap();
    world.fleet.tenants.delete("acme", &DeleteParams::default()).await.unwrap();
    world.installation.operator().start().await.unwrap();

    world.until_status("acme", "deprovisioning").await;
    let kept = "SELECT access = 'Blocked' AND purge_after >= now() + interval '23 hours' FROM tenants WHERE slug = $1";
    world
        .until("its access is revoked and it is kept", async || {
            world.holds("tenantry_system", kept, "acme").await
        })
        .await;
    assert!(login(&uri).await.is_err());
    assert!(world.database_exists("tenant_acme").await);

    world.apply("acme", json!({})).await;
    assert_eq!(world.fleet.ready("acme").await.status.unwrap().tenant_id, id);
    login(&uri).await.unwrap();
}

#[tokio::test]
async fn other_object_of_same_name_delays_no_purge() {
    let world = World::new("vanished-name").await;
    for name in ["held", "named", "swapped"] {
        world.apply(name, json!({})).await;
        world.fleet.ready(name).await;
    }
    let finalizers = async |name: &str, all: &[&str]| {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": all}}));
        world.fleet.tenants.patch(name, &PatchParams::default(), &patch).await.unwrap();
    };
    // Another finalizer keeps the object; ours is released.
    finalizers("held", &[FINALIZER, "backup.example/keep"]).await;
    world.fleet.tenants.delete("held", &DeleteParams::default()).await.unwrap();
    world.until_status("held", "deprovisioning").await;
    let released = |tenant: Option<&tenantry::api::tenant::Tenant>| {
        tenant.is_some_and(|t| !t.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER))
    };
    world.fleet.wait("held", "released", released).await;
    // Another tenant has the name.
    world.fleet.delete("named").await;
    world.apply("named", json!({"slug": "another", "connectionSecretName": "another-db"})).await;
    world.fleet.ready("named").await;
    // And one took it while no operator ran.
    world.installation.operator().stop().await.unwrap();
    finalizers("swapped", &[]).await;
    world.fleet.tenants.delete("swapped", &DeleteParams::default()).await.unwrap();
    world.apply("swapped", json!({"slug": "stranger", "connectionSecretName": "stranger-db"})).await;
    world.installation.operator().start().await.unwrap();
    world.fleet.ready("swapped").await;
    world.until_status("swapped", "deprovisioning").await;

    world.set_clock_ahead(31 * 24 * 3600);
    for slug in ["held", "named", "swapped"] {
        world.until_status(slug, "deprovisioned").await;
        assert!(!world.database_exists(&format!("tenant_{slug}")).await);
    }
    for (name, slug) in [("named", "another"), ("swapped", "stranger")] {
        world.fleet.ready(name).await;
        world.fleet.login(slug).await.unwrap();
    }
    finalizers("held", &[]).await;
}

#[tokio::test]
async fn vanished_tenants_that_wait_do_not_delay_the_drift_check() {
    let world = World::new("lost-waiting").await;
    world.apply("kept", json!({})).await;
    world.fleet.ready("kept").await;
    // Together they would keep a check for longer than this test waits: each waits ten seconds for its row. No operator runs
    // that would write their tombstones before the rows are locked.
    world.installation.operator().stop().await.unwrap();
    let mut registry = world.superuser("tenantry_system").await;
    let lost = "SET session_replication_role = replica;
        INSERT INTO tenants (id, slug, name, plan, status, activated_at, server, database_name, login_name,
            resource_namespace, resource_name, resource_uid)
        SELECT gen_random_uuid(), name, name, 'starter', 'active', now(), 'lost-waiting', name, name, 'lost-waiting', name, name
        FROM generate_series(1, 20) AS n, LATERAL (SELECT 'vanished-' || n AS name) AS v;
        SET session_replication_role = origin";
    registry.execute(lost).await.unwrap();
    let locks = "BEGIN; SELECT FROM tenants WHERE starts_with(slug, 'vanished-') FOR UPDATE";
    registry.execute(locks).await.unwrap();
    world.installation.operator().start().await.unwrap();
    let waits =
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1)";
    let is_waiting = async || world.holds("tenantry_system", waits, "%SET status = 'deprovisioning'%").await;
    world.until("a tombstone waits for its row", is_waiting).await;
    world.superuser("postgres").await.execute("ALTER ROLE tenant_kept_app NOLOGIN").await.unwrap();
    world.event("kept", "DriftRepaired", "NOLOGIN").await;
    world.until("another one waits", is_waiting).await;
    registry.execute("ROLLBACK").await.unwrap();
}
