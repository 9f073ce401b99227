//! The limit on the temporary files of a tenant's login: without it one session can fill the disk, and the login itself
//! cannot change it.

use sqlx::{Connection, Executor, PgConnection};
use tenantry::{domain::usage::entitlements::LoginLimits, postgres::server::Server};
use tenantry_dev::Postgres;

use crate::servers::{Tenant, ready, refusal, set_up, start};

const LIMITS: LoginLimits = LoginLimits { connections: 5, temp_file_kilobytes: 1024 };

/// Statements that need about ten megabytes of temporary files.
const SORT: &str =
    "SELECT count(*) FROM (SELECT repeat('x', 100) || n FROM generate_series(1, 100000) AS n ORDER BY 1) s";
const CURSOR: &str =
    "DECLARE c CURSOR WITH HOLD FOR SELECT repeat('x', 100) || n FROM generate_series(1, 100000) AS n";

async fn setting(admin: &mut PgConnection) -> Option<String> {
    let settings =
        "SELECT array_to_string(setconfig, ',') FROM pg_db_role_setting WHERE setrole = $1::regrole";
    sqlx::query_scalar(settings).bind("tenant_files_app").fetch_optional(admin).await.unwrap()
}

async fn with_limit(postgres: &Postgres, server: &Server, tenant: &Tenant) -> PgConnection {
    server.limit_login(&tenant.placement, LIMITS).await.unwrap();
    let mut session = tenant.session(postgres).await.unwrap();
    session.execute("SET work_mem = '64kB'").await.unwrap();
    session
}

#[tokio::test]
async fn temporary_files_of_a_login_are_limited() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = ready(&postgres).await;
        let tenant = Tenant::new("tenant_files");
        tenant.provision(&server, 1).await;
        let mut admin = postgres.connect("postgres").await.unwrap();

        // Where an administrator did not grant the right, only the number of sessions is limited.
        admin.execute("REVOKE ALL ON PARAMETER temp_file_limit FROM tenantry_admin").await.unwrap();
        let mut session = with_limit(&postgres, &server, &tenant).await;
        assert_eq!(setting(&mut admin).await, None);
        session.execute(SORT).await.unwrap();
        session.execute(CURSOR).await.unwrap();
        let limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'tenant_files_app'";
        assert_eq!(sqlx::query_scalar::<_, i32>(limit).fetch_one(&mut admin).await.unwrap(), 5);
        session.close().await.unwrap();

        admin.execute("GRANT SET ON PARAMETER temp_file_limit TO tenantry_admin").await.unwrap();
        let mut session = with_limit(&postgres, &server, &tenant).await;
        for (statement, state) in [
            (SORT, "53400"),
            (CURSOR, "53400"),
            ("SET temp_file_limit = -1", "42501"),
            ("ALTER ROLE CURRENT_USER SET temp_file_limit = -1", "42501"),
            ("ALTER ROLE CURRENT_USER RESET temp_file_limit", "42501"),
            ("ALTER ROLE CURRENT_USER IN DATABASE tenant_files SET temp_file_limit = -1", "42501"),
            ("ALTER DATABASE tenant_files SET temp_file_limit = -1", "42501"),
        ] {
            assert_eq!(refusal(&mut session, statement).await, state, "{statement} on {major}");
        }
        // It resets what the login may set, and nothing else.
        session.execute("ALTER ROLE CURRENT_USER SET work_mem = '64kB'").await.unwrap();
        session.execute("ALTER ROLE CURRENT_USER RESET ALL").await.unwrap();
        assert_eq!(setting(&mut admin).await.as_deref(), Some("temp_file_limit=1024"));
        let own = "SELECT set_config('temp_file_limit', '-1', false)";
        assert_eq!(refusal(&mut session, own).await, "42501");
        let (login, password) = (&tenant.placement.login, tenant.password.expose());
        let options =
            format!("{}?options=-c%20temp_file_limit=-1", postgres.url(login, password, "tenant_files"));
        assert!(PgConnection::connect(&options).await.is_err(), "by the startup packet");
        // Ordinary work goes on, and a larger limit applies to the next session.
        session.execute("SELECT count(*) FROM users").await.unwrap();
        let larger = LoginLimits { temp_file_kilobytes: -1, ..LIMITS };
        server.limit_login(&tenant.placement, larger).await.unwrap();
        tenant.session(&postgres).await.unwrap().execute(SORT).await.unwrap();
    }
}
