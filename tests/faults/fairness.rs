//! Failing tenants and unresponsive servers delay no other tenant.

use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::api::PostParams;
use serde_json::json;
use sqlx::Executor;
use tenantry::api::conditions::READY;
use tenantry_dev::{
    PostgresOptions,
    interposer::{Effects, Fault, PostgresProxy},
};
use tenantry_test_support::{Fleet, Options, World, names, objects, prepared_postgres};

/// Longer than a new tenant takes on a busy machine, and shorter than it would wait for a tenant that fails.
const ON_A_BUSY_MACHINE: Duration = Duration::from_secs(45);
/// How soon a new tenant is Ready on an idle machine, whatever other tenants do.
const ON_AN_IDLE_MACHINE: Duration = Duration::from_secs(5);

/// Applies a new tenant on this world's server; returns how long it takes until it is Ready.
async fn new_tenant(world: &World, fleet: &Fleet, name: &str) -> Duration {
    let begun = Instant::now();
    fleet.apply(name, json!({"server": world.name})).await;
    fleet.ready(name).await;
    begun.elapsed()
}

#[tokio::test]
async fn failing_tenants_do_not_delay_new_tenant() {
    failing_tenants("failing", "failing-new", 40, ON_A_BUSY_MACHINE).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn three_hundred_failing_tenants_do_not_delay_new_tenant() {
    failing_tenants("failing-300", "failing-300-new", 300, ON_AN_IDLE_MACHINE).await;
}

async fn failing_tenants(name: &'static str, others: &'static str, count: usize, limit: Duration) {
    let options = Options { also_watches: Some(others), ..Options::default() };
    let world = World::with(name, options).await;
    let mut quota = objects::no_secrets("none");
    quota["metadata"]["namespace"] = json!(world.name);
    world.kubectl().apply(&quota.to_string()).await.unwrap();
    // The API server refuses nothing before the quota has been counted.
    let tried = PostParams { dry_run: true, ..PostParams::default() };
    let secret = Secret {
        metadata: ObjectMeta { name: Some("tried".into()), ..Default::default() },
        ..Default::default()
    };
    let is_refused = async || world.fleet.secrets.create(&tried, &secret).await.is_err();
    world.until("the quota is in force", is_refused).await;
    let failing = names("fails", count);
    let number = i64::try_from(count).unwrap();
    let begun = Instant::now();
    join_all(failing.iter().map(|name| world.apply(name, json!({})))).await;
    let fleet = world.fleet.in_namespace(others);
    let during_creation = new_tenant(&world, &fleet, "rush").await;
    // While one is tried again, it has no reason.
    let failed = "SELECT count(*) >= $1 FROM workflows
        WHERE coalesce(failure_reason, 'QuotaExceeded') = 'QuotaExceeded' AND failures > 0";
    world.until("all fail", async || world.holds_number("tenantry_system", failed, number).await).await;
    println!("{count} tenants failed after {:.1} s", begun.elapsed().as_secs_f64());
    let again = "SELECT count(*) >= $1 FROM workflows WHERE failures > 1";
    world.until("all fail again", async || world.holds_number("tenantry_system", again, number).await).await;
    let behind = new_tenant(&world, &fleet, "behind").await;
    // A change of their server requeues all of them at once.
    let patch = json!({"spec": {"allowedNamespaces": [name, others]}}).to_string();
    world
        .kubectl()
        .run(&["patch", "databaseserver", world.name, "--type=merge", "-p", &patch])
        .await
        .unwrap();
    let at_once = new_tenant(&world, &fleet, "at-once").await;
    println!(
        "a new tenant is Ready after {during_creation:?} while {count} are created, {behind:?} while they wait, \
         {at_once:?} while all are retried"
    );
    assert!(behind < limit && at_once < limit, "{behind:?} {at_once:?}");
    let workflow = world.fleet.tenants.get("fails-7").await.unwrap().status.unwrap().workflow.unwrap();
    assert!(workflow.attempt > 1, "{workflow:?}");
}

#[tokio::test]
async fn unresponsive_server_does_not_delay_tenants_of_others() {
    unresponsive_server("unresponsive", "unresponsive-2", 8, ON_A_BUSY_MACHINE).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn unresponsive_server_with_thirty_tenants_delays_no_others() {
    unresponsive_server("unresponsive-30", "unresponsive-30-2", 30, ON_AN_IDLE_MACHINE).await;
}

async fn unresponsive_server(name: &'static str, server: &str, count: usize, limit: Duration) {
    let world = World::new(name).await;
    let second = prepared_postgres(PostgresOptions::default()).await;
    let proxy = PostgresProxy::start(second.port(), &Effects::new()).unwrap();
    world.apply_server(server, proxy.port()).await;
    world.apply_on(server, "before").await;
    world.fleet.ready("before").await;

    // Some are in the middle of a step, the others find a server that does not respond. They get no further meanwhile.
    let tenants = names("hangs", count);
    let mut lock = second.connect("postgres").await.unwrap();
    lock.execute("BEGIN; LOCK TABLE pg_authid IN EXCLUSIVE MODE").await.unwrap();
    join_all(tenants.iter().map(|name| world.apply_on(server, name))).await;
    let some = "SELECT count(*) >= $1 FROM tenants WHERE status = 'provisioning'";
    world.until("some are provisioned", async || world.holds_number("tenantry_system", some, 3).await).await;
    proxy.set(Fault::Hang);
    lock.execute("ROLLBACK").await.unwrap();
    let first = new_tenant(&world, &world.fleet, "first").await;
    world.fleet.reason(tenants.last().unwrap(), READY, "ServerNotReady").await;
    let later = new_tenant(&world, &world.fleet, "later").await;
    // Drift on the other server is still repaired within a minute.
    let begun = Instant::now();
    let mut superuser = world.superuser("postgres").await;
    superuser.execute("ALTER ROLE tenant_first_app CONNECTION LIMIT 3").await.unwrap();
    let as_planned = "SELECT rolconnlimit = 20 FROM pg_roles WHERE rolname = $1";
    world
        .until("the connection limit is repaired", async || {
            world.holds("postgres", as_planned, "tenant_first_app").await
        })
        .await;
    let repaired = begun.elapsed();

    proxy.set(Fault::Pass);
    let begun = Instant::now();
    join_all(tenants.iter().map(|name| world.fleet.ready(name))).await;
    let recovered = begun.elapsed();
    println!(
        "a new tenant is Ready after {first:?} and {later:?}; drift repaired after {repaired:?}; the {count} are Ready \
         after {recovered:?}"
    );
    assert!(first < limit && later < limit, "{first:?} {later:?}");
    assert!(repaired < Duration::from_secs(60), "{repaired:?}");
}
