//! The lock watch: a tenant that locks others out is ended within a few seconds, and ordinary work is not.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::{domain::lock_watch::LockWatch, postgres::server::Server};
use tenantry_dev::Postgres;

use crate::servers::{Tenant, ready};

use super::locks::{open, own_server, rename_in_vain, until_waiting, url};

/// The interval of the looks, for the watch: the test does not wait in between.
const INTERVAL: Duration = Duration::from_secs(2);

/// Looks, as the loop does, until something was ended.
async fn watch_until_ended(server: &Server) -> Vec<String> {
    let mut watch = LockWatch::default();
    for look in 0.. {
        let locks = server.shared_locks().await.unwrap();
        let mut ended = Vec::new();
        for lock in watch.look(&locks, INTERVAL * look) {
            if server.end_lock(lock).await.unwrap() {
                ended.push(lock.role.clone());
            }
        }
        if !ended.is_empty() {
            return ended;
        }
    }
    unreachable!()
}

async fn connects(url: &str, within: Duration) -> bool {
    tokio::time::timeout(within, PgConnection::connect(url)).await.is_ok_and(|session| session.is_ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locked_out_others_connect_again_on_15() {
    try_all(15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locked_out_others_connect_again_on_18() {
    try_all(18).await;
}

async fn try_all(major: u16) {
    let postgres = own_server(major).await;
    let server = ready(&postgres).await;
    let (hostile, other) = (Tenant::new("tenant_hostile"), Tenant::new("tenant_other"));
    hostile.provision(&server, 1).await;
    other.provision(&server, 1).await;
    // It opens the standing session, as the first look of the watch does.
    server.shared_locks().await.unwrap();
    lock_out(&postgres, &server, &hostile, &other).await;
    pass_a_lock_on(&postgres, &server, &hostile).await;
    lock_out_the_operator(&postgres, &server, &hostile).await;
    lock_a_row(&postgres, &server, &hostile).await;
    work_ordinarily(&postgres, &server).await;
    // As on some managed servers: only the login itself may end its sessions.
    let mut administrator = postgres.connect("postgres").await.unwrap();
    let revoke = "REVOKE pg_signal_backend, pg_read_all_stats FROM tenantry_admin";
    administrator.execute(revoke).await.unwrap();
    lock_out(&postgres, &server, &hostile, &other).await;
}

async fn lock_out(postgres: &Postgres, server: &Server, hostile: &Tenant, other: &Tenant) {
    let everyone = [
        ("tenant_other", url(postgres, other)),
        ("postgres", postgres.admin_url("postgres")),
        ("template1", postgres.admin_url("template1")),
    ];
    for prepared in [false, true] {
        for (database, url_of_other) in &everyone {
            let (holder, waiting) = lock_out_of(postgres, hostile, database, prepared).await;
            assert!(
                !connects(url_of_other, Duration::from_millis(700)).await,
                "the control: {database} is locked"
            );
            let ended = watch_until_ended(server).await;
            assert!(ended.iter().all(|role| *role == hostile.placement.login), "{ended:?}");
            assert!(connects(url_of_other, Duration::from_secs(60)).await, "{database}");
            drop(holder);
            waiting.await.unwrap();
        }
    }
    let left = "SELECT count(*) FROM pg_prepared_xacts";
    let mut administrator = postgres.connect("postgres").await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&mut administrator).await.unwrap(), 0);
}

/// One session or prepared transaction holds a weak lock on the database, another session waits for a strong one.
pub async fn lock_out_of(
    postgres: &Postgres,
    hostile: &Tenant,
    database: &str,
    prepared: bool,
) -> (Option<PgConnection>, tokio::task::JoinHandle<()>) {
    let mut hold = format!("BEGIN; ALTER ROLE CURRENT_USER IN DATABASE {database} SET work_mem = '1MB'");
    if prepared {
        hold.push_str(&format!("; PREPARE TRANSACTION '{database}'"));
    }
    let holder = open(postgres, hostile, &hold).await.unwrap();
    let waiting = tokio::spawn(rename_in_vain(
        url(postgres, hostile),
        format!("ALTER DATABASE {database} RENAME TO stolen"),
    ));
    // An administrator in another database sees the locks.
    let from = if database == "template1" { "postgres" } else { "template1" };
    until_waiting(postgres, from, database).await;
    ((!prepared).then_some(holder), waiting)
}

/// Each session holds the lock for less time than the watch allows, and passes it on to the next one.
async fn pass_a_lock_on(postgres: &Postgres, server: &Server, hostile: &Tenant) {
    let mut watch = LockWatch::default();
    let mut ended = Vec::new();
    for look in 0..4 {
        let (holder, waiting) = lock_out_of(postgres, hostile, "tenant_other", false).await;
        let locks = server.shared_locks().await.unwrap();
        for lock in watch.look(&locks, INTERVAL * look) {
            assert!(server.end_lock(lock).await.unwrap());
            ended.push(look);
        }
        drop(holder);
        waiting.await.unwrap();
    }
    assert_eq!(ended, [2, 3], "from the third look on");
}

/// The operator itself gets in at once: it does not wait for the watch.
async fn lock_out_the_operator(postgres: &Postgres, server: &Server, hostile: &Tenant) {
    let (holder, waiting) = lock_out_of(postgres, hostile, "postgres", false).await;
    let installation = crate::servers::INSTALLATION;
    let begun = Instant::now();
    server.preflight(installation).await.unwrap();
    println!("PostgreSQL {}: the preflight took {:?}", postgres.binaries().major, begun.elapsed());
    waiting.await.unwrap();
    drop(holder);
    let ended = server.take_blockers();
    assert!(ended.iter().any(|ended| ended.tenant == hostile.placement.tenant), "{ended:?}");
}

/// The row of a shared catalog shows no lock until another session waits for it: here VACUUM, at its end.
async fn lock_a_row(postgres: &Postgres, server: &Server, hostile: &Tenant) {
    let mut administrator = postgres.connect("postgres").await.unwrap();
    let grant = "BEGIN; GRANT TEMP ON DATABASE postgres TO PUBLIC";
    assert!(open(postgres, hostile, grant).await.is_err(), "the setup leaves PUBLIC no right there");
    // As on a server whose administrator does not own `postgres`.
    administrator.execute("GRANT TEMP ON DATABASE postgres TO PUBLIC").await.unwrap();
    let mut holder = open(postgres, hostile, grant).await.unwrap();
    administrator.execute("SET lock_timeout = '300ms'").await.unwrap();
    assert!(administrator.execute("VACUUM pg_class").await.is_err(), "the control: it waits");
    administrator.execute("RESET lock_timeout").await.unwrap();
    let vacuum = tokio::spawn(async move { administrator.execute("VACUUM pg_class").await.map(drop) });
    assert_eq!(watch_until_ended(server).await, [hostile.placement.login.as_str()]);
    vacuum.await.unwrap().unwrap();
    assert!(holder.execute("SELECT 1").await.is_err());
}

/// Ordinary work and administrators are not ended.
async fn work_ordinarily(postgres: &Postgres, server: &Server) {
    let tenant = Tenant::new("tenant_honest");
    tenant.provision(server, 1).await;
    let ordinary = [
        "BEGIN; SELECT * FROM pg_database, pg_roles, pg_auth_members, pg_db_role_setting, pg_shdepend",
        "BEGIN; INSERT INTO users (email) VALUES ('a@b.example'); SELECT pg_advisory_lock(1); LISTEN l; NOTIFY l",
        "BEGIN; LOCK TABLE roles; LOCK TABLE pg_database IN ACCESS SHARE MODE",
        "BEGIN; SELECT pg_database_size(current_database()), txid_current()",
    ];
    let mut sessions = Vec::new();
    for sql in ordinary {
        sessions.push(open(postgres, &tenant, sql).await.unwrap());
    }
    let mut administrator = postgres.connect("postgres").await.unwrap();
    let alter = format!(
        "CREATE ROLE colleague LOGIN; SET SESSION AUTHORIZATION colleague; BEGIN; ALTER ROLE CURRENT_USER IN DATABASE {} SET work_mem = '1MB'",
        tenant.placement.database
    );
    administrator.execute(AssertSqlSafe(alter)).await.unwrap();
    let mut watch = LockWatch::default();
    for look in 0..3 {
        let locks = server.shared_locks().await.unwrap();
        let overdue = watch.look(&locks, INTERVAL * look);
        assert!(overdue.is_empty(), "{overdue:?}");
    }
    for mut session in sessions.into_iter().chain([administrator]) {
        session.execute("SELECT 1").await.unwrap();
    }
    // One query through one session, and none else.
    let opened = server.sessions_opened();
    server.shared_locks().await.unwrap();
    assert_eq!(server.sessions_opened(), opened);
}
