//! PostgreSQL or the API server is unavailable while many tenants are provisioned.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tenantry_dev::{PostgresOptions, Stop, interposer::Fault};
use tenantry_test_support::{PATIENCE, World, names};

/// How long an outage lasts, and how many tenants are provisioned.
#[derive(Clone, Copy)]
struct Outage {
    length: Duration,
    tenants: usize,
    /// A tenant is Ready this soon after the outage.
    recovery: Duration,
}

/// Longer than a leader goes on without its Lease.
const SHORT: Outage =
    Outage { length: Duration::from_secs(12), tenants: 15, recovery: Duration::from_secs(90) };
const LONG: Outage =
    Outage { length: Duration::from_secs(30), tenants: 50, recovery: Duration::from_secs(30) };

impl Outage {
    /// Waits for its length: what is measured is what happens meanwhile.
    async fn pass(self) {
        assert!(tokio::time::timeout(self.length, std::future::pending::<()>()).await.is_err());
    }

    /// The most connections and requests: each tenant is tried again after 1, 2, 4 … s, with a few of them each time, and what
    /// concerns no tenant is tried every second or two.
    fn most_attempts(self) -> u64 {
        20 * self.tenants as u64 + 20 * self.length.as_secs()
    }

    /// Waits until the first tenants are active.
    async fn until_first_active(self, world: &World) {
        let active = "SELECT count(*) FILTER (WHERE status = 'active') >= $1 FROM tenants";
        let first = i64::try_from(self.tenants / 5).unwrap();
        world
            .until("the first tenants are active", async || {
                world.holds_number("tenantry_system", active, first).await
            })
            .await;
    }

    /// Waits until all tenants are Ready, and says how long that takes.
    async fn recovered(self, world: &World, all: &[String], since: Instant) -> Duration {
        join_all(all.iter().map(|name| world.fleet.ready(name))).await;
        let took = since.elapsed();
        assert!(took < self.recovery, "{took:?}");
        world.all_usable(all).await;
        took
    }
}

#[tokio::test]
async fn tenants_recover_after_postgresql_outage() {
    postgresql_outage("outage-postgres", SHORT).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn fifty_tenants_recover_after_postgresql_outage_of_30_seconds() {
    postgresql_outage("outage-postgres-30", LONG).await;
}

async fn postgresql_outage(name: &'static str, outage: Outage) {
    let world = World::interposed(name, PostgresOptions::default()).await;
    let interposer = world.installation.interposer().unwrap();
    let all = names("away", outage.tenants);
    join_all(all.iter().map(|name| world.apply(name, json!({})))).await;
    outage.until_first_active(&world).await;
    world.installation.postgres().stop(Stop::Fast).await.unwrap();
    let (postgres, api) = (interposer.postgres().totals(), interposer.api().totals());
    outage.pass().await;
    let connections = interposer.postgres().totals().connections - postgres.connections;
    let requests = interposer.api().totals().requests - api.requests;
    world.installation.postgres().start_again().await.unwrap();
    let recovery = outage.recovered(&world, &all, Instant::now()).await;
    println!(
        "outage: {connections} connections and {requests} requests in {:?}; \
         all Ready again after {:.1} s",
        outage.length,
        recovery.as_secs_f64()
    );
    assert!(connections + requests < outage.most_attempts(), "{connections} + {requests}");
}

#[tokio::test]
async fn tenants_recover_after_api_server_outage() {
    api_server_outage("outage-api", SHORT).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn fifty_tenants_recover_after_api_server_outage_of_30_seconds() {
    api_server_outage("outage-api-30", LONG).await;
}

async fn api_server_outage(name: &'static str, outage: Outage) {
    let world = World::interposed(name, PostgresOptions::default()).await;
    let interposer = world.installation.interposer().unwrap();
    let all = names("cut", outage.tenants);
    join_all(all.iter().map(|name| world.apply(name, json!({})))).await;
    outage.until_first_active(&world).await;
    interposer.api().set(Fault::Refuse);
    let before = interposer.api().totals();
    outage.pass().await;
    let connections = interposer.api().totals().connections - before.connections;
    // A leader that cannot renew its Lease exits; the kubelet starts it again. It exits before the outage ends.
    let operator = world.installation.operator();
    assert!(operator.service().exits_within(PATIENCE).await, "the leader exits");
    interposer.api().set(Fault::Pass);
    let back = Instant::now();
    operator.start_standby().await.unwrap();
    let recovery = outage.recovered(&world, &all, back).await;
    println!(
        "outage: {connections} connections in {:?}; all Ready again after {:.1} s",
        outage.length,
        recovery.as_secs_f64()
    );
    assert!(connections < outage.length.as_secs() * 20, "{connections}");
}
