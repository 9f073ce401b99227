//! A DatabaseServer whose address leads to another server: missing databases are not taken for dropped ones.

use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tenantry::api::{
    ANNOTATION_ACCEPT_SERVER,
    conditions::{READY, STALLED, find_condition},
    database_server::DatabaseServer,
};
use tenantry_dev::{Postgres, PostgresOptions, Version};
use tenantry_test_support::{World, prepared_postgres};

async fn has(postgres: &Postgres, database: &str) -> bool {
    let mut session = postgres.connect("postgres").await.unwrap();
    let query = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    sqlx::query_scalar(query).bind(database).fetch_one(&mut session).await.unwrap()
}

#[tokio::test]
async fn replaced_server_is_not_used() {
    let world = World::new("replaced").await;
    let first = world.second_server("replaced-2").await;
    // Another version: here, servers of one version are copies with the same system identifier.
    let mut session = first.connect("postgres").await.unwrap();
    let version = "SELECT current_setting('server_version_num')::int / 10000";
    let version: i32 = sqlx::query_scalar(version).fetch_one(&mut session).await.unwrap();
    let version = Version::Major(if version == 15 { 18 } else { 15 });
    let other = prepared_postgres(PostgresOptions { version, ..PostgresOptions::default() }).await;
    for name in ["acme", "kept"] {
        world.apply(name, json!({"server": "replaced-2", "offboarding": {"gracePeriodSeconds": 0}})).await;
        world.fleet.ready(name).await;
    }
    let servers = Api::<DatabaseServer>::all(world.fleet.client.clone());
    let patch = async |patch: Value| {
        servers.patch("replaced-2", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    let ready = async || {
        let status = servers.get("replaced-2").await.unwrap().status.unwrap_or_default();
        let ready = find_condition(&status.conditions, READY).cloned().unwrap();
        (ready.status, ready.reason, find_condition(&status.conditions, STALLED).is_some(), ready.message)
    };
    let is_ready = async || ready().await.0 == "True";
    let is_refused = async || {
        let (_, why, stalled, _) = ready().await;
        why == "ServerReplaced" && stalled
    };

    patch(json!({"spec": {"port": other.port()}})).await;
    world.until("the other server is refused", is_refused).await;
    let deleted = world.fleet.tenants.get("acme").await.unwrap();
    world.fleet.tenants.delete("acme", &DeleteParams::default()).await.unwrap();
    world.until_status("acme", "deprovisioning").await;
    world.fleet.reason("acme", READY, "ServerNotReady").await;
    patch(json!({"spec": {"port": first.port()}})).await;
    world.until("the first one is back", is_ready).await;
    world.fleet.deleted("acme", &deleted).await;
    assert!(!has(&first, "tenant_acme").await && has(&first, "tenant_kept").await);

    // On purpose: a user confirms it, and missing databases are reported then.
    patch(json!({"spec": {"port": other.port()}})).await;
    world.until("the other server is refused", is_refused).await;
    let message = ready().await.3;
    let identifier = message.rsplit('"').nth(1).unwrap();
    patch(json!({"metadata": {"annotations": {ANNOTATION_ACCEPT_SERVER: identifier}}})).await;
    world.until("the other server is accepted", is_ready).await;
    world.fleet.reason("kept", READY, "DatabaseMissing").await;
    assert!(has(&first, "tenant_kept").await);
}
