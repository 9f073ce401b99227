//! Templates on servers with other collations and encodings, and of other releases.

use std::collections::HashSet;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::{
    api::reason::Reason,
    domain::access::AccessLevel,
    modules::{Migration, Module, ModuleSet},
    postgres::{
        install::{preflight::StaleCollations, rights::MissingRight},
        tenant::databases::Dropped,
    },
};
use tenantry_dev::Postgres;

use crate::servers::{INSTALLATION, SERVERS, Tenant, ready, refusal, set_up, start};

async fn names(admin: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT datname::text FROM pg_database WHERE datname LIKE 'tenantry_template_%' ORDER BY 1",
    )
    .fetch_all(admin)
    .await
    .unwrap()
}

/// Acts as an upgrade of the server's C library: the version that is recorded in a database is not that of the server.
async fn make_stale(postgres: &Postgres, database: &str) {
    let mut admin = postgres.connect("postgres").await.unwrap();
    let update = format!("UPDATE pg_database SET datcollversion = '1' WHERE datname = '{database}'");
    admin.execute(AssertSqlSafe(update)).await.unwrap();
}

#[tokio::test]
async fn other_collation_version_of_template1_stops_nothing() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        make_stale(&postgres, "template1").await;
        // The control: PostgreSQL refuses to copy it.
        let mut admin = postgres.connect("postgres").await.unwrap();
        let refused = admin.execute("CREATE DATABASE d").await.unwrap_err();
        assert!(refused.to_string().contains("collation version"), "{refused}");
        Tenant::new("tenant_collation").provision(&ready(&postgres).await, 1).await;
    }
}

#[tokio::test]
async fn template_of_another_collation_version_is_replaced() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = ready(&postgres).await;
        let (before, after) = (Tenant::new("tenant_before"), Tenant::new("tenant_after"));
        before.provision(&server, 1).await;
        let template = server.ensure_template(&ModuleSet::built_in()).await.unwrap();
        make_stale(&postgres, &template).await;
        // The control: as it is, it cannot be cloned, and the reason says why.
        server.create_login(&after.placement).await.unwrap();
        let refused = server.create_database(&after.placement, &template).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::CollationMismatch, "{refused}");
        after.provision(&server, 1).await;
        assert_eq!(server.preflight(INSTALLATION).await.unwrap().stale_collations, None);
        // The indexes of a tenant's database may be wrong: it is named, and works.
        make_stale(&postgres, &before.placement.database).await;
        let stale = server.preflight(INSTALLATION).await.unwrap().stale_collations;
        assert_eq!(stale, Some(StaleCollations { example: before.placement.database.clone(), count: 1 }));
        server.verify(&before.placement, &before.password).await.unwrap();
    }
}

/// A server whose initdb ran without a locale, as in many container images.
async fn start_without_locale(major: u16) -> Postgres {
    let postgres = start(major, vec![]).await;
    let mut admin = postgres.connect("postgres").await.unwrap();
    for template in ["template1", "template0"] {
        for statement in [
            "CREATE DATABASE new TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C' IS_TEMPLATE true"
                .to_owned(),
            format!("ALTER DATABASE {template} IS_TEMPLATE false"),
            format!("DROP DATABASE {template}"),
            format!("ALTER DATABASE new RENAME TO {template}"),
        ] {
            admin.execute(AssertSqlSafe(statement)).await.unwrap();
        }
    }
    admin.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS false").await.unwrap();
    postgres
}

#[tokio::test]
async fn tenants_have_utf8_where_template1_has_another_encoding() {
    for major in [15, 18] {
        let postgres = set_up(start_without_locale(major).await).await;
        Tenant::new("tenant_utf8").provision(&ready(&postgres).await, 1).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        let encodings: Vec<String> = sqlx::query_scalar(
            "SELECT pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname IN ('tenant_utf8', 'tenantry_system')",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        assert_eq!(encodings, ["UTF8", "UTF8"]);
    }
}

/// A server that was upgraded from 14, on which no administrator can correct the schema `public` of template1.
#[tokio::test]
async fn schema_public_is_closed_where_that_of_template1_is_not_ours() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let mut template1 = postgres.connect("template1").await.unwrap();
        template1
            .execute("ALTER SCHEMA public OWNER TO postgres; GRANT CREATE ON SCHEMA public TO PUBLIC")
            .await
            .unwrap();
        template1.close().await.unwrap();
        let server = ready(&postgres).await;
        let tenant = Tenant::new("tenant_upgraded");
        tenant.provision(&server, 1).await;
        let mut session = tenant.session(&postgres).await.unwrap();
        assert_eq!(refusal(&mut session, "CREATE TABLE t (a int)").await, "42501");
        // template0 has no revoked function rights.
        let missing = server.preflight(INSTALLATION).await.unwrap().missing;
        assert!(matches!(missing[..], [MissingRight::LargeObjects { .. }]), "{missing:?}");
    }
}

#[tokio::test]
async fn schema_public_is_created_where_template1_has_none() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let mut template1 = postgres.connect("template1").await.unwrap();
        template1.execute("DROP SCHEMA public").await.unwrap();
        template1.close().await.unwrap();
        let server = ready(&postgres).await;
        let tenant = Tenant::new("tenant_schema");
        tenant.provision(&server, 1).await;
        let mut session = tenant.session(&postgres).await.unwrap();
        session.execute("INSERT INTO public.users (email) VALUES ('a@b.example')").await.unwrap();
        assert_eq!(refusal(&mut session, "CREATE TABLE t (a int)").await, "42501");
        // It was built from template1, whose large-object writers are revoked.
        assert_eq!(server.preflight(INSTALLATION).await.unwrap().missing, []);
    }
}

pub fn modules(sql: &'static str) -> ModuleSet {
    let mut modules = ModuleSet::built_in().modules().to_vec();
    let file = Migration { version: 1, file: "0001_wiki.sql".into(), sql: sql.into() };
    modules.push(Module::new("wiki", vec![file]));
    ModuleSet::new(modules)
}

#[tokio::test]
async fn templates_that_are_not_needed_are_dropped_one_at_a_time() {
    for major in [15, 18] {
        let postgres = set_up(start(major, vec![]).await).await;
        let server = ready(&postgres).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        let (old, older, present) = (modules("SELECT 1"), modules("SELECT 2"), ModuleSet::built_in());
        let tenant = Tenant::new("tenant_old");
        let template = server.ensure_template(&old).await.unwrap();
        server.create_login(&tenant.placement).await.unwrap();
        server.create_database(&tenant.placement, &template).await.unwrap();
        server.ensure_template(&older).await.unwrap();
        let kept = server.ensure_template(&present).await.unwrap();
        // Not Tenantry's: another owner, another comment, or another name than the comment says.
        for statement in [
            "CREATE DATABASE tenantry_template_theirs",
            "COMMENT ON DATABASE tenantry_template_theirs IS 'tenantry:template:theirs'",
            "CREATE DATABASE tenantry_template_bare OWNER tenantry_dba",
            "CREATE DATABASE tenantry_template_other OWNER tenantry_dba",
            "COMMENT ON DATABASE tenantry_template_other IS 'tenantry:template:digest'",
        ] {
            admin.execute(statement).await.unwrap();
        }
        let needed = HashSet::from([present.digest().to_owned()]);
        let mut expected =
            [old.digest(), older.digest()].map(|digest| format!("tenantry_template_{digest}")).to_vec();
        expected.sort();
        // One that is in use stays, and does not keep the other one.
        let open = format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", expected[0]);
        admin.execute(AssertSqlSafe(open)).await.unwrap();
        let user = postgres.connect(&expected[0]).await.unwrap();
        assert_eq!(server.drop_old_template(&needed).await.unwrap().as_ref(), Some(&expected[1]), "{major}");
        let refused = server.drop_old_template(&needed).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::SessionsInTheWay, "{major}: {refused}");
        user.close().await.unwrap();
        assert_eq!(server.drop_old_template(&needed).await.unwrap().as_ref(), Some(&expected[0]), "{major}");
        assert_eq!(server.drop_old_template(&needed).await.unwrap(), None, "{major}");
        let mut left = vec![
            kept,
            "tenantry_template_bare".into(),
            "tenantry_template_other".into(),
            "tenantry_template_theirs".into(),
        ];
        left.sort();
        let mut found = names(&mut admin).await;
        found.sort();
        assert_eq!(found, left, "{major}");
        // What was cloned from one is complete without it.
        server.publish_database(&tenant.placement).await.unwrap();
        assert!(server.observe(&tenant.placement).await.unwrap().database.is_some());
    }
}

#[tokio::test]
async fn database_that_was_made_a_template_is_dropped() {
    for postgres in &*SERVERS {
        let server = ready(postgres).await;
        let tenant = Tenant::new("tenant_is_template");
        tenant.provision(&server, 1).await;
        let mut admin = postgres.connect("postgres").await.unwrap();
        admin.execute("ALTER DATABASE tenant_is_template IS_TEMPLATE true").await.unwrap();
        // The control.
        let refused = admin.execute("DROP DATABASE tenant_is_template").await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "42809");
        server.set_access(&tenant.placement, AccessLevel::Blocked).await.unwrap();
        assert_eq!(server.drop_database(&tenant.placement).await.unwrap(), Dropped::Dropped);
        server.drop_login(&tenant.placement).await.unwrap();
        admin.close().await.unwrap();
    }
}
