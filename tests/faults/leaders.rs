//! One operator leads at a time, and one that lost its Lease changes nothing more.

use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, api::ListParams};
use serde_json::json;
use sqlx::Executor;
use tenantry_dev::{Operator, process::Signal};
use tenantry_test_support::{Options, PATIENCE, World};

/// The metric that shows whether the process leads.
async fn metric(operator: &Operator) -> String {
    let metrics = operator.metrics().await.unwrap();
    metrics.lines().find(|line| line.starts_with("tenantry_leader ")).unwrap().to_owned()
}

/// A Lease that is soon over; the default is 15, 10 and 2 seconds.
const SHORT: [&str; 3] = ["--lease-duration=10", "--lease-renew-deadline=8", "--lease-retry-period=1"];
/// A Lease that is over long after what the test waits for.
const LONG: [&str; 3] = ["--lease-duration=100", "--lease-renew-deadline=90", "--lease-retry-period=2"];

async fn world_with_lease(name: &'static str, lease: &[&str]) -> World {
    // No samples of usage, which change a status.
    let arguments =
        lease.iter().chain(&["--usage-interval=3600"]).map(|&argument| argument.to_owned()).collect();
    World::with(name, Options { arguments, ..Options::default() }).await
}

#[tokio::test]
async fn standby_takes_over_from_killed_and_from_stopped_leader() {
    takeover("leaders-over", &SHORT, Duration::from_secs(60)).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn standby_takes_over_from_killed_leader_within_20_seconds() {
    takeover("leaders-over-20", &[], Duration::from_secs(20)).await;
}

async fn takeover(name: &'static str, lease: &[&str], after_kill: Duration) {
    let world = world_with_lease(name, lease).await;
    let first = world.installation.operator();
    let second = world.installation.replica(|_| {}).unwrap();
    second.start_standby().await.unwrap();
    assert_eq!(
        (metric(first).await, metric(&second).await),
        ("tenantry_leader 1".into(), "tenantry_leader 0".into())
    );

    let begun = Instant::now();
    first.kill().await.unwrap();
    second.wait_leading().await.unwrap();
    let took = begun.elapsed();
    println!("took over {:.1} s after kill -9", took.as_secs_f64());
    assert!(took < after_kill, "{took:?}");
    world.apply("works", json!({})).await;
    world.fleet.ready("works").await;

    first.start_standby().await.unwrap();
    assert_eq!(metric(first).await, "tenantry_leader 0");
    let begun = Instant::now();
    second.stop().await.unwrap();
    first.wait_leading().await.unwrap();
    let took = begun.elapsed();
    println!("took over {:.1} s after SIGTERM", took.as_secs_f64());
    // The Lease was released: its end is not waited for.
    assert!(took < after_kill / 4, "{took:?}");
}

#[tokio::test]
async fn restarted_container_does_not_wait_for_lease_of_its_pod() {
    let world = world_with_lease("leaders-again", &LONG).await;
    let operator = world.installation.operator();
    operator.kill().await.unwrap();
    let begun = Instant::now();
    // Without its pod's uid, the new process would wait for the end of the Lease, longer than this waits.
    operator.start().await.unwrap();
    println!("led again {:.1} s after it was started", begun.elapsed().as_secs_f64());
    world.apply("works", json!({})).await;
    world.fleet.ready("works").await;
}

#[tokio::test]
async fn leader_frozen_past_its_lease_changes_nothing() {
    frozen("leaders-frozen", &SHORT).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn leader_frozen_past_default_lease_changes_nothing() {
    frozen("leaders-frozen-15", &[]).await;
}

async fn frozen(name: &'static str, lease: &[&str]) {
    let world = world_with_lease(name, lease).await;
    let first = world.installation.operator();
    let second = world.installation.replica(|_| {}).unwrap();
    second.start_standby().await.unwrap();
    let names: Vec<String> = (0..12).map(|n| format!("frozen-{n}")).collect();
    let is_ready = ["wait", "--for=condition=Ready", "--timeout=120s", &format!("databaseserver/{name}")];
    world.kubectl().run(&is_ready).await.unwrap();
    // In the middle of their steps: none gets its login before the leader is frozen.
    let mut lock = world.superuser("postgres").await;
    lock.execute("BEGIN; LOCK TABLE pg_authid IN EXCLUSIVE MODE").await.unwrap();
    join_all(names.iter().map(|name| world.apply(name, json!({})))).await;
    let waits = "SELECT count(*) > 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1";
    world.until("some wait", async || world.holds("postgres", waits, "%CREATE ROLE%").await).await;
    first.service().signal(Signal::STOP).unwrap();
    lock.execute("ROLLBACK").await.unwrap();
    second.wait_leading().await.unwrap();
    join_all(names.iter().map(|name| world.fleet.ready(name))).await;
    // The new leader's drift check records the OIDs once: its last write.
    let recorded = "SELECT count(database_oid) = 12 FROM tenants WHERE slug LIKE $1";
    world
        .until("the OIDs are recorded", async || world.holds("tenantry_system", recorded, "frozen-%").await)
        .await;

    let before = everything(&world).await;
    first.service().signal(Signal::CONT).unwrap();
    assert!(first.service().exits_within(PATIENCE).await, "it ends once it sees that it lost");
    assert_eq!(everything(&world).await, before);
    let log = std::fs::read_to_string(first.log()).unwrap();
    assert!(log.contains("the Lease is lost"), "{log}");
}

/// Everything that an operator could have changed, with its versions.
async fn everything(world: &World) -> Vec<String> {
    let list = ListParams::default();
    let tenants = world.fleet.tenants.list_metadata(&list).await.unwrap();
    let secrets = world.fleet.secrets.list_metadata(&list).await.unwrap();
    let version = |meta: &kube::api::ObjectMeta| {
        format!("{:?} {:?}", meta.name.as_ref().unwrap(), meta.resource_version.as_ref().unwrap())
    };
    let mut all: Vec<String> = tenants.iter().map(|tenant| version(&tenant.metadata)).collect();
    all.extend(secrets.iter().map(|secret| version(&secret.metadata)));
    all.extend(
        sqlx::query_scalar::<_, String>(
            "SELECT concat_ws(' ', slug, status, updated_at, access) FROM tenants
             UNION ALL SELECT concat_ws(' ', action, at) FROM activity
             UNION ALL SELECT concat_ws(' ', kind, attempt, finished_at, outcome) FROM workflows ORDER BY 1",
        )
        .fetch_all(&mut world.superuser("tenantry_system").await)
        .await
        .unwrap(),
    );
    all.extend(
        sqlx::query_scalar::<_, String>(
            "SELECT concat_ws(' ', datname, datacl::text) FROM pg_database
             UNION ALL SELECT concat_ws(' ', rolname, rolcanlogin, rolpassword) FROM pg_authid ORDER BY 1",
        )
        .fetch_all(&mut world.superuser("postgres").await)
        .await
        .unwrap(),
    );
    all
}

#[tokio::test]
async fn leader_that_cannot_migrate_the_registry_releases_its_lease() {
    let world = World::new("leaders-schema").await;
    let operator = world.installation.operator();
    operator.stop().await.unwrap();
    // The migration runs again, and what it creates exists.
    let mut registry = world.superuser("tenantry_system").await;
    registry.execute("CREATE TABLE ledger AS TABLE schema_migrations").await.unwrap();
    registry.execute("DELETE FROM schema_migrations WHERE version = 13").await.unwrap();
    assert!(operator.start().await.is_err(), "it ends");
    let leases = Api::<Lease>::namespaced(world.fleet.client.clone(), "leaders-schema-system");
    let mut found = leases.list(&ListParams::default()).await.unwrap().items;
    let lease = found.pop().unwrap().spec.unwrap();
    assert!(lease.holder_identity.unwrap_or_default().is_empty(), "the next one does not wait");
    assert!(std::fs::read_to_string(world.fleet.log()).unwrap().contains("lease released"));
    registry.execute("INSERT INTO schema_migrations SELECT * FROM ledger WHERE version = 13").await.unwrap();
    operator.start().await.unwrap();
}
