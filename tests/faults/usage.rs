//! Usage across restarts: who is idle is left alone, and what was written while nobody looked is found.

use serde_json::json;
use sqlx::{Connection, Executor};

use crate::world::World;

impl World {
    /// Whether the sampler has read a tenant's counters.
    async fn is_counted(&self, slug: &str) -> bool {
        let query = "SELECT EXISTS (SELECT FROM usage u JOIN tenants t ON t.id = u.tenant_id
                     WHERE t.slug = $1 AND u.counted_at_writes IS NOT NULL)";
        self.holds("tenantry_system", query, slug).await
    }

    /// How many sessions were ever begun in a tenant's database.
    async fn sessions(&self, database: &str) -> i64 {
        let query = "SELECT sessions FROM pg_stat_database WHERE datname = $1";
        sqlx::query_scalar(query)
            .bind(database)
            .fetch_one(&mut self.superuser("postgres").await)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_restart_wakes_no_idle_tenant_and_finds_what_others_wrote() {
    let world = World::new("usage-restart").await;
    for name in ["idle", "busy"] {
        world.apply(name, json!({"plan": "free"})).await;
    }
    for name in ["idle", "busy"] {
        world.fleet.ready(name).await;
    }
    world.ahead(120);
    for name in ["idle", "busy"] {
        world.until("counted", async || world.is_counted(name).await).await;
    }
    let (idle, operator) = (world.sessions("tenant_idle").await, world.installation.operator());
    operator.kill().await.unwrap();
    let mut session = world.fleet.login("busy").await.unwrap();
    session.execute("INSERT INTO users (email) VALUES ('a@x.example'), ('b@x.example')").await.unwrap();
    session.close().await.unwrap();
    world.free_the_lease().await;
    operator.start().await.unwrap();

    // One that comes later is counted, and so is the one that was written to; so all were looked at.
    world.apply("later", json!({"plan": "free"})).await;
    world.fleet.ready("later").await;
    world.ahead(300);
    world.until("counted", async || world.is_counted("later").await).await;
    let users = |usage: &serde_json::Value| usage["users"] == 2;
    let query = "SELECT u.amounts FROM usage u JOIN tenants t ON t.id = u.tenant_id WHERE t.slug = 'busy'";
    world
        .until("the users who came meanwhile are counted", async || {
            let mut session = world.superuser("tenantry_system").await;
            users(&sqlx::query_scalar(query).fetch_one(&mut session).await.unwrap())
        })
        .await;
    assert_eq!(world.sessions("tenant_idle").await, idle);
}

#[tokio::test]
async fn a_database_that_was_open_to_the_migrator_when_the_operator_died_is_shut() {
    let world = World::new("usage-open").await;
    world.apply("left", json!({"plan": "free"})).await;
    world.fleet.ready("left").await;
    let is_open =
        "SELECT has_database_privilege('tenantry_migrator', 'tenant_left', 'CONNECT') = $1::boolean";
    let until_open_is = async |wanted: &str| {
        let looked = async || world.holds("postgres", is_open, wanted).await;
        world.until(&format!("open to the migrator: {wanted}"), looked).await;
    };
    let mut administrator = world.superuser("tenant_left").await;
    administrator.execute("BEGIN; LOCK TABLE tenantry.counters").await.unwrap();
    world.ahead(120);
    until_open_is("true").await;
    let operator = world.installation.operator();
    operator.kill().await.unwrap();
    administrator.close().await.unwrap();
    // Nobody enters the database of a tenant that leaves.
    let leaves = json!({"plan": "free", "state": "Deprovisioned", "stateReason": "a test", "offboarding": {"gracePeriodSeconds": 86400}});
    world.apply("left", leaves).await;
    world.free_the_lease().await;
    operator.start().await.unwrap();
    world.until_status("left", "deprovisioning").await;
    until_open_is("false").await;
}
