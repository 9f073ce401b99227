//! The preflight names every missing right before anything is changed.

use sqlx::Executor;
use tenantry::{
    api::reason::Reason,
    modules::ModuleSet,
    postgres::{install::rights::MissingRight, server::Server},
};
use tenantry_dev::Stop;
use tenantry_test_support::{Wait, login};
use uuid::Uuid;

use crate::servers::{INSTALLATION, Tenant, config, ready, set_up, set_up_as, start};

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
            (
                "REVOKE SET ON PARAMETER temp_file_limit FROM tenantry_admin",
                "GRANT SET ON PARAMETER temp_file_limit TO tenantry_admin",
                MissingRight::TempFileLimit,
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
    let required: Vec<&MissingRight> = missing.iter().filter(|right| right.is_required()).collect();
    assert_eq!(required, [&MissingRight::AdminRole]);
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

/// In earlier releases, all sessions of the operator in databases had the login `tenantry_migrator`.
#[tokio::test]
async fn sessions_of_the_earlier_login_are_ended_also_after_an_interrupted_upgrade() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        ready(&postgres).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        admin
            .execute("ALTER ROLE tenantry_migrator LOGIN PASSWORD 'x'; GRANT CONNECT ON DATABASE postgres TO tenantry_migrator")
            .await
            .unwrap();
        let uri = format!("postgresql://tenantry_migrator:x@127.0.0.1:{}/postgres", postgres.port());
        let mut former = login(&uri).await.unwrap();
        // The operator was killed between the two.
        admin.execute("ALTER ROLE tenantry_migrator NOLOGIN PASSWORD NULL").await.unwrap();
        ready(&postgres).await;
        assert!(former.execute("SELECT 1").await.is_err(), "{major}");
    }
}

#[tokio::test]
async fn reserved_connections_are_a_right_from_16_on() {
    for (major, expected) in [(15, vec![]), (18, vec![MissingRight::ReservedConnections])] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = Server::new(config(&postgres));
        let mut admin = postgres.connect("postgres").await.unwrap();
        if major >= 16 {
            admin.execute("REVOKE pg_use_reserved_connections FROM tenantry_admin").await.unwrap();
        }
        assert_eq!(server.preflight(INSTALLATION).await.unwrap().missing, expected, "{major}");
    }
}

/// With the right, the operator connects while other logins use every connection that is not reserved.
#[tokio::test]
async fn operator_connects_to_a_full_server_on_reserved_connections() {
    let settings = [("max_connections", "20"), ("reserved_connections", "4")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let postgres = set_up(start(18, settings).await).await;
    let server = ready(&postgres).await;
    let tenant = Tenant::new("tenant_many");
    tenant.provision(&server, 1).await;
    let mut sessions = Vec::new();
    while let Ok(session) = tenant.session(&postgres).await {
        sessions.push(session);
    }
    server.observe_all().await.unwrap();
    let fresh = Server::new(config(&postgres));
    assert_eq!(fresh.preflight(INSTALLATION).await.unwrap().reserved_connections, 4);
    // Without the right, there is no connection for it.
    let mut admin = postgres.connect("postgres").await.unwrap();
    admin.execute("REVOKE pg_use_reserved_connections FROM tenantry_admin").await.unwrap();
    // Sessions of before that were closed may end only now: what they free is used, too.
    let refused = Wait::until("there is no connection for it").observe(async || {
        while let Ok(session) = tenant.session(&postgres).await {
            sessions.push(session);
        }
        match Server::new(config(&postgres)).preflight(INSTALLATION).await {
            Err(refused) => Ok(refused),
            Ok(_) => Err("it connected"),
        }
    });
    assert_eq!(refused.await.reason(), Reason::TooManyConnections);
}

#[tokio::test]
async fn other_databases_that_public_may_connect_to_are_named() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = ready(&postgres).await;
        Tenant::new("tenant_closed").provision(&server, 1).await;
        assert_eq!(server.preflight(INSTALLATION).await.unwrap().missing, []);
        let mut admin = postgres.connect("postgres").await.unwrap();
        for create in [
            "CREATE DATABASE defaultdb",
            "CREATE DATABASE app",
            "CREATE DATABASE shut ALLOW_CONNECTIONS false",
        ] {
            admin.execute(create).await.unwrap();
        }
        let missing = server.preflight(INSTALLATION).await.unwrap().missing;
        assert_eq!(missing, [MissingRight::DatabasesOpen(vec!["app".into(), "defaultdb".into()])]);
        assert!(!missing[0].is_required());
        admin.execute("REVOKE CONNECT ON DATABASE app, defaultdb FROM PUBLIC").await.unwrap();
        assert_eq!(server.preflight(INSTALLATION).await.unwrap().missing, []);
    }
}

#[tokio::test]
async fn open_large_objects_in_template1_are_reported_and_stop_nothing() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let mut template1 = postgres.connect("template1").await.unwrap();
        template1.execute("GRANT EXECUTE ON FUNCTION lo_create(oid) TO PUBLIC").await.unwrap();
        sqlx::Connection::close(template1).await.unwrap();
        let server = ready(&postgres).await;
        let template = server.ensure_template(&ModuleSet::built_in()).await.unwrap();
        let expected = [MissingRight::LargeObjects { template: template.clone() }];
        // Known to this process and to the next one, from the template's comment.
        assert_eq!(server.preflight(INSTALLATION).await.unwrap().missing, expected);
        assert_eq!(ready(&postgres).await.preflight(INSTALLATION).await.unwrap().missing, expected);
        // The remedy: a superuser revokes it, and drops the template.
        set_up_as(&postgres.admin_url("postgres")).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        admin.execute(sqlx::AssertSqlSafe(format!("DROP DATABASE {template}"))).await.unwrap();
        assert_eq!(server.preflight(INSTALLATION).await.unwrap().missing, []);
        Tenant::new("tenant_after").provision(&server, 1).await;
        assert_eq!(server.preflight(INSTALLATION).await.unwrap().missing, []);
    }
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

#[tokio::test]
async fn restored_server_has_another_timeline_and_the_same_identifier() {
    let postgres = set_up(start(18, vec![("restore_command".into(), "/bin/false".into())]).await).await;
    let server = Server::new(config(&postgres));
    let before = server.preflight(INSTALLATION).await.unwrap();
    postgres.stop(Stop::Fast).await.unwrap();
    std::fs::write(postgres.data().join("recovery.signal"), "").unwrap();
    postgres.start_again().await.unwrap();
    Wait::until("another timeline")
        .is_true(async || {
            let after = server.preflight(INSTALLATION).await;
            after.is_ok_and(|after| {
                assert_eq!(after.identifier, before.identifier);
                after.timeline.is_some() && after.timeline != before.timeline
            })
        })
        .await;
}
