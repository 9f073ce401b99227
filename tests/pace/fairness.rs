//! Tenants that fail, and servers that hang, delay nobody else.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tenantry::api::conditions::{READY, reason};
use tenantry_dev::{
    PostgresOptions,
    interposer::{Effects, PostgresProxy, Trouble},
};

use crate::{
    TURN,
    fleet::Fleet,
    world::{Options, World, set_up},
};

/// How soon a new tenant is Ready, whatever goes on around it.
const SOON: Duration = Duration::from_secs(5);

impl World {
    /// What is done in another namespace.
    fn fleet_in(&self, namespace: &str) -> Fleet {
        Fleet::of(self.fleet.client.clone(), namespace, self.installation.operator().log())
    }

    /// Applies a new tenant on this world's own server, and says how long it takes until it is Ready.
    async fn new_tenant(&self, fleet: &Fleet, name: &str) -> Duration {
        let begun = Instant::now();
        fleet.apply(name, json!({"server": self.name})).await;
        fleet.ready(name).await;
        begun.elapsed()
    }
}

#[tokio::test]
async fn three_hundred_that_fail_delay_no_new_tenant() {
    let _turn = TURN.lock().await;
    let options = Options { also_watches: Some("fairness-new"), ..Options::default() };
    let world = World::with("fairness-failing", options).await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": world.name}, "spec": {"hard": {"count/secrets": "0"}}});
    world.kubectl().apply(&quota.to_string()).await.unwrap();
    let names: Vec<String> = (0..300).map(|n| format!("fails-{n}")).collect();
    let begun = Instant::now();
    join_all(names.iter().map(|name| world.apply(name, json!({})))).await;
    let fleet = world.fleet_in("fairness-new");
    let in_the_rush = world.new_tenant(&fleet, "rush").await;
    let failing =
        "SELECT count(*) >= $1 FROM workflows WHERE failure_reason = 'QuotaExceeded' AND failures > 0";
    world.until("all fail", async || world.holds_number("tenantry_system", failing, 300).await).await;
    println!("300 tenants failed after {:.1} s", begun.elapsed().as_secs_f64());
    let again = "SELECT count(*) >= $1 FROM workflows WHERE failures > 1";
    world.until("all fail again", async || world.holds_number("tenantry_system", again, 300).await).await;
    let behind = world.new_tenant(&fleet, "behind").await;
    // A change of their server makes all of them try at once.
    let patch = r#"{"spec": {"allowedNamespaces": ["fairness-failing", "fairness-new"]}}"#;
    world.kubectl().run(&["patch", "databaseserver", world.name, "--type=merge", "-p", patch]).await.unwrap();
    let at_once = world.new_tenant(&fleet, "at-once").await;
    println!(
        "a new tenant is Ready after {in_the_rush:?} in the rush, {behind:?} behind 300 that fail, {at_once:?} when all try at once"
    );
    assert!(behind < SOON && at_once < SOON, "{behind:?} {at_once:?}");
    let workflow = world.fleet.tenants.get("fails-7").await.unwrap().status.unwrap().workflow.unwrap();
    assert!(workflow.attempt > 1, "{workflow:?}");
}

#[tokio::test]
async fn a_server_that_hangs_delays_no_tenant_of_another() {
    let _turn = TURN.lock().await;
    let world = World::new("fairness-hangs").await;
    let second = set_up(PostgresOptions::default()).await;
    let proxy = PostgresProxy::start(second.port(), &Effects::new()).unwrap();
    world.serve("fairness-hangs-2", proxy.port()).await;
    world.apply_on("fairness-hangs-2", "before").await;
    world.fleet.ready("before").await;

    // Some are caught in the middle of a step, the others find a server that does not answer.
    let names: Vec<String> = (0..30).map(|n| format!("hangs-{n}")).collect();
    join_all(names.iter().map(|name| world.apply_on("fairness-hangs-2", name))).await;
    let some = "SELECT count(*) >= $1 FROM tenants WHERE status = 'provisioning'";
    world.until("some are under way", async || world.holds_number("tenantry_system", some, 3).await).await;
    proxy.set(Trouble::Hang);
    let first = world.new_tenant(&world.fleet, "first").await;
    world.fleet.reason("hangs-29", READY, reason::SERVER_NOT_READY).await;
    let later = world.new_tenant(&world.fleet, "later").await;
    // What is changed by hand on the other server is still seen within a minute.
    let begun = Instant::now();
    let mut superuser = world.superuser("postgres").await;
    sqlx::Executor::execute(&mut superuser, "ALTER ROLE tenant_first_app CONNECTION LIMIT 3").await.unwrap();
    let as_planned = "SELECT rolconnlimit = 20 FROM pg_roles WHERE rolname = $1";
    world
        .until("it is put right", async || world.holds("postgres", as_planned, "tenant_first_app").await)
        .await;
    let repaired = begun.elapsed();

    proxy.set(Trouble::Pass);
    let begun = Instant::now();
    join_all(names.iter().map(|name| world.fleet.ready(name))).await;
    let caught_up = begun.elapsed();
    println!(
        "a new tenant is Ready after {first:?} and {later:?}; drift repaired after {repaired:?}; the 30 are after {caught_up:?}"
    );
    assert!(first < SOON && later < SOON, "{first:?} {later:?}");
    assert!(repaired < Duration::from_secs(60), "{repaired:?}");
}
