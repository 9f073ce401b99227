//! A tenant locks everybody out, again and again: others still connect, it is seen, and it is suspended in time.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::api::{
    conditions::{ACCESS_ENFORCED, find_condition},
    tenant_status::Access,
};
use tenantry_test_support::{Wait, World, login};
use tokio::task::JoinHandle;

/// The gate's machine is busy: what the product promises in seconds is measured, and has this limit here.
const GENEROUS: Duration = Duration::from_secs(30);

/// Runs a statement in new sessions, and keeps each open until it is ended.
fn attack(uri: String, sql: String) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let Ok(mut session) = PgConnection::connect(&uri).await else { continue };
            if session.execute(AssertSqlSafe(sql.clone())).await.is_ok() {
                let _ = session.execute("SELECT pg_sleep(3600)").await;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenant_that_locks_everybody_out_is_ended_reported_and_suspended() {
    let world = World::new("locks").await;
    for name in ["hostile", "beside"] {
        world.apply(name, json!({})).await;
    }
    for name in ["hostile", "beside"] {
        world.fleet.ready(name).await;
    }
    let hostile = world.fleet.secret("hostile-db", "uri").await;
    let beside = world.fleet.secret("beside-db", "uri").await;
    let mut superuser = world.superuser("template1").await;
    let mut attacks = Vec::new();
    for database in ["tenant_beside", "postgres"] {
        let hold = format!("BEGIN; ALTER ROLE CURRENT_USER IN DATABASE {database} SET work_mem = '1MB'");
        attacks.push(attack(hostile.clone(), hold));
        attacks.push(attack(hostile.clone(), format!("ALTER DATABASE {database} RENAME TO stolen")));
    }
    attacks.push(attack(hostile.clone(), "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'x'".to_owned()));
    let is_locked = "SELECT count(*) = 2 FROM pg_locks WHERE database = 0 AND NOT granted AND mode = 'AccessExclusiveLock'";
    // The control, between two looks of the operator: both databases are locked, and no client connects.
    Wait::until("both databases are locked, and a client waits")
        .is_true(async || {
            sqlx::query_scalar(is_locked).fetch_one(&mut superuser).await.unwrap()
                && tokio::time::timeout(Duration::from_millis(500), login(&beside)).await.is_err()
        })
        .await;

    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let begun = Instant::now();
        let session = tokio::time::timeout(GENEROUS, login(&beside)).await;
        session.expect("others connect").unwrap();
        slowest = slowest.max(begun.elapsed());
    }
    world.event("hostile", "SessionsEnded", "which kept a lock on ").await;
    let counted = async || {
        let metrics = world.installation.operator().metrics().await.unwrap_or_default();
        metrics.contains("tenantry_tenant_sessions_ended_total{reason=\"Kept\"}")
    };
    world.until("it is counted", counted).await;
    let recorded = "SELECT EXISTS (SELECT FROM activity a JOIN tenants t ON t.id = a.tenant_id
        WHERE t.slug = $1 AND a.action = 'SessionsEnded' AND a.reason LIKE 'ended %')";
    assert!(world.holds("tenantry_system", recorded, "hostile").await);
    assert!(!world.holds("tenantry_system", recorded, "beside").await);

    let begun = Instant::now();
    world
        .apply(
            "hostile",
            json!({"state": "Suspended", "stateReason": "it attacks", "suspension": {"mode": "Blocked"}}),
        )
        .await;
    world.fleet.access("hostile", Access::Blocked).await;
    let took = begun.elapsed();
    assert!(login(&hostile).await.is_err());
    assert!(took < GENEROUS, "{took:?}");
    for attack in &attacks {
        attack.abort();
    }
    tokio::time::timeout(GENEROUS, login(&beside)).await.expect("others connect").unwrap();
    println!("others waited for {slowest:?} at most; suspended after {took:?}");
}

/// A search in a very long text ignores termination until it is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-all"]
async fn session_that_ignores_termination_is_reported_as_such() {
    let world = World::new("deaf").await;
    world.apply("deaf", json!({})).await;
    world.fleet.ready("deaf").await;
    let uri = world.fleet.secret("deaf-db", "uri").await;
    let mut session = login(&uri).await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut session).await.unwrap();
    session.execute("BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'x'").await.unwrap();
    let search =
        "SELECT position(CASE WHEN pg_try_advisory_xact_lock(4711) THEN 'b' || repeat('a', 100000) END
        IN repeat('a', 1000000))";
    let search = tokio::spawn(async move { drop(session.execute(search).await) });
    let mut superuser = world.superuser("postgres").await;
    let is_searching = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND locktype = 'advisory')";
    Wait::until("the search has begun")
        .is_true(async || sqlx::query_scalar(is_searching).bind(pid).fetch_one(&mut superuser).await.unwrap())
        .await;
    world
        .apply(
            "deaf",
            json!({"state": "Suspended", "stateReason": "it attacks", "suspension": {"mode": "Blocked"}}),
        )
        .await;
    let tenant = world.fleet.reason("deaf", ACCESS_ENFORCED, "TerminationIgnored").await;
    let condition = find_condition(&tenant.status.as_ref().unwrap().conditions, ACCESS_ENFORCED).unwrap();
    assert_eq!(condition.status, "False");
    let (revoked, still) = ("is in no group any more", format!("pid {pid} was asked to end and still runs"));
    assert!(condition.message.contains(revoked) && condition.message.contains(&still), "{condition:?}");
    assert!(!search.is_finished(), "the control: it ran all the time");
    world.event("deaf", "TerminationIgnored", &format!("(pid {pid})")).await;
    search.await.unwrap();
    world.fleet.access("deaf", Access::Blocked).await;
    world.event("deaf", "SessionsEnded", &format!("(pid {pid})")).await;
}
