//! A session that ignores termination: a search in a very long text looks for no signal until it is done. What it locks puts
//! off a part of a suspension only, and it is reported as what it is.

use std::time::{Duration, Instant};

use sqlx::{Executor, PgConnection};
use tenantry::{api::reason::Reason, domain::access::AccessLevel, postgres::server::Server};
use tenantry_dev::{Postgres, Stop};
use tenantry_test_support::Wait;
use tokio::task::JoinHandle;

use crate::servers::{Tenant, access, ready};

use super::locks::{open, own_server};

/// What the suspension of the login and of its CONNECT wait for.
const LOCKS: &str =
    "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'x'; GRANT CONNECT ON DATABASE {database} TO PUBLIC";
/// It takes minutes. Nothing but the end of the server ends it, once it has the lock: the texts are built before.
const DEAF: &str =
    "SELECT position(CASE WHEN pg_try_advisory_xact_lock(4711) THEN 'b' || repeat('a', 100000) END
    IN repeat('a', 3000000))";
const WRITE: &str = "INSERT INTO public.users (email) VALUES (gen_random_uuid() || '@deaf.example')";

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
    let (blocked, read_only) = (Tenant::new("tenant_blocked"), Tenant::new("tenant_read_only"));
    blocked.provision(&server, 1).await;
    read_only.provision(&server, 1).await;
    if major == 15 {
        // As on some managed servers: only the login itself may end its sessions.
        let mut administrator = postgres.connect("postgres").await.unwrap();
        let revoke = "REVOKE pg_signal_backend, pg_read_all_stats FROM tenantry_admin";
        administrator.execute(revoke).await.unwrap();
    }
    let (first, second) = tokio::join!(
        suspend(&postgres, &server, &blocked, AccessLevel::Blocked),
        suspend(&postgres, &server, &read_only, AccessLevel::ReadOnly)
    );
    // Only the revocation of LOGIN and CONNECT waits. The report of what it waited for distinguishes what still runs.
    let asked: Vec<i32> = server.take_blockers().iter().filter_map(|asked| asked.pid).collect();
    assert!(asked.contains(&first.deaf) && !asked.contains(&second.deaf), "{asked:?}");
    let asked = [first.deaf, first.other].map(|pid| (pid, Duration::ZERO));
    assert_eq!(Vec::from_iter(server.still_running(&asked).await.unwrap()), [first.deaf]);
    // What an administrator can do. A fast stop would wait for them.
    postgres.stop(Stop::Immediate).await.unwrap();
    postgres.start_again().await.unwrap();
    first.search.await.unwrap();
    second.search.await.unwrap();
    for (tenant, level) in [(&blocked, AccessLevel::Blocked), (&read_only, AccessLevel::ReadOnly)] {
        Wait::until("the operator's sessions are new")
            .is_true(async || server.set_access(&tenant.placement, level).await.is_ok())
            .await;
        assert_eq!(access(&server.observe(&tenant.placement).await.unwrap()), Some(level));
    }
}

/// The sessions of a tenant that was suspended in vain.
struct Suspended {
    deaf: i32,
    search: JoinHandle<()>,
    /// One that was ended.
    other: i32,
}

async fn suspend(postgres: &Postgres, server: &Server, tenant: &Tenant, level: AccessLevel) -> Suspended {
    let mut deaf = open(postgres, tenant, LOCKS).await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut deaf).await.unwrap();
    let search = tokio::spawn(async move { drop(deaf.execute(DEAF).await) });
    let mut other = tenant.session(postgres).await.unwrap();
    let of_other: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut other).await.unwrap();
    let mut administrator = postgres.connect("postgres").await.unwrap();
    let is_searching = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND locktype = 'advisory')";
    Wait::until("the search has begun")
        .is_true(async || {
            sqlx::query_scalar(is_searching).bind(pid).fetch_one(&mut administrator).await.unwrap()
        })
        .await;
    let end = sqlx::query_scalar::<_, bool>("SELECT pg_terminate_backend($1, 300)").bind(pid);
    assert!(!end.fetch_one(&mut administrator).await.unwrap(), "the control: it ignores termination");
    other.execute(WRITE).await.unwrap();

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
    Suspended { deaf: pid, search, other: of_other }
}

async fn refuses_to_write(session: &mut PgConnection) {
    let refused = session.execute(WRITE).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{refused}");
}
