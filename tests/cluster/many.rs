//! Many tenants at once, and none of them doing anything.

use std::time::{Duration, Instant};

use futures::{StreamExt, future::join_all};
use kube::runtime::watcher;
use serde_json::json;
use sqlx::PgConnection;

use crate::tenants::{Fleet, superuser};

/// The operator's default for the sessions on one server.
const CAP: i64 = 8;

#[tokio::test]
async fn a_hundred_at_once_need_no_retry_and_stay_under_the_cap() {
    let fleet = Fleet::new("fleet-hundred").await;
    let names: Vec<String> = (0..100).map(|n| format!("hundred-{n}")).collect();
    let mut watcher = superuser("postgres").await;
    let mut most = 0;
    let begun = Instant::now();
    let work = async {
        join_all(names.iter().map(|name| fleet.apply(name, json!({})))).await;
        join_all(names.iter().map(|name| fleet.ready(name))).await
    };
    tokio::pin!(work);
    let mut samples = tokio::time::interval(Duration::from_millis(20));
    let tenants = loop {
        tokio::select! {
            tenants = &mut work => break tenants,
            _ = samples.tick() => most = most.max(sessions(&mut watcher).await),
        }
    };
    println!("100 tenants Ready after {:.1} s, with {most} sessions at most", begun.elapsed().as_secs_f64());
    assert!(most > 0 && most <= CAP, "{most} sessions");
    for tenant in tenants {
        let workflow = tenant.status.unwrap().workflow.unwrap();
        assert_eq!(workflow.attempt, 1);
        assert!(workflow.steps.iter().all(|step| step.attempts == 1));
    }
}

/// Sessions of the operator on the server, those in the registry apart: they have a cap of their own.
async fn sessions(session: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE usename IN ('tenantry_operator', 'tenantry_migrator') AND datname <> 'tenantry_system'",
    )
    .fetch_one(session)
    .await
    .unwrap()
}

#[tokio::test]
async fn steady_state_writes_nothing_and_opens_no_tenant_session() {
    let fleet = Fleet::new("fleet-quiet").await;
    let names: Vec<String> = (0..10).map(|n| format!("quiet-{n}")).collect();
    join_all(names.iter().map(|name| fleet.apply(name, json!({})))).await;
    join_all(names.iter().map(|name| fleet.ready(name))).await;
    let mut superuser = superuser("postgres").await;
    let before = tenant_sessions(&mut superuser).await;

    // From the present state on, a minute without an event on a Tenant or a Secret.
    let mut tenants = watcher(fleet.tenants.clone(), watcher::Config::default()).boxed();
    let mut secrets = watcher(fleet.secrets.clone(), watcher::Config::default()).boxed();
    while !matches!(tenants.next().await, Some(Ok(watcher::Event::InitDone))) {}
    while !matches!(secrets.next().await, Some(Ok(watcher::Event::InitDone))) {}
    let minute = Duration::from_secs(60);
    let quiet = tokio::join!(
        tokio::time::timeout(minute, tenants.next()),
        tokio::time::timeout(minute, secrets.next())
    );
    assert!(quiet.0.is_err(), "a Tenant changed: {:?}", quiet.0);
    assert!(quiet.1.is_err(), "a Secret changed");
    assert_eq!(tenant_sessions(&mut superuser).await, before);
}

/// How many sessions there ever were in this test's databases.
async fn tenant_sessions(session: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT sum(sessions)::bigint FROM pg_stat_database WHERE datname LIKE 'tenant\\_quiet\\_%'",
    )
    .fetch_one(session)
    .await
    .unwrap()
}
