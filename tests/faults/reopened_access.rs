//! Access to a tenant that is being deprovisioned, granted again by hand or by a restore, is revoked again.

use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};
use tenantry_test_support::{World, login};

#[tokio::test]
async fn reopened_access_is_revoked_and_leftover_database_reported() {
    let world = World::new("cuts").await;
    world.apply("graced", json!({})).await;
    world.apply("kept", json!({"deletionPolicy": "Retain", "offboarding": {"gracePeriodSeconds": 0}})).await;
    world.apply("gone", json!({"offboarding": {"gracePeriodSeconds": 0}})).await;
    let mut uris = Vec::new();
    for name in ["graced", "kept", "gone"] {
        let id = world.fleet.ready(name).await.status.unwrap().tenant_id.unwrap();
        uris.push((world.fleet.secret(&format!("{name}-db"), "uri").await, id));
        world.fleet.delete(name).await;
    }
    world.until_status("kept", "deprovisioned").await;
    let mut superuser = world.superuser("postgres").await;
    for name in ["graced", "kept"] {
        let back = format!(
            "ALTER ROLE tenant_{name}_app LOGIN; GRANT tenantry_rw TO tenant_{name}_app;
             GRANT CONNECT ON DATABASE tenant_{name} TO tenant_{name}_app"
        );
        superuser.execute(AssertSqlSafe(back)).await.unwrap();
    }
    let mark = format!("COMMENT ON DATABASE tenant_gone IS 'tenantry:tenant:{}'", uris[2].1);
    superuser.execute("CREATE DATABASE tenant_gone").await.unwrap();
    superuser.execute(AssertSqlSafe(mark)).await.unwrap();

    // A session that was opened meanwhile is ended.
    let mut open = login(&uris[0].0).await.unwrap();
    for (uri, _) in &uris[..2] {
        world.until("the login is refused", async || login(uri).await.is_err()).await;
    }
    assert!(open.execute("SELECT 1").await.is_err());
    let cut = "SELECT access = 'Blocked' FROM tenants WHERE slug = $1";
    world
        .until("the revocation is recorded", async || world.holds("tenantry_system", cut, "graced").await)
        .await;
    let reported = async || world.fleet.operator_log().contains("drop it by hand");
    world.until("the leftover database is reported", reported).await;
    for name in ["graced", "kept", "gone"] {
        assert!(world.database_exists(&format!("tenant_{name}")).await, "{name}");
    }
}
