//! The registry's own migrations.

use futures::future::join_all;
use sqlx::{AssertSqlSafe, Executor};

use crate::system::{System, until};

#[tokio::test]
async fn processes_that_start_at_once_and_again_agree() {
    for system in System::both_empty().await {
        let mut processes = Vec::new();
        for n in 0..8 {
            processes.push(system.registry(&format!("process-{n}")).await);
        }
        for outcome in join_all(processes.iter().map(|process| process.migrate())).await {
            outcome.unwrap();
        }
        let first = processes[0].installation().await.unwrap();
        assert_eq!(first.digest_key.len(), 32);
        processes[1].migrate().await.unwrap();
        let again = processes[1].installation().await.unwrap();
        assert_eq!((again.id, again.digest_key.to_vec()), (first.id, first.digest_key.to_vec()));
        assert!(format!("{first:?}").contains("digest_key: …"), "{first:?}");
        // No session of theirs is left that holds the lock, or anything else.
        let mut admin = system.superuser().await;
        until("all locks are given back", async || {
            let locks: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            )
            .fetch_one(&mut admin)
            .await
            .unwrap();
            (locks == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn two_installations_have_nothing_in_common() {
    for system in System::both().await {
        let other = System::empty_on(system.server).await;
        let (one, two) = (system.registry("one").await, other.registry("two").await);
        two.migrate().await.unwrap();
        let (one, two) = (one.installation().await.unwrap(), two.installation().await.unwrap());
        assert_ne!(one.id, two.id);
        assert_ne!(one.digest_key, two.digest_key);
    }
}

#[tokio::test]
async fn a_failed_migration_changes_nothing_and_blocks_nobody() {
    for system in System::both_empty().await {
        let mut admin = system.superuser().await;
        // The schema lets the operator in, but the database is not its own.
        for statement in [
            format!("ALTER DATABASE {} OWNER TO postgres", system.database),
            "GRANT CREATE ON SCHEMA public TO tenantry_admin".to_owned(),
        ] {
            admin.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        let registry = system.registry("one").await;
        for _ in 0..2 {
            let error = registry.migrate().await.unwrap_err();
            assert_eq!(error.sql_state().as_deref(), Some("42501"), "{error}");
            assert_eq!((error.reason(), error.is_permanent()), ("RegistryPermissionDenied", true), "{error}");
            assert!(error.to_string().contains(&system.database), "{error}");
        }
        let tables: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_class WHERE relname = 'tenants' AND relnamespace = 'public'::regnamespace",
        )
        .fetch_one(&mut admin)
        .await
        .unwrap();
        assert_eq!(tables, 0);
        admin
            .execute(AssertSqlSafe(format!("ALTER DATABASE {} OWNER TO tenantry_admin", system.database)))
            .await
            .unwrap();
        registry.migrate().await.unwrap();
        registry.installation().await.unwrap();
    }
}

#[tokio::test]
async fn an_older_program_leaves_a_newer_registry_alone() {
    for system in System::both().await {
        let mut session = system.session().await;
        session
            .execute(
                "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'of tomorrow', true, '\\x00', 1)",
            )
            .await
            .unwrap();
        let error = system.registry("one").await.migrate().await.unwrap_err();
        assert_eq!((error.reason(), error.is_permanent()), ("RegistryTooNew", true), "{error}");
    }
}
