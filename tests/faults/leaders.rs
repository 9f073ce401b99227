//! One leader at a time, and one that lost its Lease does nothing more.

use std::time::{Duration, Instant};

use futures::future::join_all;
use kube::api::ListParams;
use serde_json::json;
use tenantry_dev::{Operator, process::Signal};

use crate::world::World;

/// The metric of a leader, asked of the process.
async fn metric(operator: &Operator) -> String {
    let metrics = operator.metrics().await.unwrap();
    metrics.lines().find(|line| line.starts_with("tenantry_leader ")).unwrap().to_owned()
}

#[tokio::test]
async fn another_takes_over_from_one_that_was_killed_and_sooner_from_one_that_was_ended() {
    let world = World::new("leaders-over").await;
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
    assert!(took < Duration::from_secs(20), "{took:?}");
    world.apply("works", json!({})).await;
    world.fleet.ready("works").await;

    first.start_standby().await.unwrap();
    assert_eq!(metric(first).await, "tenantry_leader 0");
    let begun = Instant::now();
    second.stop().await.unwrap();
    first.wait_leading().await.unwrap();
    let took = begun.elapsed();
    println!("took over {:.1} s after SIGTERM", took.as_secs_f64());
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn one_that_is_started_again_in_its_pod_does_not_wait_for_its_own_lease() {
    let world = World::new("leaders-again").await;
    let operator = world.installation.operator();
    operator.kill().await.unwrap();
    let begun = Instant::now();
    operator.start().await.unwrap();
    let took = begun.elapsed();
    println!("led again {:.1} s after it was started", took.as_secs_f64());
    // It is another process: without its pod's uid, it waits for the 15 s of the Lease from when it sees it first.
    assert!(took < Duration::from_secs(13), "{took:?}");
    world.apply("works", json!({})).await;
    world.fleet.ready("works").await;
}

#[tokio::test]
async fn a_leader_that_was_frozen_past_its_lease_does_nothing_more() {
    let world = World::new("leaders-frozen").await;
    let first = world.installation.operator();
    let second = world.installation.replica(|_| {}).unwrap();
    second.start_standby().await.unwrap();
    let names: Vec<String> = (0..12).map(|n| format!("frozen-{n}")).collect();
    join_all(names.iter().map(|name| world.apply(name, json!({})))).await;
    // In the middle of it: some are registered, not all are handed out.
    let some = "SELECT count(*) > 2 AND count(*) FILTER (WHERE status = 'active') < 12 FROM tenants WHERE slug LIKE $1";
    world.until("some are registered", async || world.holds("tenantry_system", some, "frozen-%").await).await;
    first.service().signal(Signal::STOP).unwrap();
    second.wait_leading().await.unwrap();
    join_all(names.iter().map(|name| world.fleet.ready(name))).await;

    let before = world.everything().await;
    first.service().signal(Signal::CONT).unwrap();
    assert!(first.service().gone_within(Duration::from_secs(20)).await, "it ends once it sees that it lost");
    assert_eq!(world.everything().await, before);
    let log = std::fs::read_to_string(first.log()).unwrap();
    assert!(log.contains("the Lease is lost"), "{log}");
}

impl World {
    /// Whatever an operator could have changed, with its versions.
    async fn everything(&self) -> Vec<String> {
        let list = ListParams::default();
        let tenants = self.fleet.tenants.list_metadata(&list).await.unwrap();
        let secrets = self.fleet.secrets.list_metadata(&list).await.unwrap();
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
            .fetch_all(&mut self.superuser("tenantry_system").await)
            .await
            .unwrap(),
        );
        all.extend(
            sqlx::query_scalar::<_, String>(
                "SELECT concat_ws(' ', datname, datacl::text) FROM pg_database
                 UNION ALL SELECT concat_ws(' ', rolname, rolcanlogin, rolpassword) FROM pg_authid ORDER BY 1",
            )
            .fetch_all(&mut self.superuser("postgres").await)
            .await
            .unwrap(),
        );
        all
    }
}
