//! Usage across restarts: idle tenants are not read, and what was written meanwhile is counted.

use serde_json::json;
use sqlx::{Connection, Executor};
use tenantry_dev::PostgresOptions;
use tenantry_test_support::{Options, World};

/// Whether the sampler has read a tenant's counters.
async fn is_counted(world: &World, slug: &str) -> bool {
    let query = "SELECT EXISTS (SELECT FROM usage u JOIN tenants t ON t.id = u.tenant_id
                 WHERE t.slug = $1 AND u.counted_at_writes IS NOT NULL)";
    world.holds("tenantry_system", query, slug).await
}

/// Waits until a tenant's database has no session: one has reported its writes, and is counted itself, when it has ended.
async fn sessions_end(world: &World, database: &str) {
    let ended = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1)";
    world.until("its sessions have ended", async || world.holds("postgres", ended, database).await).await;
}

/// How many sessions were ever begun in a tenant's database.
async fn sessions(world: &World, database: &str) -> i64 {
    let query = "SELECT sessions FROM pg_stat_database WHERE datname = $1";
    sqlx::query_scalar(query).bind(database).fetch_one(&mut world.superuser("postgres").await).await.unwrap()
}

#[tokio::test]
async fn restart_reads_no_idle_tenant_and_counts_new_writes() {
    // Autovacuum writes statistics of shared catalogs to any database: then none is idle.
    let settings = vec![("autovacuum".to_owned(), "off".to_owned())];
    let postgres = PostgresOptions { settings, ..PostgresOptions::default() };
    let world = World::with("usage-restart", Options { postgres, ..Options::default() }).await;
    for name in ["idle", "busy"] {
        world.apply(name, json!({"plan": "free"})).await;
    }
    for name in ["idle", "busy"] {
        world.fleet.ready(name).await;
    }
    sessions_end(&world, "tenant_idle").await;
    sessions_end(&world, "tenant_busy").await;
    world.set_clock_ahead(120);
    for name in ["idle", "busy"] {
        world.until("counted", async || is_counted(&world, name).await).await;
    }
    sessions_end(&world, "tenant_idle").await;
    let (idle, operator) = (sessions(&world, "tenant_idle").await, world.installation.operator());
    operator.kill().await.unwrap();
    let mut session = world.fleet.login("busy").await.unwrap();
    session.execute("INSERT INTO users (email) VALUES ('a@x.example'), ('b@x.example')").await.unwrap();
    session.close().await.unwrap();
    world.delete_lease().await;
    operator.start().await.unwrap();

    // A later tenant is counted, and so is the one that was written to: all were checked.
    world.apply("later", json!({"plan": "free"})).await;
    world.fleet.ready("later").await;
    world.set_clock_ahead(300);
    world.until("counted", async || is_counted(&world, "later").await).await;
    let users = |usage: &serde_json::Value| usage["users"] == 2;
    let query = "SELECT u.amounts FROM usage u JOIN tenants t ON t.id = u.tenant_id WHERE t.slug = 'busy'";
    world
        .until("the users who came meanwhile are counted", async || {
            let mut session = world.superuser("tenantry_system").await;
            users(&sqlx::query_scalar(query).fetch_one(&mut session).await.unwrap())
        })
        .await;
    assert_eq!(sessions(&world, "tenant_idle").await, idle);
}

#[tokio::test]
async fn login_of_a_session_is_taken_away_after_a_crash() {
    let world = World::new("usage-open").await;
    world.apply("left", json!({"plan": "free"})).await;
    world.fleet.ready("left").await;
    let is_open = "SELECT EXISTS (SELECT FROM pg_roles
        WHERE shobj_description(oid, 'pg_authid') = 'tenantry:session:tenant_left') = $1::boolean";
    let until_open_is = async |wanted: &str| {
        let looked = async || world.holds("postgres", is_open, wanted).await;
        world.until(&format!("there is a login of a session: {wanted}"), looked).await;
    };
    let mut administrator = world.superuser("tenant_left").await;
    administrator.execute("BEGIN; LOCK TABLE tenantry.counters").await.unwrap();
    // Whatever the sampler has seen before, it sees this write, and reads the counters.
    let mut writing = world.superuser("tenant_left").await;
    writing.execute("CREATE TABLE public.written AS SELECT generate_series(1, 10)").await.unwrap();
    writing.close().await.unwrap();
    world.set_clock_ahead(120);
    until_open_is("true").await;
    let operator = world.installation.operator();
    operator.kill().await.unwrap();
    administrator.close().await.unwrap();
    // The operator does not connect to the database of a tenant that is being deprovisioned.
    let deprovisioned = json!({"plan": "free", "state": "Deprovisioned", "stateReason": "a test", "offboarding": {"gracePeriodSeconds": 86400}});
    world.apply("left", deprovisioned).await;
    world.delete_lease().await;
    operator.start().await.unwrap();
    world.until_status("left", "deprovisioning").await;
    until_open_is("false").await;
}
