//! Creating and dropping tenants: repeatedly, interrupted, and with databases and roles of other owners.

use std::time::Instant;
use tenantry::{
    api::reason::Reason,
    domain::access::AccessLevel,
    modules::{Migration, Module, ModuleSet},
    postgres::{server::Server, tenant::databases::Dropped},
};

use futures::future::join_all;
use sqlx::Executor;
use tenantry_dev::Postgres;

use crate::servers::{SERVERS, Tenant, access, config, ready, refusal, session_logins, set_up, start};

#[tokio::test]
async fn every_operation_can_be_run_twice() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_twice");
        tenant.provision(&server, 2).await;
        let versions = server.verify(&tenant.placement, &tenant.password).await.unwrap();
        assert_eq!(versions, ModuleSet::built_in().targets());
        let facts = server.observe(&tenant.placement).await.unwrap();
        assert_eq!(access(&facts), Some(AccessLevel::ReadWrite));
        assert!(facts.building.is_none());
        for dropped in [Dropped::Dropped, Dropped::Absent] {
            server.set_access(&tenant.placement, AccessLevel::Blocked).await.unwrap();
            assert_eq!(server.drop_database(&tenant.placement).await.unwrap(), dropped);
            server.drop_login(&tenant.placement).await.unwrap();
        }
        let facts = server.observe(&tenant.placement).await.unwrap();
        assert!(facts.database.is_none() && facts.login.is_none());
    }
}

#[tokio::test]
async fn tenant_is_limited_to_its_own_database() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let (tenant, other) = (Tenant::new("tenant_own"), Tenant::new("tenant_neighbour"));
        tenant.provision(&server, 1).await;
        other.provision(&server, 1).await;
        let mut session = tenant.session(postgres).await.unwrap();
        session.execute("INSERT INTO users (email) VALUES ('a@own.example')").await.unwrap();
        session
            .execute("UPDATE users SET name = 'A'; DELETE FROM users; SELECT * FROM tenantry.migrations")
            .await
            .unwrap();
        for statement in [
            "CREATE TABLE t (a int)",
            "CREATE TABLE tenantry.t (a int)",
            "CREATE TEMP TABLE t (a int)",
            "CREATE SCHEMA s",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE ROLE r",
            "SELECT lo_create(0)",
            "SELECT lo_creat(-1)",
            "SELECT lo_from_bytea(0, 'x')",
            "TRUNCATE users",
            "DELETE FROM tenantry.migrations",
            "UPDATE tenantry.mirrored_settings SET value = '1'",
            "INSERT INTO tenantry.seeds (name) VALUES ('x')",
            "DROP TABLE users",
            "ALTER TABLE users ADD COLUMN x int",
            "SET ROLE tenantry_owner",
            "SET ROLE tenantry_admin",
            "SET ROLE tenantry_dba",
            "DROP DATABASE tenant_neighbour",
            "ALTER DATABASE tenant_own ALLOW_CONNECTIONS true",
            "GRANT CONNECT ON DATABASE tenant_neighbour TO tenant_own_app",
            "CREATE DATABASE d",
        ] {
            let code = refusal(&mut session, statement).await;
            assert!(["42501", "25001"].contains(&code.as_str()), "{statement}: {code}");
        }
        for database in ["tenant_neighbour", "tenantry_system", "postgres", "template1"] {
            let url = postgres.url(&tenant.placement.login, tenant.password.expose(), database);
            let error = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.expect_err(database);
            assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{database}");
        }
    }
}

#[tokio::test]
async fn objects_of_other_owners_are_not_changed() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        admin.execute("CREATE DATABASE tenant_stranger").await.unwrap();
        admin.execute("CREATE ROLE tenant_stranger_app").await.unwrap();
        let tenant = Tenant::new("tenant_stranger");
        assert_eq!(server.create_login(&tenant.placement).await.unwrap_err().reason(), Reason::Conflict);
        let template = server.ensure_template(&ModuleSet::built_in()).await.unwrap();
        server.create_database(&tenant.placement, &template).await.unwrap();
        assert_eq!(server.publish_database(&tenant.placement).await.unwrap_err().reason(), Reason::Conflict);
        // The database being built is ours and is dropped; the one of the final name is not ours and stays.
        server.drop_database(&tenant.placement).await.unwrap();
        assert_eq!(server.drop_database(&tenant.placement).await.unwrap(), Dropped::NotOurs);
        assert_eq!(server.drop_login(&tenant.placement).await.unwrap_err().reason(), Reason::Conflict);
        let left: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM pg_database WHERE datname = 'tenant_stranger')
                  + (SELECT count(*) FROM pg_roles WHERE rolname = 'tenant_stranger_app')",
        )
        .fetch_one(&mut admin)
        .await
        .unwrap();
        assert_eq!(left, 2);
    }
}

#[tokio::test]
async fn drop_ends_sessions_and_finishes_an_interrupted_drop() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_interrupted");
        tenant.provision(&server, 1).await;
        let mut session = tenant.session(postgres).await.unwrap();
        session.execute("BEGIN; SELECT * FROM users").await.unwrap();
        let mut admin = postgres.connect("postgres").await.unwrap();
        admin
            .execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'tenant_interrupted'")
            .await
            .unwrap();
        let facts = server.observe(&tenant.placement).await.unwrap();
        assert!(facts.database.unwrap().drop_interrupted);
        assert_eq!(server.drop_database(&tenant.placement).await.unwrap(), Dropped::Dropped);
        assert!(session.execute("SELECT 1").await.is_err());
    }
}

#[tokio::test]
async fn prepared_transaction_that_blocks_a_drop_is_named() {
    let settings = vec![("max_prepared_transactions".to_owned(), "4".to_owned())];
    let postgres = set_up(start(18, settings).await).await;
    let server = ready(&postgres).await;
    let tenant = Tenant::new("tenant_prepared");
    tenant.provision(&server, 1).await;
    let mut session = tenant.session(&postgres).await.unwrap();
    session
        .execute("BEGIN; INSERT INTO users (email) VALUES ('a@b.example'); PREPARE TRANSACTION 'left-behind'")
        .await
        .unwrap();
    let error = server.drop_database(&tenant.placement).await.unwrap_err();
    assert_eq!(error.reason(), Reason::PreparedTransaction);
    assert!(error.to_string().contains("left-behind"), "{error}");
    let mut own = postgres.connect("tenant_prepared").await.unwrap();
    own.execute("ROLLBACK PREPARED 'left-behind'").await.unwrap();
    sqlx::Connection::close(own).await.unwrap();
    assert_eq!(server.drop_database(&tenant.placement).await.unwrap(), Dropped::Dropped);
}

#[tokio::test]
async fn failing_module_is_located_and_reset_role_grants_nothing() {
    let module = |sql: &str| {
        let file = Migration { version: 1, file: "0001_broken.sql".into(), sql: sql.to_owned().into() };
        let mut modules = ModuleSet::built_in().modules().to_vec();
        modules.push(Module::new("broken", vec![file]));
        ModuleSet::new(modules)
    };
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_module");
        tenant.provision(&server, 1).await;
        let broken = module("CREATE TABLE fine (a int);\nCREATE TABLE bad (a no_such_type);");
        let error = server.migrate(&tenant.placement, &broken).await.unwrap().into_result().unwrap_err();
        assert_eq!((error.reason(), error.sql_state().as_deref()), (Reason::MigrationFailed, Some("42704")));
        assert!(error.is_permanent());
        let text = error.to_string();
        assert!(
            text.contains("broken") && text.contains("0001_broken.sql") && text.contains("line 2"),
            "{text}"
        );
        for escape in [
            "RESET ROLE; CREATE ROLE mine",
            "SET ROLE tenantry_admin",
            "RESET SESSION AUTHORIZATION; CREATE DATABASE mine",
            "SET SESSION AUTHORIZATION tenantry_admin",
            "COPY (SELECT 1) TO PROGRAM 'true'",
        ] {
            let error =
                server.migrate(&tenant.placement, &module(escape)).await.unwrap().into_result().unwrap_err();
            assert_eq!(error.reason(), Reason::MigrationFailed, "{escape}: {error}");
        }
        // The login of a session is gone with it.
        assert_eq!(session_logins(postgres, &tenant.placement.database).await, 0);
    }
}

#[tokio::test]
async fn forty_provisionings_stay_under_the_session_cap() {
    let postgres = set_up(start(15, vec![]).await).await;
    let server = Server::new(tenantry::postgres::ServerConfig { max_connections: 6, ..config(&postgres) });
    server.prepare(crate::servers::INSTALLATION).await.unwrap();
    server.ensure_template(&ModuleSet::built_in()).await.unwrap();
    let tenants: Vec<Tenant> = (0..40).map(|n| Tenant::new(&format!("tenant_many_{n}"))).collect();
    let begun = Instant::now();
    let work = join_all(tenants.iter().map(|tenant| tenant.provision(&server, 1)));
    let most = most_sessions(&postgres, work).await;
    println!("40 provisionings in {:.1} s, {most} sessions at most", begun.elapsed().as_secs_f64());
    assert!((1..=6).contains(&most), "{most}");
}

/// In how many samples one after the other a number of sessions counts: a session that was closed is listed until its process
/// has ended.
const AT_LEAST: usize = 10;

/// The maximum number of the operator's sessions during an operation.
async fn most_sessions<T>(postgres: &Postgres, work: impl Future<Output = T>) -> i64 {
    let mut admin = postgres.connect("postgres").await.unwrap();
    let (mut most, mut last) = (0, [0; AT_LEAST]);
    let mut samples = tokio::time::interval(std::time::Duration::from_millis(5));
    tokio::pin!(work);
    loop {
        tokio::select! {
            _ = &mut work => return most,
            _ = samples.tick() => {
                let now: i64 = sqlx::query_scalar(
                    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'operator' OR usename LIKE 'tenantry_migrator_%'",
                )
                .fetch_one(&mut admin)
                .await
                .unwrap();
                last.rotate_left(1);
                last[AT_LEAST - 1] = now;
                most = most.max(last.into_iter().min().unwrap_or_default());
            }
        }
    }
}
