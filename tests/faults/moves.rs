//! A Tenant that was renamed, or moved: it reports the tombstone and the way back, is moved with its data, and warns of a
//! fresh start.

use serde_json::json;
use sqlx::Executor;
use tenantry::api::{
    conditions::{READY, find_condition},
    tenant::Tenant,
};
use tenantry_test_support::World;

use crate::restored_registry::restore;

const DAY: i64 = 24 * 3600;

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

    let mut registry = world.superuser("tenantry_system").await;
    registry.execute("SELECT move_tenant('acme', 'moves', 'renamed')").await.unwrap();
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
    registry.execute("SELECT move_tenant('acme', 'moves', 'renamed')").await.unwrap();
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
