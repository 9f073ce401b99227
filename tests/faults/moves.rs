//! A Tenant that was renamed, or moved: it reports the tombstone and the way back, is moved with its data, and warns of a
//! fresh start.

use kube::api::{Patch, PatchParams};
use serde_json::json;
use sqlx::Executor;
use tenantry::api::{
    ANNOTATION_ADOPT_ROW,
    conditions::{READY, REGISTERED, find_condition},
    tenant::Tenant,
};
use tenantry_test_support::World;

use crate::restored_registry::restore;

const DAY: i64 = 24 * 3600;

/// Moves a tenant as soon as the registry permits it. It does not while a workflow runs: a deprovisioning ends a moment after
/// its object is released, and a purge that was refused is tried again.
async fn moved(world: &World, statement: &'static str) {
    let mut registry = world.superuser("tenantry_system").await;
    let wait = world.fleet.until("no workflow keeps the tenant from being moved");
    wait.observe(async || match registry.execute(statement).await {
        Ok(_) => Ok(()),
        Err(error) if error.as_database_error().is_some_and(|it| it.code().as_deref() == Some("TN002")) => {
            Err(error)
        }
        Err(error) => panic!("{error}"),
    })
    .await;
}

#[tokio::test]
async fn renamed_tenant_reports_its_tombstone_and_is_moved_with_its_data() {
    let world = World::new("moves").await;
    world.apply("acme", json!({})).await;
    let id = world.fleet.ready("acme").await.status.unwrap().tenant_id;
    let mut session = world.fleet.login("acme").await.unwrap();
    session.execute("INSERT INTO users (email) VALUES ('kept@acme.example')").await.unwrap();
    drop(session);
    let says = |text: &'static str| {
        move |tenant: Option<&Tenant>| {
            let status = tenant.and_then(|tenant| tenant.status.as_ref());
            status
                .and_then(|status| find_condition(&status.conditions, READY))
                .is_some_and(|ready| ready.reason == "SlugTaken" && ready.message.contains(text))
        }
    };
    world.apply("renamed", json!({"slug": "acme"})).await;
    world.fleet.wait("renamed", "refused", says("is taken by Tenant moves/acme (active)")).await;
    world.fleet.delete("acme").await;
    // At once, not at the next retry.
    world.fleet.wait("renamed", "refused by the tombstone", says("apply Tenant moves/acme again")).await;

    moved(&world, "SELECT move_tenant('acme', 'moves', 'renamed')").await;
    world.apply("renamed", json!({"slug": "acme", "displayName": "moved"})).await;
    let status = world.fleet.ready("renamed").await.status.unwrap();
    assert_eq!(status.tenant_id, id);
    let mut session = world.fleet.login("renamed").await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut session).await.unwrap();
    assert_eq!(kept, 1);
    drop(session);

    // A registry that is older than the move has a tombstone that is due: the Tenant's id keeps its data.
    world.installation.operator().stop().await.unwrap();
    let older = "UPDATE tenants SET status = 'deprovisioning', resource_name = 'acme', resource_uid = 'old', access = 'Blocked',
            deprovisioned_at = now() - interval '2 hours', purge_after = now() - interval '1 hour',
            offboarding_trigger = 'CustomerRequest' WHERE slug = 'acme'";
    restore(&world, older).await;
    world.installation.operator().start().await.unwrap();
    let refusal = "Tenant moves/renamed has the id of this tenant in its status";
    let is_refused = async || std::fs::read_to_string(world.fleet.log()).unwrap().contains(refusal);
    world.until("the purge is refused", is_refused).await;
    assert!(world.database_exists("tenant_acme").await);
    moved(&world, "SELECT move_tenant('acme', 'moves', 'renamed')").await;
    world.apply("renamed", json!({"slug": "acme", "displayName": "moved again"})).await;
    assert_eq!(world.fleet.ready("renamed").await.status.unwrap().tenant_id, id);
    let mut session = world.fleet.login("renamed").await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut session).await.unwrap();
    assert_eq!(kept, 1);
    drop(session);

    // Once the data is deleted, a Tenant with this slug starts empty, and says so.
    world.fleet.delete("renamed").await;
    world.set_clock_ahead(31 * DAY);
    world.until_status("acme", "deprovisioned").await;
    world.apply("later", json!({"slug": "acme"})).await;
    world.event("later", "SlugReused", "belonged to Tenant moves/renamed").await;
    assert_ne!(world.fleet.ready("later").await.status.unwrap().tenant_id, id);
}

#[tokio::test]
async fn tenant_whose_row_is_elsewhere_is_neither_registered_afresh_nor_purged_under_a_hold() {
    let world = World::new("moved-away").await;
    world.apply("acme", json!({})).await;
    let id = world.fleet.ready("acme").await.status.unwrap().tenant_id.unwrap();
    let mut session = world.fleet.login("acme").await.unwrap();
    session.execute("INSERT INTO users (email) VALUES ('kept@acme.example')").await.unwrap();
    drop(session);
    let leaving = json!({"state": "Deprovisioned", "stateReason": "it is moved"});
    world.apply("acme", leaving.clone()).await;
    world.fleet.reason("acme", READY, "GracePeriod").await;

    // The object of before still exists, and does not get the tenant back.
    moved(&world, "SELECT move_tenant('acme', 'moved-away', 'renamed')").await;
    world.fleet.reason("acme", REGISTERED, "BoundElsewhere").await;
    world.apply("acme", json!({})).await;
    world.fleet.reason("acme", READY, "BoundElsewhere").await;
    world.apply("renamed", json!({"slug": "acme"})).await;
    assert_eq!(world.fleet.ready("renamed").await.status.unwrap().tenant_id.as_ref(), Some(&id));
    let former = world.fleet.tenants.get("acme").await.unwrap();
    world.fleet.delete("acme").await;
    world.fleet.deleted("acme", &former).await;

    // A registry that is older than the move: from another namespace, an annotation does not take the tenant over.
    let older = |namespace: &str| {
        format!(
            "UPDATE tenants SET resource_namespace = '{namespace}', resource_name = 'acme', resource_uid = 'older',
                 updated_at = now();
             DELETE FROM activity WHERE action = 'Moved'"
        )
    };
    restore(&world, &older("of-a-neighbour")).await;
    world.fleet.reason("renamed", READY, "BoundElsewhere").await;
    let adopt = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION_ADOPT_ROW: id}}}));
    world.fleet.tenants.patch("renamed", &PatchParams::default(), &adopt).await.unwrap();
    let refused = |tenant: Option<&Tenant>| {
        let status = tenant.and_then(|tenant| tenant.status.as_ref());
        let ready = status.and_then(|status| find_condition(&status.conditions, READY));
        ready.is_some_and(|ready| ready.message.contains("which is in another namespace"))
    };
    world.fleet.wait("renamed", "refused", refused).await;
    // Of the same namespace, it does.
    restore(&world, &older("moved-away")).await;
    world.apply("renamed", json!({"slug": "acme", "displayName": "look again"})).await;
    world.fleet.reason("renamed", READY, "Active").await;
    let mut session = world.fleet.login("renamed").await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut session).await.unwrap();
    assert_eq!(kept, 1);
    drop(session);

    // A tombstone that is due, of before the move: a legal hold on the Tenant of now counts.
    world.installation.operator().stop().await.unwrap();
    restore(
        &world,
        "UPDATE tenants SET status = 'deprovisioning', resource_name = 'acme', resource_uid = 'older', access = 'Blocked',
             deprovisioned_at = now() - interval '2 hours', purge_after = now() - interval '1 hour',
             offboarding_trigger = 'CustomerRequest'",
    )
    .await;
    world.fleet.apply_hold("litigation", "renamed", json!({"mode": "None", "preserve": true})).await;
    world
        .apply("renamed", json!({"slug": "acme", "state": "Deprovisioned", "stateReason": "it leaves"}))
        .await;
    world.installation.operator().start().await.unwrap();
    let held = "SELECT legal_hold AND purge_started_at IS NULL FROM tenants WHERE slug = $1";
    world.until("the hold is found", async || world.holds("tenantry_system", held, "acme").await).await;
    assert!(world.database_exists("tenant_acme").await);
}
