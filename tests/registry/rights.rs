//! Privileges in the registry's database.

use sqlx::{AssertSqlSafe, ConnectOptions, Executor, postgres::PgConnectOptions};

use tenantry::api::tenant_status::WorkflowKind;

use crate::system::{System, created, refused, tenant};

#[tokio::test]
async fn reader_role_reads_only_the_views() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        created(&registry, &tenant("acme")).await;
        let mut admin = system.superuser().await;
        let (reader, other) =
            (format!("reader_of_{}", system.database), format!("outsider_of_{}", system.database));
        for statement in [
            format!("CREATE ROLE {reader} LOGIN PASSWORD 'reads' IN ROLE tenantry_registry_reader"),
            format!("CREATE ROLE {other} LOGIN PASSWORD 'reads'"),
        ] {
            admin.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        let login = |role: &str| -> PgConnectOptions {
            system.server.url(role, "reads", &system.database).parse().unwrap()
        };

        let mut session = login(&reader).connect().await.unwrap();
        let seen: (String, String) =
            sqlx::query_as("SELECT slug, status FROM tenants_public").fetch_one(&mut session).await.unwrap();
        assert_eq!(seen, ("acme".to_owned(), "provisioning".to_owned()));
        let columns: Vec<String> = sqlx::query_scalar(
            "SELECT column_name::text FROM information_schema.columns WHERE table_name = 'tenants_public'",
        )
        .fetch_all(&mut session)
        .await
        .unwrap();
        assert!(!columns.is_empty());
        for hidden in ["status_reason", "status_updated_by", "password_verifier", "password_digest", "holds"]
        {
            assert!(!columns.iter().any(|column| column == hidden), "{hidden} can be seen");
        }

        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
             AND relkind IN ('r', 'S', 'v') AND relname NOT IN ('tenants_public', 'usage_public', 'former_slugs')",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        assert!(tables.len() >= 10, "{tables:?}");
        for table in tables {
            assert_eq!(refused(&mut session, format!("SELECT * FROM {table}")).await, "42501", "{table}");
        }
        for statement in [
            "UPDATE tenants_public SET slug = 'mine'",
            "DELETE FROM tenants_public",
            "CREATE TABLE mine ()",
            "CREATE TEMP TABLE mine ()",
            "DELETE FROM usage_by_day",
            "SELECT record_usage(gen_random_uuid(), '{}', now())",
            "SELECT take_claim()",
            "SELECT claim_held(1)",
        ] {
            assert_eq!(refused(&mut session, statement).await, "42501", "{statement}");
        }

        let stranger = login(&other).connect().await.unwrap_err();
        assert_eq!(stranger.as_database_error().unwrap().code().as_deref(), Some("42501"));
    }
}

#[tokio::test]
async fn all_objects_belong_to_tenantry_admin() {
    for system in System::both().await {
        let mut admin = system.superuser().await;
        let foreign: Vec<String> = sqlx::query_scalar(
            "SELECT o.name FROM (
                 SELECT relname::text AS name, relowner AS owner FROM pg_class
                 WHERE relnamespace = 'public'::regnamespace
                 UNION ALL
                 SELECT proname::text, proowner FROM pg_proc WHERE pronamespace = 'public'::regnamespace
                 UNION ALL
                 SELECT datname::text, datdba FROM pg_database WHERE datname = current_database()) o
             WHERE o.owner <> 'tenantry_admin'::regrole",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        assert_eq!(foreign, [""; 0]);
    }
}

#[tokio::test]
async fn session_has_its_application_name_and_role() {
    for system in System::both().await {
        let registry = system.registry("the-identity").await;
        registry.ping().await.unwrap();
        let mut admin = system.superuser().await;
        let login: String = sqlx::query_scalar(
            "SELECT usename::text FROM pg_stat_activity
             WHERE application_name = 'the-identity' AND datname = current_database()",
        )
        .fetch_one(&mut admin)
        .await
        .unwrap();
        assert_eq!(login, "operator");
        let mut session = system.session().await;
        let role: String =
            sqlx::query_scalar("SELECT current_user::text").fetch_one(&mut session).await.unwrap();
        assert_eq!(role, "tenantry_admin");
    }
}

#[tokio::test]
async fn sessions_stay_within_the_maximum() {
    for system in System::both().await {
        let registry = tenantry::registry::Registry::connect(&system.url(), "capped", 4).await.unwrap();
        let work = (0..60).map(async |n| {
            let row = created(&registry, &tenant(&format!("tenant-{n}"))).await;
            registry.begin_workflow(row.id, WorkflowKind::Provision).await.unwrap();
        });
        futures::future::join_all(work).await;
        // No session has been idle long enough to be closed, so this is the maximum.
        let mut admin = system.superuser().await;
        let sessions: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'capped'")
                .fetch_one(&mut admin)
                .await
                .unwrap();
        assert_eq!(sessions, 4);
    }
}
