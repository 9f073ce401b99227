//! What was away for half a minute, in the middle of fifty provisionings.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tenantry_dev::{PostgresOptions, Stop, interposer::Trouble};

use crate::{
    TURN,
    world::{World, names},
};

/// Waits for this long: what is measured is what happens meanwhile.
async fn outage(length: Duration) {
    assert!(tokio::time::timeout(length, std::future::pending::<()>()).await.is_err());
}

const OUTAGE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_postgresql_that_was_away_for_half_a_minute_is_caught_up_with() {
    let _turn = TURN.lock().await;
    let world = World::interposed("batch-postgres", PostgresOptions::default()).await;
    let interposer = world.installation.interposer().unwrap();
    let all = names("away", 50);
    let begun = Instant::now();
    let before = interposer.postgres().totals();
    join_all(all.iter().map(|name| world.apply(name, json!({})))).await;
    let some = "SELECT count(*) FILTER (WHERE status = 'active') >= 10 FROM tenants WHERE slug <> $1";
    world.until("some are made", async || world.holds("tenantry_system", some, "").await).await;
    let normal = interposer.postgres().totals().statements - before.statements;
    let normal = normal as f64 / begun.elapsed().as_secs_f64();
    world.installation.postgres().stop(Stop::Fast).await.unwrap();
    let (tried, requested) = (interposer.postgres().totals(), interposer.api().totals());
    outage(OUTAGE).await;
    let connections = interposer.postgres().totals().connections - tried.connections;
    let requests = interposer.api().totals().requests - requested.requests;
    world.installation.postgres().start_again().await.unwrap();
    let back = Instant::now();
    join_all(all.iter().map(|name| world.fleet.ready(name))).await;
    let caught_up = back.elapsed();
    println!(
        "normal: {normal:.0} statements/s; away: {connections} connections and {requests} requests in 30 s; caught up after {:.1} s",
        caught_up.as_secs_f64()
    );
    assert!(caught_up < Duration::from_secs(30), "{caught_up:?}");
    let rate = (connections + requests) as f64 / OUTAGE.as_secs_f64();
    assert!(rate < normal, "{rate} a second");
    world.all_work(&all).await;
}

#[tokio::test]
async fn an_api_server_that_was_away_for_half_a_minute_is_caught_up_with() {
    let _turn = TURN.lock().await;
    let world = World::interposed("batch-api", PostgresOptions::default()).await;
    let interposer = world.installation.interposer().unwrap();
    let all = names("cut", 50);
    join_all(all.iter().map(|name| world.apply(name, json!({})))).await;
    let some = "SELECT count(*) FILTER (WHERE status = 'active') >= 10 FROM tenants WHERE slug <> $1";
    world.until("some are made", async || world.holds("tenantry_system", some, "").await).await;
    interposer.api().set(Trouble::Refuse);
    let before = interposer.api().totals();
    outage(OUTAGE).await;
    let connections = interposer.api().totals().connections - before.connections;
    interposer.api().set(Trouble::Pass);
    let back = Instant::now();
    // A leader that cannot renew its Lease ends, and is started again, as a kubelet does.
    let operator = world.installation.operator();
    operator.start_standby().await.unwrap();
    join_all(all.iter().map(|name| world.fleet.ready(name))).await;
    let caught_up = back.elapsed();
    println!("away: {connections} connections in 30 s; caught up after {:.1} s", caught_up.as_secs_f64());
    assert!(caught_up < Duration::from_secs(30), "{caught_up:?}");
    assert!(connections < 30 * 20, "{connections}");
    world.all_work(&all).await;
}
