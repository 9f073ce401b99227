//! What `docs/security.md` advises an administrator to do, each with the action that it stops.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry_dev::Postgres;
use tenantry_test_support::Wait;

use crate::servers::{Tenant, ready, refusal, set_up, start};

/// The functions have another argument since version 17.
const REVOKE_MESSAGES: &str = "DO $$ BEGIN EXECUTE (SELECT string_agg(
    format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', oid::regprocedure), '; ')
    FROM pg_proc WHERE proname = 'pg_logical_emit_message'); END $$";

/// What an administrator reads to find the sessions that others wait for.
const BLOCKING: &str = "SELECT DISTINCT b.usename::text FROM pg_stat_activity w
    CROSS JOIN unnest(pg_blocking_pids(w.pid)) AS p (pid) JOIN pg_stat_activity b ON b.pid = p.pid";

#[tokio::test]
async fn advice_stops_what_it_is_given_for() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        // Before the first template is built from it.
        let mut template1 = postgres.connect("template1").await.unwrap();
        template1.execute(REVOKE_MESSAGES).await.unwrap();
        template1.close().await.unwrap();
        let tenant = Tenant::new("tenant_advised");
        tenant.provision(&ready(&postgres).await, 1).await;

        messages_in_the_wal_are_refused(&postgres, &tenant).await;
        temporary_files_are_limited(&postgres, &tenant).await;
        for database in ["postgres", "template0"] {
            row_of_a_database_is_not_locked(&postgres, &tenant, database).await;
        }
        // The operator needs none of these rights.
        Tenant::new("tenant_later").provision(&ready(&postgres).await, 1).await;
    }
}

async fn messages_in_the_wal_are_refused(postgres: &Postgres, tenant: &Tenant) {
    let mut session = tenant.session(postgres).await.unwrap();
    for message in [
        "SELECT pg_logical_emit_message(false, 'x', 'y')",
        "SELECT pg_logical_emit_message(false, 'x', 'y'::bytea)",
    ] {
        assert_eq!(refusal(&mut session, message).await, "42501");
    }
}

async fn temporary_files_are_limited(postgres: &Postgres, tenant: &Tenant) {
    let fill = "DECLARE c CURSOR WITH HOLD FOR SELECT repeat('x', 1000) FROM generate_series(1, 20000)";
    tenant.session(postgres).await.unwrap().execute(fill).await.unwrap();
    let mut administrator = postgres.connect("postgres").await.unwrap();
    administrator.execute("ALTER ROLE tenant_advised_app SET temp_file_limit = '10MB'").await.unwrap();
    assert_eq!(refusal(&mut tenant.session(postgres).await.unwrap(), fill).await, "53400");
    let mut session = tenant.session(postgres).await.unwrap();
    for change in [
        "SET temp_file_limit = -1",
        "ALTER ROLE CURRENT_USER SET temp_file_limit = -1",
        "ALTER ROLE CURRENT_USER RESET temp_file_limit",
    ] {
        assert_eq!(refusal(&mut session, change).await, "42501", "{change}");
    }
    // This removes only what the login may set.
    session.execute("ALTER ROLE CURRENT_USER RESET ALL").await.unwrap();
    assert_eq!(refusal(&mut tenant.session(postgres).await.unwrap(), fill).await, "53400");
}

/// A tenant's GRANT on a database on which PUBLIC has any right grants nothing, but holds its row.
async fn row_of_a_database_is_not_locked(postgres: &Postgres, tenant: &Tenant, database: &str) {
    let mut session = tenant.session(postgres).await.unwrap();
    let mut administrator = postgres.connect("postgres").await.unwrap();
    administrator.execute("SET lock_timeout = '500ms'").await.unwrap();
    let grant = || AssertSqlSafe(format!("BEGIN; GRANT TEMP ON DATABASE {database} TO PUBLIC"));
    let revoke = || AssertSqlSafe(format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC"));
    let code = |error: sqlx::Error| error.as_database_error().unwrap().code().unwrap().into_owned();

    // As on a server where the setup could not revoke it.
    let open = format!("GRANT CONNECT, TEMP ON DATABASE {database} TO PUBLIC");
    administrator.execute(AssertSqlSafe(open)).await.unwrap();
    session.execute(grant()).await.unwrap();
    assert_eq!(code(administrator.execute(revoke()).await.unwrap_err()), "55P03", "{database}");
    if database == "postgres" {
        assert_eq!(refusal(&mut administrator, "VACUUM").await, "55P03");
        blocking_session_is_found(postgres, &mut administrator, tenant).await;
    }
    session.execute("ROLLBACK").await.unwrap();

    administrator.execute(revoke()).await.unwrap();
    assert_eq!(code(session.execute(grant()).await.unwrap_err()), "42501", "{database}");
}

async fn blocking_session_is_found(postgres: &Postgres, administrator: &mut PgConnection, tenant: &Tenant) {
    let mut waiting = postgres.connect("postgres").await.unwrap();
    let waits = tokio::spawn(async move { waiting.execute("VACUUM").await });
    let login: String = Wait::until("the query finds who blocks VACUUM")
        .observe(async || {
            let found = sqlx::query_scalar(BLOCKING).fetch_optional(&mut *administrator).await.unwrap();
            found.ok_or("no login")
        })
        .await;
    assert_eq!(login, tenant.placement.login);
    let cancel =
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query = 'VACUUM' AND state = 'active'";
    administrator.execute(cancel).await.unwrap();
    waits.await.unwrap().unwrap_err();
}
