//! Failures while many tenants are provisioned.

use std::time::Duration;

use futures::future::join_all;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use tenantry_dev::{PostgresOptions, Stop, interposer::Moment, process::Signal};
use tenantry_test_support::{PATIENCE, World, names};

/// How long all tenants of a batch may take.
const ALL_READY: Duration = Duration::from_secs(600);

/// A step of a pseudo-random generator with the same numbers in every run (Knuth's MMIX).
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

async fn count(world: &World, database: &str, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&mut world.superuser(database).await).await.unwrap()
}

/// Databases, logins, Secrets and rows match the existing Tenants, one to one, once all work is done.
async fn is_one_to_one(world: &World, living: i64, closed: i64) {
    let open = "SELECT count(*) FROM workflows WHERE finished_at IS NULL";
    world.until("no workflow is open", async || count(world, "tenantry_system", open).await == 0).await;
    let databases =
        "SELECT count(*) FROM pg_database WHERE datname LIKE 'tenant\\_%' OR datname LIKE 'tenantry\\_new%'";
    assert_eq!(count(world, "postgres", databases).await, living);
    assert_eq!(
        count(world, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE '%\\_app'").await,
        living
    );
    let rows = |status: &'static str| count(world, "tenantry_system", status);
    assert_eq!(rows("SELECT count(*) FROM tenants WHERE status = 'active'").await, living);
    assert_eq!(rows("SELECT count(*) FROM tenants WHERE status = 'deprovisioned'").await, closed);
    assert_eq!(rows("SELECT count(*) FROM tenants").await, living + closed);
    assert_eq!(rows("SELECT count(*) FROM deletion_receipts").await, closed);
    let labelled = ListParams::default().labels("tenantry.dev/tenant-id");
    let secrets = world.fleet.secrets.list_metadata(&labelled).await.unwrap().items;
    assert_eq!(secrets.len() as i64, living, "one connection Secret each");
}

#[tokio::test]
async fn twenty_kills_during_creations_and_deletions_lose_nothing() {
    let world = World::interposed("batch-kills", PostgresOptions::default()).await;
    let (made, gone) = (names("made", 40), names("gone", 20));
    let zero = || json!({"offboarding": {"gracePeriodSeconds": 0}});
    join_all(gone.iter().map(|name| world.apply(name, zero()))).await;
    let leaving = join_all(gone.iter().map(|name| world.fleet.ready(name))).await;
    let operator = world.installation.operator();
    let effects = world.installation.interposer().unwrap().effects();
    let mut seed = 20_261_121;
    let arm = |seed: &mut u64| {
        effects.reset();
        let process = operator.service().record().unwrap();
        let moment = if next(seed).is_multiple_of(2) { Moment::Before } else { Moment::After };
        let number = 1 + next(seed) as usize % 60;
        effects.arm(number, moment, move || async move { process.signal(Signal::KILL).unwrap() });
    };
    arm(&mut seed);
    join_all(made.iter().map(|name| world.apply(name, zero()))).await;
    for name in &gone {
        world.fleet.tenants.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let mut kills = 0;
    while kills < 20 {
        match tokio::time::timeout(PATIENCE, effects.triggered()).await {
            Ok(_) => kills += 1,
            // All is done: no effect is left to be killed at.
            Err(_) => break,
        }
        assert!(operator.service().exits_within(PATIENCE).await);
        effects.reset();
        world.delete_lease().await;
        if kills < 20 {
            operator.start_standby().await.unwrap();
            arm(&mut seed);
        } else {
            operator.start().await.unwrap();
        }
    }
    println!("{kills} kills");
    assert_eq!(kills, 20);
    world.fleet.all_ready(&made, ALL_READY).await;
    join_all(gone.iter().zip(&leaving).map(|(name, tenant)| world.fleet.deleted(name, tenant))).await;
    is_one_to_one(&world, 40, 20).await;
    world.all_usable(&made).await;
}

#[tokio::test]
async fn two_operators_without_lease_create_nothing_twice() {
    two_operators("batch-two", 40).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn two_operators_without_lease_create_none_of_a_hundred_twice() {
    two_operators("batch-two-many", 100).await;
}

async fn two_operators(name: &'static str, number: usize) {
    let world = World::new(name).await;
    let many = i64::try_from(number).unwrap();
    world.installation.operator().stop().await.unwrap();
    let ignoring =
        |options: &mut tenantry_dev::OperatorOptions| options.arguments.push("--test-ignore-lease".into());
    let (one, two) =
        (world.installation.replica(ignoring).unwrap(), world.installation.replica(ignoring).unwrap());
    one.start().await.unwrap();
    two.start().await.unwrap();
    let all = names("both", number);
    let zero = || json!({"offboarding": {"gracePeriodSeconds": 0}});
    join_all(all.iter().map(|name| world.apply(name, zero()))).await;
    world.fleet.all_ready(&all, ALL_READY).await;
    let registered = "SELECT count(*) FROM activity WHERE action = 'Registered'";
    assert_eq!(count(&world, "tenantry_system", registered).await, many);
    assert_eq!(
        count(&world, "tenantry_system", "SELECT count(*) FROM activity WHERE action = 'Activated'").await,
        many
    );
    // With one operator left, all workflows finish.
    one.kill().await.unwrap();
    is_one_to_one(&world, many, 0).await;
    world.all_usable(&all).await;
}

#[tokio::test]
async fn restarts_of_postgresql_and_operator_are_survived() {
    let world = World::new("batch-restarts").await;
    let all = names("restarted", 30);
    join_all(all.iter().map(|name| world.apply(name, json!({})))).await;
    for (stop, at_least) in [(Stop::Fast, 2), (Stop::Immediate, 8)] {
        let some = "SELECT count(*) >= $1::bigint FROM tenants WHERE status = 'active'";
        world
            .until("some are active", async || world.holds_number("tenantry_system", some, at_least).await)
            .await;
        world.installation.postgres().stop(stop).await.unwrap();
        world.installation.postgres().start_again().await.unwrap();
    }
    // As during an upgrade of the operator: SIGTERM, and a new process.
    world.installation.operator().stop().await.unwrap();
    world.installation.operator().start().await.unwrap();
    world.fleet.all_ready(&all, ALL_READY).await;
    world.all_usable(&all).await;
}
