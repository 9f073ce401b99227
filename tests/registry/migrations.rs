//! The registry's own migrations.

use futures::future::join_all;
use sqlx::{
    AssertSqlSafe, Connection, Executor,
    migrate::{MigrateError, Migrator},
};
use tenantry::{
    api::{reason::Reason, tenant::OffboardingTrigger},
    domain::{access::AccessLevel, record::ModuleVersion, usage::thresholds::WarnedLimits},
};
use uuid::Uuid;

use crate::system::{System, refused, until};

#[tokio::test]
async fn concurrent_migrations_agree() {
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
        // No session that holds a lock is left.
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
async fn installations_have_different_ids_and_keys() {
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
async fn failed_migration_changes_and_blocks_nothing() {
    for system in System::both_empty().await {
        let mut admin = system.superuser().await;
        // The operator may use the schema, but does not own the database.
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
            assert_eq!(
                (error.reason(), error.is_permanent()),
                (Reason::RegistryPermissionDenied, true),
                "{error}"
            );
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

/// The migrations of the last release before the compatibility number, which are a prefix of today's.
const STRICT_RELEASE: i64 = 8;

/// What the releases up to `STRICT_RELEASE` do at their start: they refuse any migration that they do not know.
async fn strict_release_migrates(system: &System<'_>) -> Result<(), MigrateError> {
    let known =
        sqlx::migrate!("migrations/system").iter().filter(|one| one.version <= STRICT_RELEASE).cloned();
    // A session of its own: after a failure sqlx keeps its lock.
    let mut session = system.session().await;
    let outcome = Migrator::with_migrations(known.collect()).run_direct(None, &mut session, false).await;
    session.close().await.unwrap();
    outcome
}

#[tokio::test]
async fn strict_release_can_be_rolled_back_to_until_schema_needs_later_one() {
    for system in System::both().await {
        strict_release_migrates(&system).await.unwrap();
        let mut session = system.session().await;
        let recorded: Vec<i64> = sqlx::query_scalar("SELECT version FROM schema_migrations ORDER BY version")
            .fetch_all(&mut session)
            .await
            .unwrap();
        assert!(
            recorded.contains(&12) && recorded.iter().all(|version| *version > STRICT_RELEASE),
            "{recorded:?}"
        );
        // Upgraded again, nothing is applied twice.
        system.registry("one").await.migrate().await.unwrap();

        session.execute("SELECT require_release(12)").await.unwrap();
        let refused = strict_release_migrates(&system).await.unwrap_err();
        assert!(matches!(refused, MigrateError::VersionMissing(12)), "{refused}");
        // This release has that migration.
        system.registry("one").await.migrate().await.unwrap();
    }
}

#[tokio::test]
async fn newer_schema_is_used_unless_it_needs_newer_release() {
    for system in System::both().await {
        let mut session = system.session().await;
        session
            .execute(
                "INSERT INTO schema_migrations (version, description, success, checksum, execution_time)
                 VALUES (9998, 'of tomorrow', true, '\\x00', 1)",
            )
            .await
            .unwrap();
        let registry = system.registry("one").await;
        registry.check_schema().await.unwrap();
        registry.migrate().await.unwrap();

        session.execute("SELECT require_release(9999)").await.unwrap();
        for error in [registry.check_schema().await.unwrap_err(), registry.migrate().await.unwrap_err()] {
            assert_eq!((error.reason(), error.is_permanent()), (Reason::RegistryTooNew, true), "{error}");
            assert!(error.to_string().contains("9999"), "{error}");
        }
    }
}

#[test]
fn migrations_take_nothing_away_without_a_word() {
    let taking = [
        "DROP COLUMN",
        "DROP TABLE",
        "DROP FUNCTION",
        "DROP VIEW",
        " RENAME ",
        "SET NOT NULL",
        "SET DATA TYPE",
    ];
    for migration in sqlx::migrate!("migrations/system").iter().filter(|one| one.version > STRICT_RELEASE) {
        let sql = migration.sql.as_str();
        let taken: Vec<_> = taking.into_iter().filter(|words| sql.contains(words)).collect();
        let said = sql.contains(&format!("require_release({})", migration.version));
        assert!(taken.is_empty() || said, "{}: {taken:?}: see docs/upgrades.md", migration.description);
    }
}

#[tokio::test]
async fn standby_changes_nothing_in_registry() {
    for system in System::both_empty().await {
        let registry = system.registry("standby").await;
        registry.check_schema().await.unwrap();
        let tables: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
                .fetch_one(&mut system.session().await)
                .await
                .unwrap();
        assert_eq!(tables, 0);
    }
}

#[tokio::test]
async fn registry_with_rows_is_upgraded() {
    for system in System::both_empty().await {
        // The version before state was recorded, with the statements of that version.
        let before: Vec<_> =
            sqlx::migrate!("migrations/system").iter().filter(|one| one.version <= 6).cloned().collect();
        assert_eq!(before.len(), 6);
        let mut session = system.session().await;
        Migrator::with_migrations(before).run_direct(None, &mut session, false).await.unwrap();
        for (slug, reason) in [("behind", Some("SchemaBehind")), ("failed", Some("Conflict")), ("fine", None)]
        {
            let id = Uuid::new_v4();
            sqlx::query(
                "INSERT INTO tenants (id, slug, name, plan, settings, server, database_name, login_name,
                     resource_namespace, resource_name, resource_uid, deletion_policy)
                 VALUES ($1, $2, $2, 'starter', '{\"theme\": \"dark\"}', 'default', $2, $2 || '_app', 'customers', $2,
                     $2, 'Retain')",
            )
            .bind(id)
            .bind(slug)
            .execute(&mut session)
            .await
            .unwrap();
            sqlx::query(
                "UPDATE tenants SET module_versions = '[{\"name\": \"core\", \"version\": 2}]', access = 'ReadOnly',
                     offboarding_trigger = 'NonPayment' WHERE id = $1",
            )
            .bind(id)
            .execute(&mut session)
            .await
            .unwrap();
            sqlx::query("SELECT record_usage($1, '{\"users\": 80}', now())")
                .bind(id)
                .execute(&mut session)
                .await
                .unwrap();
            // Another process of that version is still running one of its workflows.
            sqlx::query(
                "INSERT INTO workflows (tenant_id, kind, holder, claim, failure_reason, next_attempt_at)
                 VALUES ($1, 'Repair', 'another', take_claim(), $2, CASE WHEN $2 IS NOT NULL THEN now() END)",
            )
            .bind(id)
            .bind(reason)
            .execute(&mut session)
            .await
            .unwrap();
        }
        let registry = system.registry("one").await;
        registry.migrate().await.unwrap();
        let mut rows = registry.all_registered().await.unwrap();
        rows.sort_by(|a, b| a.slug.cmp(&b.slug));
        let recorded: Vec<_> =
            rows.iter().map(|row| (row.slug.as_str(), row.verification_required, row.last_failure)).collect();
        assert_eq!(
            recorded,
            [
                ("behind", true, Some(Reason::SchemaBehind)),
                ("failed", false, Some(Reason::Conflict)),
                ("fine", false, None)
            ]
        );
        for row in rows {
            assert_eq!(row.module_versions, [ModuleVersion { name: "core".into(), version: 2 }]);
            assert_eq!(row.offboarding_trigger, Some(OffboardingTrigger::NonPayment));
            assert_eq!((row.access, row.retain), (Some(AccessLevel::ReadOnly), true));
            assert_eq!((row.settings["theme"].as_str(), row.usage["users"]), (Some("dark"), 80));
            assert_eq!(row.warned_limits, WarnedLimits::new());
        }
        // The guard is in force again.
        assert_eq!(refused(&mut session, "UPDATE tenants SET created_at = now()").await, "TN002");
    }
}
