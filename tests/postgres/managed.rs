//! Servers whose administrator is no superuser, and those that lack what is good to have.

use sqlx::Executor;
use tenantry::{
    domain::access::AccessLevel,
    postgres::{
        credentials::SecretText,
        databases::Dropped,
        preflight::MissingRight,
        server::Server,
        setup::{SetupOptions, SetupReport, server_setup},
    },
};
use tenantry_dev::Postgres;

use crate::servers::{INSTALLATION, OPERATOR, PASSWORD, Tenant, config, ready, set_up, start};

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
async fn an_administrator_without_superuser_does_what_it_may_and_says_what_not() {
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
        // Run again, it finds everything, and is not stopped by what it may not change.
        let again = set_up_as(url).await;
        for report in [first, again] {
            let refused = report.refused.join("\n");
            for taken in ["CONNECT on postgres taken", "CONNECT on template1 taken", "large-object writers"] {
                assert!(refused.contains(taken), "{major}: {report:?}");
            }
            let done = report.done.join("\n");
            for there in
                ["role tenantry_admin", "login operator", "database tenantry_system", "pg_read_all_stats"]
            {
                assert!(done.contains(there), "{major}: {report:?}");
            }
        }
        // Nobody stays a member of the registry's owner for having made it.
        let masters: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_roles WHERE rolname = 'master' AND pg_has_role(oid, 'tenantry_admin', 'USAGE')",
        )
        .fetch_one(&mut admin)
        .await
        .unwrap();
        assert_eq!(masters, 0);
        assert_eq!(preflight(&postgres).await, [MissingRight::PostgresOpen, MissingRight::Template1Open]);
        // A superuser does the rest.
        let report = set_up_as(postgres.admin_url("postgres")).await;
        assert!(report.refused.is_empty(), "{report:?}");
        let server = ready(&postgres).await;
        Tenant::new("tenant_managed").provision(&server, 1).await;
    }
}

#[tokio::test]
async fn a_server_that_was_upgraded_from_14_gets_a_closed_schema_public() {
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
async fn a_membership_without_set_or_inherit_is_missing() {
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
    // Once the id is written, nothing asks for it any more.
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
            server.set_access(tenant.id, &tenant.database, &tenant.login, level).await.unwrap();
            assert!(session.execute("SELECT 1").await.is_err(), "{major} {level}");
            let facts = server.observe(tenant.id, &tenant.database, &tenant.login).await.unwrap();
            assert_eq!(facts.access(), Some(level));
        }
        // The login was borrowed for a moment only.
        let borrowed: bool =
            sqlx::query_scalar("SELECT pg_has_role('tenantry_admin', 'tenant_borrowed_app', 'USAGE')")
                .fetch_one(&mut admin)
                .await
                .unwrap();
        assert!(!borrowed);
        assert_eq!(server.drop_database(tenant.id, &tenant.database).await.unwrap(), Dropped::Dropped);
        server.drop_login(tenant.id, &tenant.login).await.unwrap();
    }
}
