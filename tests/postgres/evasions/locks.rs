//! Locks that a tenant's login holds: they put off neither a suspension nor any other work of the operator. Each is first
//! shown to block the statement for which the operator would wait.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::{
    domain::{
        access::AccessLevel,
        usage::entitlements::{Entitlements, LoginLimits},
    },
    postgres::{
        server::Server,
        tenant::credentials::{generate_password, scram_verifier},
    },
};
use tenantry_dev::Postgres;
use tenantry_test_support::Wait;
use tokio::task::JoinHandle;

use crate::servers::{Tenant, access, ready, set_up, start};

use super::stage::{Outcome, as_text};

/// The maximum duration of a suspension, on a busy machine: on an idle one, it is a second or two. The locks are held for ever.
const SOON: Duration = Duration::from_secs(60);

/// How a tenant holds a lock.
#[derive(Clone, Copy)]
enum Hold {
    /// Statements of a session that stays open.
    Open(&'static str),
    /// Statements whose session ends: the transaction is prepared.
    Prepared(&'static str),
    /// A session that is still starting.
    Starting,
    /// Twelve sessions that run these statements all the time, and connect again when they are ended.
    Storm(&'static str),
}

use Hold::{Open, Prepared, Starting, Storm};

const PASSWORD: &str = "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'x'";
const CONNECT: &str = "BEGIN; GRANT CONNECT ON DATABASE {database} TO PUBLIC";
const NO_LOGIN: &str = "ALTER ROLE {login} NOLOGIN";
const REVOKE: &str = "REVOKE CONNECT ON DATABASE {database} FROM {login}";
const DROP_ROLE: &str = "DROP ROLE {login}";

/// A way, and a statement that waits for it. A storm has none: it fails only now and then.
const HOLDS: &[(&str, &[Hold], Option<&str>)] = &[
    ("its password", &[Open(PASSWORD)], Some(NO_LOGIN)),
    ("CONNECT on its database", &[Open(CONNECT)], Some(REVOKE)),
    ("its settings", &[Open("BEGIN; ALTER ROLE CURRENT_USER SET work_mem = '1MB'")], Some(DROP_ROLE)),
    (
        "a savepoint",
        &[Open("BEGIN; SAVEPOINT s; ALTER ROLE CURRENT_USER PASSWORD 'x'; SAVEPOINT t")],
        Some(NO_LOGIN),
    ),
    ("both", &[Open(PASSWORD), Open(CONNECT)], Some(NO_LOGIN)),
    ("a queue", &[Open(PASSWORD), Storm(PASSWORD)], Some(NO_LOGIN)),
    (
        "a prepared transaction",
        &[Prepared("BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'x'; PREPARE TRANSACTION '{database} p'")],
        Some(NO_LOGIN),
    ),
    (
        "two prepared transactions, one with a savepoint",
        &[
            Prepared(
                "BEGIN; SAVEPOINT s; ALTER ROLE CURRENT_USER PASSWORD 'x'; RELEASE s; PREPARE TRANSACTION '{database} p'",
            ),
            Prepared(
                "BEGIN; GRANT CONNECT ON DATABASE {database} TO PUBLIC; PREPARE TRANSACTION '{database} q'",
            ),
        ],
        Some(REVOKE),
    ),
    (
        "a session that is still starting",
        &[Starting],
        Some("ALTER DATABASE {database} RENAME TO {database}_x"),
    ),
    ("a storm of passwords", &[Storm("ALTER ROLE CURRENT_USER PASSWORD '{password}'")], None),
    ("a storm of grants", &[Storm("GRANT CONNECT ON DATABASE {database} TO PUBLIC")], None),
    (
        "everything",
        &[
            Open(PASSWORD),
            Open(CONNECT),
            Prepared(
                "BEGIN; ALTER ROLE CURRENT_USER IN DATABASE {database} SET work_mem = '1MB'; PREPARE TRANSACTION '{database} p'",
            ),
            Starting,
            Storm("ALTER ROLE CURRENT_USER PASSWORD '{password}'"),
        ],
        Some(NO_LOGIN),
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locks_put_nothing_off_on_15() {
    try_all(15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locks_put_nothing_off_on_18() {
    try_all(18).await;
}

async fn try_all(major: u16) {
    let postgres = own_server(major).await;
    let server = ready(&postgres).await;
    suspend_all(&postgres, &server, "all").await;
    stop_no_other_work(&postgres, &server).await;
    respect_administrators(&postgres, &server).await;
    // As on some managed servers: only the login itself may end its sessions.
    let mut administrator = postgres.connect("postgres").await.unwrap();
    let revoke = "REVOKE pg_signal_backend, pg_read_all_stats FROM tenantry_admin";
    administrator.execute(revoke).await.unwrap();
    suspend_all(&postgres, &server, "reduced").await;
}

async fn suspend_all(postgres: &Postgres, server: &Server, rights: &str) {
    let major = postgres.binaries().major;
    let mut wrong = Vec::new();
    let mut slowest = (Duration::ZERO, "");
    for (number, (name, holds, waits)) in HOLDS.iter().enumerate() {
        match suspend(postgres, server, &format!("tenant_{rights}_{number}"), holds, *waits).await {
            Ok(took) => slowest = slowest.max((took, name)),
            Err(why) => wrong.push(format!("{name}: {why}")),
        }
    }
    println!("PostgreSQL {major}, {rights} rights: the slowest of {} suspensions: {slowest:?}", HOLDS.len());
    assert!(wrong.is_empty(), "on PostgreSQL {major} with {rights} rights\n{}\n", wrong.join("\n"));
}

async fn suspend(
    postgres: &Postgres,
    server: &Server,
    database: &str,
    holds: &[Hold],
    waits: Option<&str>,
) -> Outcome<Duration> {
    let tenant = Tenant::new(database);
    tenant.provision(server, 1).await;
    let held = Held::begin(postgres, &tenant, holds).await?;
    if let Some(statement) = waits {
        waits_for_a_lock(postgres, &tenant, statement).await?;
    }
    let begun = Instant::now();
    server.set_access(&tenant.placement, AccessLevel::Blocked).await.map_err(as_text)?;
    let took = begun.elapsed();
    let facts = server.observe(&tenant.placement).await.map_err(as_text)?;
    if access(&facts) != Some(AccessLevel::Blocked) {
        return Err(format!("{:?} instead of Blocked", access(&facts)));
    }
    let left = "SELECT (SELECT count(*) FROM pg_stat_activity WHERE usename = $1)
        + (SELECT count(*) FROM pg_prepared_xacts WHERE owner = $1)
        + (SELECT count(*) FROM pg_locks WHERE database = 0 AND classid = 'pg_database'::regclass
               AND objid = (SELECT oid FROM pg_database WHERE datname = $2))";
    let mut administrator = postgres.connect("postgres").await.map_err(as_text)?;
    let left = sqlx::query_scalar::<_, i64>(left).bind(&tenant.placement.login).bind(database);
    // A storm still knocks, and is refused.
    let left = left.fetch_one(&mut administrator).await.map_err(as_text)?;
    let storms = holds.iter().any(|hold| matches!(hold, Storm(_)));
    if left > 0 && !storms {
        return Err(format!("{left} sessions or transactions are left"));
    }
    held.end().await;
    if tenant.session(postgres).await.is_ok() {
        return Err("it can still log in".to_owned());
    }
    if took > SOON { Err(format!("it took {took:?}")) } else { Ok(took) }
}

/// A server of its own: the locks and their end would disturb other tests.
pub async fn own_server(major: u16) -> Postgres {
    let settings = vec![("max_prepared_transactions".to_owned(), "20".to_owned())];
    set_up(start(major, settings).await).await
}

/// Locks that a tenant holds.
pub struct Held {
    sessions: Vec<PgConnection>,
    tasks: Vec<JoinHandle<()>>,
}

impl Held {
    async fn begin(postgres: &Postgres, tenant: &Tenant, holds: &[Hold]) -> Outcome<Self> {
        let mut held = Self { sessions: Vec::new(), tasks: Vec::new() };
        for hold in holds {
            match hold {
                Open(sql) => held.sessions.push(open(postgres, tenant, sql).await?),
                Prepared(sql) => drop(open(postgres, tenant, sql).await?.close().await),
                Starting => held.tasks.push(starting(postgres, tenant).await?),
                Storm(sql) => {
                    for _ in 0..12 {
                        held.tasks.push(storm(url(postgres, tenant), fill(sql, tenant)));
                    }
                }
            }
        }
        Ok(held)
    }

    async fn end(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

pub fn url(postgres: &Postgres, tenant: &Tenant) -> String {
    postgres.url(&tenant.placement.login, tenant.password.expose(), &tenant.placement.database)
}

pub fn fill(sql: &str, tenant: &Tenant) -> String {
    sql.replace("{database}", &tenant.placement.database)
        .replace("{login}", &tenant.placement.login)
        .replace("{password}", tenant.password.expose())
}

/// A session of the tenant that has run these statements.
pub async fn open(postgres: &Postgres, tenant: &Tenant, sql: &str) -> Outcome<PgConnection> {
    let mut session = tenant.session(postgres).await.map_err(as_text)?;
    session.execute(AssertSqlSafe(fill(sql, tenant))).await.map_err(as_text)?;
    Ok(session)
}

fn storm(url: String, sql: String) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            if let Ok(mut session) = PgConnection::connect(&url).await {
                while session.execute(AssertSqlSafe(sql.clone())).await.is_ok() {}
            }
        }
    })
}

/// A session that waits for ten minutes while it starts.
async fn starting(postgres: &Postgres, tenant: &Tenant) -> Outcome<JoinHandle<()>> {
    let url = format!("{}&options=-c%20post_auth_delay=600", url(postgres, tenant));
    let task = tokio::spawn(async move { drop(PgConnection::connect(&url).await) });
    let is_there = "SELECT EXISTS (SELECT FROM pg_locks WHERE mode = 'RowExclusiveLock'
        AND classid = 'pg_database'::regclass AND objid = (SELECT oid FROM pg_database WHERE datname = $1))";
    let mut administrator = postgres.connect("postgres").await.map_err(as_text)?;
    let database = &tenant.placement.database;
    let begun = async {
        let mut starting = false;
        while !starting {
            let look = sqlx::query_scalar(is_there).bind(database).fetch_one(&mut administrator);
            starting = look.await.map_err(as_text)?;
        }
        Ok(())
    };
    Wait::until("a session of the tenant is starting").future::<Outcome>(begun).await?;
    Ok(task)
}

/// The control: a statement of an administrator, without the operator's help, waits for the tenant.
async fn waits_for_a_lock(postgres: &Postgres, tenant: &Tenant, statement: &str) -> Outcome {
    let mut administrator = postgres.connect("postgres").await.map_err(as_text)?;
    administrator.execute("SET lock_timeout = '300ms'; BEGIN").await.map_err(as_text)?;
    match administrator.execute(AssertSqlSafe(fill(statement, tenant))).await {
        Ok(_) => Err("nothing waits for it".to_owned()),
        Err(error)
            if error.as_database_error().and_then(|error| error.code()).as_deref() == Some("55P03") =>
        {
            Ok(())
        }
        Err(error) => Err(format!("the control: {error}")),
    }
}

/// Whatever the operator does with a tenant: its own locks do not stop it, nor those of another tenant.
async fn stop_no_other_work(postgres: &Postgres, server: &Server) {
    let (hostile, other) = (Tenant::new("tenant_hostile"), Tenant::new("tenant_other"));
    hostile.provision(server, 1).await;
    other.provision(server, 1).await;
    server.take_blockers();
    let begin = async |tenant: &Tenant, sql: &str, waits: &str| {
        let session = open(postgres, &hostile, sql).await.unwrap();
        waits_for_a_lock(postgres, tenant, waits).await.unwrap();
        session
    };
    let is_ended = async |mut session: PgConnection| assert!(session.execute("SELECT 1").await.is_err());

    let session = begin(&hostile, PASSWORD, NO_LOGIN).await;
    server.set_login(&hostile.placement, &scram_verifier(&hostile.password), true).await.unwrap();
    is_ended(session).await;
    let session = begin(&hostile, PASSWORD, NO_LOGIN).await;
    let limits = LoginLimits { connections: 50, temp_file_kilobytes: -1 };
    server.limit_login(&hostile.placement, limits).await.unwrap();
    is_ended(session).await;
    // The migrator is granted CONNECT.
    let session = begin(&hostile, CONNECT, REVOKE).await;
    server.apply_limits(&hostile.placement, &Entitlements::default()).await.unwrap();
    is_ended(session).await;
    // No session can connect to its own database.
    let rename = "ALTER DATABASE {database} RENAME TO x";
    let in_own = "BEGIN; ALTER ROLE CURRENT_USER IN DATABASE {database} SET work_mem = '1MB'";
    let session = begin(&hostile, in_own, rename).await;
    let waiting = tokio::spawn(rename_in_vain(url(postgres, &hostile), fill(rename, &hostile)));
    until_waiting(postgres, "postgres", &hostile.placement.database).await;
    server.apply_limits(&hostile.placement, &Entitlements::default()).await.unwrap();
    waiting.await.unwrap();
    drop(session);

    let of_other = "BEGIN; ALTER ROLE CURRENT_USER IN DATABASE tenant_other SET work_mem = '1MB'";
    let session = begin(&other, of_other, rename).await;
    server.set_access(&other.placement, AccessLevel::Blocked).await.unwrap();
    server.drop_database(&other.placement).await.unwrap();
    is_ended(session).await;
    let of_other = "BEGIN; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO tenant_other_app";
    let session = begin(&other, of_other, DROP_ROLE).await;
    server.drop_login(&other.placement).await.unwrap();
    is_ended(session).await;
    // Committed in the database of one tenant, it keeps the login of another one from being dropped.
    let third = Tenant::new("tenant_third");
    server.create_login(&third.placement).await.unwrap();
    let to_third = "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO tenant_third_app";
    open(postgres, &hostile, to_third).await.unwrap();
    let mut administrator = postgres.connect("postgres").await.unwrap();
    let refused = administrator.execute(AssertSqlSafe(fill(DROP_ROLE, &third))).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("2BP01"));
    server.drop_login(&third.placement).await.unwrap();
    // What blocked the operator is reported: all by the hostile tenant.
    let ended = server.take_blockers();
    assert!(ended.len() >= 5, "{ended:?}");
    assert!(ended.iter().all(|ended| ended.tenant == hostile.placement.tenant), "{ended:?}");
    assert!(server.take_blockers().is_empty());
}

/// Waits for a lock until the session is ended.
pub async fn rename_in_vain(url: String, sql: String) {
    let mut session = PgConnection::connect(&url).await.unwrap();
    assert!(session.execute(AssertSqlSafe(sql)).await.is_err());
}

/// Returns once a session waits for an exclusive lock on a database, as seen from another one.
pub async fn until_waiting(postgres: &Postgres, from: &str, database: &str) {
    let is_there = "SELECT EXISTS (SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted
        AND classid = 'pg_database'::regclass AND objid = (SELECT oid FROM pg_database WHERE datname = $1))";
    let mut administrator = postgres.connect(from).await.unwrap();
    Wait::until("a session waits for the lock on a database")
        .is_true(async || {
            sqlx::query_scalar(is_there).bind(database).fetch_one(&mut administrator).await.unwrap()
        })
        .await;
}

/// The sessions of administrators are never ended: the operator gives up soon, and says that it waited for a lock.
async fn respect_administrators(postgres: &Postgres, server: &Server) {
    let tenant = Tenant::new("tenant_managed");
    tenant.provision(server, 1).await;
    let mut administrator = postgres.connect("postgres").await.unwrap();
    administrator
        .execute("CREATE ROLE dba LOGIN PASSWORD 'dba' IN ROLE tenantry_admin; SET SESSION AUTHORIZATION dba; SET ROLE tenantry_admin")
        .await
        .unwrap();
    administrator
        .execute(AssertSqlSafe(fill("BEGIN; ALTER ROLE {login} CONNECTION LIMIT 7", &tenant)))
        .await
        .unwrap();
    let begun = Instant::now();
    let verifier = scram_verifier(&generate_password());
    let error = server.set_login(&tenant.placement, &verifier, true).await.unwrap_err();
    assert_eq!(error.reason(), tenantry::api::reason::Reason::LockTimeout, "{error}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    administrator.execute("COMMIT").await.unwrap();
    server.set_login(&tenant.placement, &verifier, true).await.unwrap();
}
