//! A session that ignores termination: a search in a very long text looks for no signal until it is done. What it locks puts
//! off a part of a suspension only, and it is reported as what it is.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tenantry::{api::reason::Reason, domain::access::AccessLevel, postgres::server::Server};
use tenantry_dev::{Postgres, Stop};
use tenantry_test_support::Wait;
use tokio::task::JoinHandle;

use crate::servers::{Tenant, access, ready};

use super::locks::{fill, open, own_server};

/// What the suspension of the login and of its CONNECT wait for.
const LOCKS: &str =
    "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'x'; GRANT CONNECT ON DATABASE {database} TO PUBLIC";
/// It takes minutes. Nothing but the end of the server ends it.
const DEAF: &str = "SELECT position('b' || repeat('a', 100000) IN repeat('a', 3000000))";
const WRITE: &str = "INSERT INTO users (email) VALUES (gen_random_uuid() || '@deaf.example')";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deaf_session_keeps_no_rights_on_15() {
    try_all(15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deaf_session_keeps_no_rights_on_18() {
    try_all(18).await;
}

async fn try_all(major: u16) {
    let postgres = own_server(major).await;
    let server = ready(&postgres).await;
    let (all, reduced) = (Tenant::new("tenant_deaf"), Tenant::new("tenant_deaf_reduced"));
    all.provision(&server, 1).await;
    reduced.provision(&server, 1).await;
    let mut administrator = postgres.connect("postgres").await.unwrap();
    let first = suspend(&postgres, &server, &all, AccessLevel::Blocked).await;
    // As on some managed servers: only the login itself may end its sessions.
    let revoke = "REVOKE pg_signal_backend, pg_read_all_stats FROM tenantry_admin";
    administrator.execute(revoke).await.unwrap();
    let second = suspend(&postgres, &server, &reduced, AccessLevel::ReadOnly).await;
    // What an administrator can do. A fast stop would wait for them.
    postgres.stop(Stop::Immediate).await.unwrap();
    postgres.start_again().await.unwrap();
    first.await.unwrap();
    second.await.unwrap();
    for (tenant, level) in [(&all, AccessLevel::Blocked), (&reduced, AccessLevel::ReadOnly)] {
        Wait::until("the operator's sessions are new")
            .is_true(async || server.set_access(&tenant.placement, level).await.is_ok())
            .await;
        assert_eq!(access(&server.observe(&tenant.placement).await.unwrap()), Some(level));
    }
}

/// Returns the deaf session.
async fn suspend(postgres: &Postgres, server: &Server, tenant: &Tenant, level: AccessLevel) -> JoinHandle<()> {
    let mut deaf = open(postgres, tenant, LOCKS).await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut deaf).await.unwrap();
    let deaf = tokio::spawn(async move { drop(deaf.execute(DEAF).await) });
    let mut other = tenant.session(postgres).await.unwrap();
    let of_other: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut other).await.unwrap();
    let mut administrator = postgres.connect("postgres").await.unwrap();
    let is_searching = "SELECT query = $2 AND state = 'active' FROM pg_stat_activity WHERE pid = $1";
    Wait::until("the search has begun")
        .is_true(async || {
            let look = sqlx::query_scalar(is_searching).bind(pid).bind(DEAF).fetch_one(&mut administrator);
            look.await.unwrap()
        })
        .await;
    let end = sqlx::query_scalar::<_, bool>("SELECT pg_terminate_backend($1, 300)").bind(pid);
    assert!(!end.fetch_one(&mut administrator).await.unwrap(), "the control: it ignores termination");
    other.execute(WRITE).await.unwrap();
    server.take_blockers();

    let begun = Instant::now();
    let error = server.set_access(&tenant.placement, level).await.unwrap_err();
    println!("PostgreSQL {}: it gave up after {:?}: {error}", postgres.binaries().major, begun.elapsed());
    assert_eq!(error.reason(), Reason::TerminationIgnored, "{error}");
    assert!(error.to_string().contains(&format!("pid {pid} ")), "{error}");
    let facts = server.observe(&tenant.placement).await.unwrap();
    assert_ne!(access(&facts), Some(level), "it is not proven");
    assert!(other.execute(WRITE).await.is_err(), "its other session was ended");
    // It may still log in, and has no right to write.
    refuses_to_write(&mut tenant.session(postgres).await.unwrap()).await;
    // The report distinguishes the two.
    let told: Vec<i32> = server.take_blockers().iter().filter_map(|told| told.pid).collect();
    assert!(told.contains(&pid), "{told:?}");
    let running = server.still_running(&[(pid, Duration::ZERO), (of_other, Duration::ZERO)]).await.unwrap();
    assert_eq!(Vec::from_iter(running), [pid]);
    deaf
}

async fn refuses_to_write(session: &mut PgConnection) {
    let refused = session.execute(WRITE).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{refused}");
}
