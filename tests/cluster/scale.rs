//! Many tenants at once, and tenants in steady state.

use std::{
    future::{Ready, ready},
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use kube::runtime::watcher;
use serde_json::json;
use sqlx::PgConnection;
use tenantry_test_support::{Fleet, Wait, names, shared_operator::superuser};

/// The operator's default for the sessions on one server.
const CAP: i64 = 11;
/// Longer than a hundred tenants take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// In how many samples one after the other a number of sessions counts: a session that the operator has closed is listed until
/// its process has ended.
const AT_LEAST: usize = 5;

#[tokio::test]
async fn hundred_tenants_need_no_retry_and_stay_under_session_maximum() {
    let fleet = Fleet::new("fleet-hundred").await;
    let names: Vec<String> = (0..100).map(|n| format!("hundred-{n}")).collect();
    let mut watcher = superuser("postgres").await;
    let (mut most, mut last) = (0, [0; AT_LEAST]);
    let begun = Instant::now();
    let work = async {
        join_all(names.iter().map(|name| fleet.apply(name, json!({})))).await;
        fleet.all_ready(&names, PATIENCE).await
    };
    tokio::pin!(work);
    let mut samples = tokio::time::interval(Duration::from_millis(20));
    let tenants = loop {
        tokio::select! {
            tenants = &mut work => break tenants,
            _ = samples.tick() => {
                last.rotate_left(1);
                last[AT_LEAST - 1] = sessions(&mut watcher).await;
                most = most.max(last.into_iter().min().unwrap_or_default());
            }
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

/// Whether an event ends the list with which a watch begins.
fn is_listed<K>(event: watcher::Result<watcher::Event<K>>) -> Ready<bool> {
    ready(matches!(event, Ok(watcher::Event::InitDone)))
}

/// Sessions of the operator on the server, without those in the registry, which have a maximum of their own.
async fn sessions(session: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE (usename = 'tenantry_operator' OR usename LIKE 'tenantry_migrator_%') AND datname <> 'tenantry_system'",
    )
    .fetch_one(session)
    .await
    .unwrap()
}

#[tokio::test]
async fn steady_state_writes_nothing_and_opens_no_tenant_session() {
    // Several drift checks and samples of usage.
    steady_state("quiet", Duration::from_secs(15)).await;
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn steady_state_of_a_minute_writes_nothing() {
    steady_state("minute", Duration::from_secs(60)).await;
}

async fn steady_state(name: &str, length: Duration) {
    let fleet = Fleet::new(name).await;
    let names = names(name, 10);
    join_all(names.iter().map(|name| fleet.apply(name, json!({})))).await;
    join_all(names.iter().map(|name| fleet.ready(name))).await;
    let mut superuser = superuser("postgres").await;
    let databases = format!("tenant\\_{name}\\_%");
    // A session is counted when it has ended.
    let ended = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname LIKE $1 AND backend_type = 'client backend')";
    fleet
        .until("the sessions of the provisioning have ended")
        .is_true(async || sqlx::query_scalar(ended).bind(&databases).fetch_one(&mut superuser).await.unwrap())
        .await;
    let before = tenant_sessions(&mut superuser, &databases).await;

    // From the present state on, no event on a Tenant or a Secret.
    let mut tenants = watcher(fleet.tenants.clone(), watcher::Config::default()).boxed();
    let mut secrets = watcher(fleet.secrets.clone(), watcher::Config::default()).boxed();
    let listed = async { (tenants.by_ref().any(is_listed).await, secrets.by_ref().any(is_listed).await) };
    Wait::until("Tenants and Secrets are listed").future(listed).await;
    let quiet = tokio::join!(
        tokio::time::timeout(length, tenants.next()),
        tokio::time::timeout(length, secrets.next())
    );
    assert!(quiet.0.is_err(), "a Tenant changed: {:?}", quiet.0);
    assert!(quiet.1.is_err(), "a Secret changed");
    assert_eq!(tenant_sessions(&mut superuser, &databases).await, before);
}

/// The number of sessions so far in the databases whose names are like this.
async fn tenant_sessions(session: &mut PgConnection, like: &str) -> i64 {
    sqlx::query_scalar("SELECT sum(sessions)::bigint FROM pg_stat_database WHERE datname LIKE $1")
        .bind(like)
        .fetch_one(session)
        .await
        .unwrap()
}
