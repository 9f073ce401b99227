//! The preflight names every missing right before anything is changed.

use sqlx::Executor;
use tenantry::{
    api::reason::Reason,
    modules::ModuleSet,
    postgres::{install::preflight::MissingRight, server::Server},
};
use uuid::Uuid;

use crate::servers::{INSTALLATION, config, ready, set_up, start};

#[tokio::test]
async fn each_missing_right_is_named() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = Server::new(config(&postgres));
        let mut admin = postgres.connect("postgres").await.unwrap();
        for (take, give, missing) in [
            (
                "ALTER ROLE tenantry_admin NOCREATEDB",
                "ALTER ROLE tenantry_admin CREATEDB",
                MissingRight::AdminCreateDb,
            ),
            (
                "ALTER ROLE tenantry_admin NOCREATEROLE",
                "ALTER ROLE tenantry_admin CREATEROLE",
                MissingRight::AdminCreateRole,
            ),
            (
                "REVOKE pg_signal_backend FROM tenantry_admin",
                "GRANT pg_signal_backend TO tenantry_admin",
                MissingRight::SignalBackend,
            ),
            (
                "REVOKE pg_read_all_stats FROM tenantry_admin",
                "GRANT pg_read_all_stats TO tenantry_admin",
                MissingRight::ReadAllStats,
            ),
            (
                "GRANT CONNECT ON DATABASE postgres TO PUBLIC",
                "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC",
                MissingRight::PostgresOpen,
            ),
            (
                "GRANT CONNECT ON DATABASE template1 TO PUBLIC",
                "REVOKE CONNECT ON DATABASE template1 FROM PUBLIC",
                MissingRight::Template1Open,
            ),
            ("ALTER ROLE operator SUPERUSER", "ALTER ROLE operator NOSUPERUSER", MissingRight::Superuser),
        ] {
            admin.execute(take).await.unwrap();
            assert_eq!(server.preflight(INSTALLATION).await.unwrap().missing, [missing], "{take}");
            admin.execute(give).await.unwrap();
            assert_eq!(server.preflight(INSTALLATION).await.unwrap().missing, [], "{give}");
        }
        admin
            .execute("GRANT CONNECT ON DATABASE postgres TO operator; REVOKE tenantry_admin FROM operator")
            .await
            .unwrap();
        assert_eq!(server.preflight(INSTALLATION).await.unwrap().missing, [MissingRight::Membership]);
    }
}

#[tokio::test]
async fn server_without_setup_is_reported() {
    let postgres = start(18, vec![]).await;
    let mut admin = postgres.connect("postgres").await.unwrap();
    admin
        .execute("CREATE ROLE operator LOGIN NOSUPERUSER CREATEDB CREATEROLE PASSWORD 'operator-password'")
        .await
        .unwrap();
    let missing = Server::new(config(&postgres)).preflight(INSTALLATION).await.unwrap().missing;
    assert_eq!(missing, [MissingRight::AdminRole, MissingRight::PostgresOpen, MissingRight::Template1Open]);
}

#[tokio::test]
async fn server_of_another_installation_is_refused() {
    let postgres = set_up(start(18, vec![]).await).await;
    ready(&postgres).await;
    let other = Uuid::from_u128(2);
    let server = Server::new(config(&postgres));
    assert_eq!(server.preflight(other).await.unwrap().in_use_by, Some(INSTALLATION.to_string()));
    assert_eq!(server.prepare(other).await.unwrap_err().reason(), Reason::ServerInUse);
}

#[tokio::test]
async fn open_large_objects_in_template1_block_the_template() {
    let postgres = set_up(start(18, vec![]).await).await;
    let server = ready(&postgres).await;
    let mut template1 = postgres.connect("template1").await.unwrap();
    template1.execute("GRANT EXECUTE ON FUNCTION lo_create(oid) TO PUBLIC").await.unwrap();
    sqlx::Connection::close(template1).await.unwrap();
    let error = server.ensure_template(&ModuleSet::built_in()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::MissingRight);
    assert!(error.to_string().contains("lo_create"), "{error}");
    set_up_again(&postgres).await;
    server.ensure_template(&ModuleSet::built_in()).await.unwrap();
}

async fn set_up_again(postgres: &tenantry_dev::Postgres) {
    let options = tenantry::postgres::install::setup::SetupOptions {
        operator: crate::servers::OPERATOR.into(),
        password: tenantry::postgres::tenant::credentials::SecretText::new(crate::servers::PASSWORD),
        system_database: Some("tenantry_system".into()),
    };
    let url = postgres.admin_url("postgres").parse().unwrap();
    let report = tenantry::postgres::install::setup::server_setup(url, &options).await.unwrap();
    assert!(report.refused.is_empty(), "{:?}", report.refused);
}

#[tokio::test]
async fn another_server_at_the_same_address_is_detected() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = Server::new(config(&postgres));
        let identifier = server.preflight(INSTALLATION).await.unwrap().identifier.unwrap();
        let query = "SELECT system_identifier::text FROM pg_control_system()";
        let mut admin = postgres.connect("postgres").await.unwrap();
        let wanted: String = sqlx::query_scalar(query).fetch_one(&mut admin).await.unwrap();
        assert_eq!(identifier, wanted);
        assert!(server.bind_to(&identifier) && server.bind_to(&identifier) && !server.bind_to("1"));
        server.observe_all().await.unwrap();
        let elsewhere = Server::new(config(&postgres));
        assert!(elsewhere.bind_to("1"));
        let refused = elsewhere.observe_all().await.unwrap_err();
        assert!(refused.is_unreachable() && refused.reason() == Reason::ServerReplaced, "{refused}");
        // Without this right the identifier is unknown, and everything else works.
        admin.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC").await.unwrap();
        assert_eq!(server.preflight(INSTALLATION).await.unwrap().identifier, None);
    }
}
