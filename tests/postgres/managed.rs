//! Servers whose administrator is not a superuser, and servers without the recommended rights.

use sqlx::Executor;
use tenantry::{
    domain::access::AccessLevel,
    postgres::{
        install::{
            preflight::MissingRight,
            setup::{SetupOptions, SetupReport, server_setup},
        },
        server::Server,
        tenant::{credentials::SecretText, databases::Dropped},
    },
};
use tenantry_dev::Postgres;

use crate::servers::{INSTALLATION, OPERATOR, PASSWORD, Tenant, access, config, ready, set_up, start};

async fn set_up_as(url: String) -> SetupReport {
    let options = SetupOptions {
        operator: OPERATOR.into(),
        password: SecretText::new(PASSWORD),
        system_database: Some("tenantry_system".into()),
    };
    server_setup(url.parse().unwrap(), &options).await.unwrap()
}

async fn preflight(postgres: &Postgres) -> Vec<MissingRight> {
    Server::new(config(postgres)).preflight(INSTALLATION).await.unwrap().missing
}

#[tokio::test]
async fn setup_without_superuser_reports_what_it_could_not_do() {
    for major in [15, 18] {
        let postgres = start(major, vec![]).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        admin.execute("CREATE ROLE master LOGIN CREATEDB CREATEROLE PASSWORD 'master'").await.unwrap();
        if major >= 16 {
            let grant = "GRANT pg_signal_backend, pg_read_all_stats TO master WITH ADMIN OPTION";
            admin.execute(grant).await.unwrap();
        }
        let url = postgres.url("master", "master", "postgres");
        let first = set_up_as(url.clone()).await;
        // A second run finds everything, and continues after what it may not change.
        let again = set_up_as(url).await;
        for report in [first, again] {
            let refused = report.refused.join("\n");
            for missing in
                ["CONNECT on postgres revoked", "CONNECT on template1 revoked", "large-object writers"]
            {
                assert!(refused.contains(missing), "{major}: {report:?}");
            }
            let done = report.done.join("\n");
            for there in
                ["role tenantry_admin", "login operator", "database tenantry_system", "pg_read_all_stats"]
            {
                assert!(done.contains(there), "{major}: {report:?}");
            }
        }
        // The administrator does not stay a member of the registry's owner.
        let masters: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_roles WHERE rolname = 'master' AND pg_has_role(oid, 'tenantry_admin', 'USAGE')",
        )
        .fetch_one(&mut admin)
        .await
        .unwrap();
        assert_eq!(masters, 0);
        assert_eq!(preflight(&postgres).await, [MissingRight::PostgresOpen, MissingRight::Template1Open]);
        // A superuser completes the setup.
        let report = set_up_as(postgres.admin_url("postgres")).await;
        assert!(report.refused.is_empty(), "{report:?}");
        let server = ready(&postgres).await;
        Tenant::new("tenant_managed").provision(&server, 1).await;
    }
}

#[tokio::test]
async fn server_upgraded_from_14_gets_a_closed_schema_public() {
    let postgres = start(18, vec![]).await;
    let mut template1 = postgres.connect("template1").await.unwrap();
    template1
        .execute("ALTER SCHEMA public OWNER TO postgres; GRANT CREATE ON SCHEMA public TO PUBLIC")
        .await
        .unwrap();
    sqlx::Connection::close(template1).await.unwrap();
    let postgres = set_up(postgres).await;
    let server = ready(&postgres).await;
    let tenant = Tenant::new("tenant_upgraded");
    tenant.provision(&server, 1).await;
    let mut session = tenant.session(&postgres).await.unwrap();
    assert_eq!(crate::servers::refusal(&mut session, "CREATE TABLE t (a int)").await, "42501");
}

#[tokio::test]
async fn membership_without_set_or_inherit_is_missing() {
    let postgres = set_up(start(18, vec![]).await).await;
    let mut admin = postgres.connect("postgres").await.unwrap();
    admin.execute("GRANT CONNECT ON DATABASE postgres TO operator").await.unwrap();
    for (option, missing) in [("SET", MissingRight::Membership), ("INHERIT", MissingRight::Membership)] {
        let change = |to: &str| format!("GRANT tenantry_admin TO operator WITH {option} {to}");
        admin.execute(sqlx::AssertSqlSafe(change("FALSE"))).await.unwrap();
        assert_eq!(preflight(&postgres).await, [missing], "{option}");
        admin.execute(sqlx::AssertSqlSafe(change("TRUE"))).await.unwrap();
    }
    admin.execute("GRANT tenantry_admin TO operator WITH ADMIN FALSE").await.unwrap();
    assert_eq!(preflight(&postgres).await, [MissingRight::AdminOption]);
    // Once the id is written, the right is no longer needed.
    admin.execute("GRANT tenantry_admin TO operator WITH ADMIN TRUE").await.unwrap();
    ready(&postgres).await;
    admin.execute("GRANT tenantry_admin TO operator WITH ADMIN FALSE").await.unwrap();
    assert_eq!(preflight(&postgres).await, []);
}

#[tokio::test]
async fn sessions_are_ended_without_the_predefined_roles() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = ready(&postgres).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        admin.execute("REVOKE pg_signal_backend, pg_read_all_stats FROM tenantry_admin").await.unwrap();
        let tenant = Tenant::new("tenant_borrowed");
        tenant.provision(&server, 1).await;
        for level in [AccessLevel::ReadOnly, AccessLevel::Blocked] {
            let mut session = tenant.session(&postgres).await.unwrap();
            session.execute("BEGIN; SELECT * FROM users").await.unwrap();
            server.set_access(&tenant.placement, level).await.unwrap();
            assert!(session.execute("SELECT 1").await.is_err(), "{major} {level}");
            let facts = server.observe(&tenant.placement).await.unwrap();
            assert_eq!(access(&facts), Some(level));
        }
        // The operator's membership in the login has ended.
        let borrowed: bool =
            sqlx::query_scalar("SELECT pg_has_role('tenantry_admin', 'tenant_borrowed_app', 'USAGE')")
                .fetch_one(&mut admin)
                .await
                .unwrap();
        assert!(!borrowed);
        assert_eq!(server.drop_database(&tenant.placement).await.unwrap(), Dropped::Dropped);
        server.drop_login(&tenant.placement).await.unwrap();
    }
}
