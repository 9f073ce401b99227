//! Who is going or gone is not let in again: not by a restore, and not by hand.

use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};

use crate::world::{World, login};

#[tokio::test]
async fn a_cut_that_is_undone_by_hand_is_made_again_and_what_should_be_gone_is_told_of() {
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

    // A session that was opened meanwhile ends with it.
    let mut open = login(&uris[0].0).await.unwrap();
    for (uri, _) in &uris[..2] {
        world.until("nobody is let in", async || login(uri).await.is_err()).await;
    }
    assert!(open.execute("SELECT 1").await.is_err());
    let cut = "SELECT access = 'Blocked' FROM tenants WHERE slug = $1";
    world.until("it is cut", async || world.holds("tenantry_system", cut, "graced").await).await;
    let told = async || world.fleet.operator_log().contains("a database of a tenant that is gone is there");
    world.until("what should be gone is told of", told).await;
    for name in ["graced", "kept", "gone"] {
        assert!(world.database_exists(&format!("tenant_{name}")).await, "{name}");
    }
}
