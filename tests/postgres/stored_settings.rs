//! Settings that a tenant's login stores, of any size and for any database: nothing waits until they are read, and they
//! are reset.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tenantry::{
    domain::{access::AccessLevel, tenant_facts::LoginProperties, usage::entitlements::LoginLimits},
    postgres::server::Server,
};

use crate::servers::{SERVERS, Tenant, access, ready, refusal};

/// Stores a value of 18 MB, which takes 200 kB.
const LARGE: &str = "DO $$ BEGIN EXECUTE format('ALTER ROLE CURRENT_USER {place} SET {parameter} = %L', repeat('a', 18000000)); END $$";

async fn store(session: &mut PgConnection, place: &str) {
    for parameter in ["application_name", "local_preload_libraries"] {
        let store = LARGE.replace("{place}", place).replace("{parameter}", parameter);
        session.execute(AssertSqlSafe(store)).await.unwrap();
    }
}

async fn login_facts(server: &Server, tenant: &Tenant) -> LoginProperties {
    server.observe(&tenant.placement).await.unwrap().login.unwrap()
}

/// The parameters that are stored for a role, in all databases and in single ones.
async fn stored(admin: &mut PgConnection, role: &str) -> Vec<String> {
    let stored = "SELECT split_part(c, '=', 1) FROM pg_db_role_setting AS s CROSS JOIN LATERAL unnest(s.setconfig) AS c
        WHERE s.setrole = (SELECT oid FROM pg_roles WHERE rolname = $1)";
    sqlx::query_scalar(stored).bind(role).fetch_all(admin).await.unwrap()
}

#[tokio::test]
async fn large_settings_delay_nothing_and_are_reset() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        let (tenant, neighbour) = (Tenant::new("tenant_stores"), Tenant::new("tenant_stores_beside"));
        tenant.provision(&server, 1).await;
        neighbour.provision(&server, 1).await;
        let limits = LoginLimits { connections: -1, temp_file_kilobytes: 1024 };
        server.limit_login(&tenant.placement, limits).await.unwrap();
        let mut session = tenant.session(postgres).await.unwrap();
        session.execute("SET client_min_messages = error").await.unwrap();
        let before = login_facts(&server, &tenant).await;
        assert!(before.settings.is_empty(), "{:?}", before.settings);
        store(&mut session, "").await;
        for database in ["tenant_stores", "tenant_stores_beside", "postgres"] {
            store(&mut session, &format!("IN DATABASE {database}")).await;
        }
        session.execute("ALTER ROLE CURRENT_USER IN DATABASE template1 SET work_mem = '1MB'").await.unwrap();

        let begun = Instant::now();
        let found = login_facts(&server, &tenant).await.settings;
        server.observe_all().await.unwrap();
        let took = begun.elapsed();
        let mut names: Vec<_> =
            found.iter().map(|setting| (setting.database.as_deref(), setting.name.as_deref())).collect();
        names.sort_unstable();
        let expected = [
            (None, None),
            (Some("postgres"), None),
            (Some("template1"), Some("work_mem")),
            (Some("tenant_stores"), None),
            (Some("tenant_stores_beside"), None),
        ];
        assert_eq!(names, expected, "large values are not read");

        // The restriction leaves the large ones to the next look, which the drift check asks for.
        let begun = Instant::now();
        server.set_access(&tenant.placement, AccessLevel::Blocked).await.unwrap();
        println!("PostgreSQL {}: read {took:?}, blocked {:?}", postgres.binaries().major, begun.elapsed());
        assert!(took + begun.elapsed() < Duration::from_secs(20));
        let facts = server.observe(&tenant.placement).await.unwrap();
        assert_eq!(access(&facts), Some(AccessLevel::Blocked));
        assert_eq!(facts.login.unwrap().settings.len(), 4);
        server.set_access(&tenant.placement, AccessLevel::Blocked).await.unwrap();
        assert_eq!(login_facts(&server, &tenant).await.settings, []);
        assert_eq!(
            stored(&mut admin, "tenant_stores_app").await,
            ["temp_file_limit"],
            "the limit of the plan stays"
        );

        // They keep no login from being dropped, and go with it.
        let mut session = neighbour.session(postgres).await.unwrap();
        session.execute("SET client_min_messages = error").await.unwrap();
        store(&mut session, "IN DATABASE tenant_stores").await;
        let oid = login_facts(&server, &neighbour).await.oid;
        server.drop_database(&neighbour.placement).await.unwrap();
        server.drop_login(&neighbour.placement).await.unwrap();
        let left = "SELECT count(*) FROM pg_db_role_setting WHERE setrole = $1::bigint::oid";
        let left: i64 = sqlx::query_scalar(left).bind(oid).fetch_one(&mut admin).await.unwrap();
        assert_eq!(left, 0);
        server.drop_database(&tenant.placement).await.unwrap();
        server.drop_login(&tenant.placement).await.unwrap();
    }
}

#[tokio::test]
async fn settings_of_a_group_are_found_and_reset() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        let tenant = Tenant::new("tenant_stores_for_all");
        tenant.provision(&server, 1).await;
        let mut session = tenant.session(postgres).await.unwrap();
        if postgres.binaries().major >= 16 {
            assert_eq!(refusal(&mut session, "SET ROLE tenantry_rw").await, "42501");
            admin.execute("ALTER ROLE tenantry_rw IN DATABASE postgres SET work_mem = '1MB'").await.unwrap();
        } else {
            session.execute("SET client_min_messages = error; SET ROLE tenantry_rw").await.unwrap();
            store(&mut session, "").await;
            store(&mut session, "IN DATABASE postgres").await;
            // PostgreSQL lets each role do this, and on 15 each member become the group.
            assert_eq!(stored(&mut admin, "tenantry_rw").await.len(), 4);
        }
        let found = server.observe_all().await.unwrap().group_settings();
        assert!(found.contains(&("tenantry_rw".to_owned(), Some("postgres".to_owned()))), "{found:?}");
        server.reset_group_settings(&found).await.unwrap();
        assert!(server.observe_all().await.unwrap().group_settings().is_empty());
        assert!(stored(&mut admin, "tenantry_rw").await.is_empty());
    }
}
