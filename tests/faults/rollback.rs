//! `onFailure: Rollback`: a first provisioning that fails for good leaves nothing.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use tenantry::api::{
    conditions::{READY, STALLED, find_condition},
    tenant_status::TenantState,
};
use tenantry_test_support::World;

#[tokio::test]
async fn failed_first_provisioning_is_rolled_back_and_retried() {
    let world = World::new("rollback").await;
    let foreign: Secret =
        serde_json::from_value(json!({"metadata": {"name": "acme-db"}, "stringData": {"mine": "yes"}}))
            .unwrap();
    world.fleet.secrets.create(&PostParams::default(), &foreign).await.unwrap();
    let rollback =
        json!({"provisioning": {"onFailure": "Rollback"}, "admins": [{"email": "a@acme.example"}]});
    world.apply("acme", rollback).await;
    let status = world.fleet.reason("acme", READY, "SecretConflict").await.status.unwrap();
    assert_eq!(status.state, Some(TenantState::Failed));
    assert!(find_condition(&status.conditions, STALLED).is_some());
    let gone =
        "SELECT status = 'failed' AND NOT database_exists AND NOT rolling_back AND password_verifier IS NULL
                FROM tenants WHERE slug = $1";
    world.until("it is rolled back", async || world.holds("tenantry_system", gone, "acme").await).await;
    // It waits for a change now, and creates nothing in vain.
    let (database, role) =
        (world.database_exists("tenant_acme").await, world.role_exists("tenant_acme_app").await);
    assert!(!database && !role, "{database} {role}\n{}", world.fleet.operator_log());
    assert!(world.fleet.secrets.get_opt("acme-admin").await.unwrap().is_none());
    assert_eq!(world.fleet.secret("acme-db", "mine").await, "yes");
    let recorded = "SELECT EXISTS (SELECT FROM activity WHERE action = $1)";
    assert!(world.holds("tenantry_system", recorded, "RolledBack").await);

    world.fleet.secrets.delete("acme-db", &DeleteParams::default()).await.unwrap();
    world.fleet.ready("acme").await;

    // An activated tenant is never rolled back.
    world.fleet.secrets.delete("acme-db", &DeleteParams::default()).await.unwrap();
    world
        .until("a new Secret is there", async || {
            world.fleet.secrets.get_opt("acme-db").await.unwrap().is_some()
        })
        .await;
    assert!(world.database_exists("tenant_acme").await);
}
