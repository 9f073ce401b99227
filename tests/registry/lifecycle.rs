//! Valid transitions of a tenant's status.

use sqlx::{AssertSqlSafe, Executor};
use tenantry::{
    api::{reason::Reason, tenant::OffboardingTrigger},
    domain::{lifecycle::is_possible, observed::RegistryStatus, record::TenantRecord},
    registry::{Activity, Error, NewTenant, Registry},
};
use uuid::Uuid;

use crate::{
    registration::tombstone,
    system::{System, close, created, in_use, passed, refused, tenant},
};

async fn status(registry: &Registry, row: &TenantRecord) -> RegistryStatus {
    registry.by_id(row.id).await.unwrap().unwrap().status
}

#[tokio::test]
async fn lifecycle_is_recorded_in_activity_log_and_receipt() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let (up, down) = (Uuid::new_v4(), Uuid::new_v4());
        let row = created(&registry, &NewTenant { correlation: Some(up), ..tenant("acme") }).await;
        let id = row.id;
        assert!(registry.fail(id, "MigrationFailed", false, up).await.unwrap().changed);
        assert!(!registry.fail(id, "MigrationFailed", false, up).await.unwrap().changed);
        assert_eq!(
            registry.by_id(id).await.unwrap().unwrap().status_reason.as_deref(),
            Some("MigrationFailed")
        );
        assert!(registry.retry(id, up).await.unwrap().changed);
        registry.record_database_exists(id, true).await.unwrap();
        registry.set_credential(id, Some("SCRAM-SHA-256$x"), Some(b"d")).await.unwrap();
        let since = registry.activate(id, &in_use(), &[], up).await.unwrap().record.activated_at;
        let again = registry.activate(id, &in_use(), &[], up).await.unwrap();
        assert_eq!((again.record.activated_at, again.changed), (since, false));
        let active = registry.by_id(id).await.unwrap().unwrap();
        assert_eq!((active.status, active.status_reason), (RegistryStatus::Active, None));
        assert_eq!(active.activated_at, since);

        let stone = tombstone(false);
        assert!(registry.begin_deprovisioning(id, &stone, Some(down)).await.unwrap().changed);
        // A second tombstone changes nothing, not even the times.
        let mut later = stone.clone();
        later.terms.purge_after += jiff::SignedDuration::from_hours(24);
        let again = registry.begin_deprovisioning(id, &later, Some(down)).await.unwrap();
        assert!(!again.changed);
        let going = registry.by_id(id).await.unwrap().unwrap();
        assert_eq!(going.status, RegistryStatus::Deprovisioning);
        assert_eq!(again.record, going);
        assert_eq!(going.offboarding_trigger, Some(OffboardingTrigger::CustomerRequest));

        // Refused while the database exists.
        let early = close(&registry, id, down).await.unwrap_err();
        assert_eq!(
            (early.reason(), early.sql_state().as_deref()),
            (Reason::TransitionRefused, Some("TN001"))
        );
        assert_eq!(status(&registry, &row).await, RegistryStatus::Deprovisioning);
        registry.record_database_exists(id, false).await.unwrap();
        for _ in 0..2 {
            assert!(passed(&close(&registry, id, down).await.unwrap()));
        }
        let closed = registry.by_id(id).await.unwrap().unwrap();
        assert_eq!(closed.status, RegistryStatus::Deprovisioned);
        assert_eq!((closed.password_verifier, closed.password_digest), (None, None));

        let mut session = system.session().await;
        let log: Vec<(String, String, Option<Uuid>)> = sqlx::query_as(
            "SELECT action, actor, correlation_id FROM activity WHERE tenant_id = $1 ORDER BY id",
        )
        .bind(id.0)
        .fetch_all(&mut session)
        .await
        .unwrap();
        let log: Vec<_> = log
            .iter()
            .map(|(action, actor, workflow)| (action.as_str(), actor.as_str(), *workflow))
            .collect();
        assert_eq!(
            log,
            [
                ("Requested", "ada", Some(up)),
                ("Registered", "ada", Some(up)),
                ("Failed", "tenantry", Some(up)),
                ("Retried", "tenantry", Some(up)),
                ("Activated", "tenantry", Some(up)),
                ("DeprovisioningBegun", "ada", Some(down)),
                ("Deprovisioned", "tenantry", Some(down)),
            ]
        );
        let receipt: (String, String, bool, String, String, Uuid) = sqlx::query_as(
            "SELECT slug, database_name, database_retained, requested_by, reason, correlation_id
             FROM deletion_receipts WHERE tenant_id = $1",
        )
        .bind(id.0)
        .fetch_one(&mut session)
        .await
        .unwrap();
        let (slug, database, retained, by, why, workflow) = receipt;
        assert_eq!((slug.as_str(), database.as_str(), retained), ("acme", "tenant_acme", false));
        assert_eq!((by.as_str(), why.as_str(), workflow), ("ada", "has left", down));
        let slugs: Vec<String> = sqlx::query_scalar("SELECT slug FROM slug_history WHERE tenant_id = $1")
            .bind(id.0)
            .fetch_all(&mut session)
            .await
            .unwrap();
        assert_eq!(slugs, ["acme"]);
    }
}

#[tokio::test]
async fn registry_refuses_invalid_transitions() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let workflow = Uuid::new_v4();
        let row = created(&registry, &tenant("acme")).await;
        let id = row.id;
        let refusals = [
            close(&registry, id, workflow).await.unwrap_err(),
            {
                registry.activate(id, &in_use(), &[], workflow).await.unwrap();
                close(&registry, id, workflow).await.unwrap_err()
            },
            registry.fail(id, "Broken", false, workflow).await.unwrap_err(),
            registry.retry(id, workflow).await.unwrap_err(),
            {
                registry.begin_deprovisioning(id, &tombstone(false), Some(workflow)).await.unwrap();
                registry.activate(id, &in_use(), &[], workflow).await.unwrap_err()
            },
            {
                close(&registry, id, workflow).await.unwrap();
                registry.begin_deprovisioning(id, &tombstone(false), Some(workflow)).await.unwrap_err()
            },
            registry.activate(id, &in_use(), &[], workflow).await.unwrap_err(),
            registry.retry(id, workflow).await.unwrap_err(),
        ];
        for refusal in refusals {
            assert!(matches!(refusal, Error::Transition { .. }), "{refusal:?}");
            assert!(refusal.is_permanent());
        }
        let unknown = tenantry::domain::identity::TenantId(Uuid::new_v4());
        assert!(matches!(
            registry.activate(unknown, &in_use(), &[], workflow).await,
            Err(Error::NotFound(_))
        ));
        assert!(matches!(registry.set_access(unknown, None).await, Err(Error::NotFound(_))));
    }
}

/// The valid transitions that take a new tenant to each status.
fn way_to(status: RegistryStatus) -> &'static [&'static str] {
    match status {
        RegistryStatus::Provisioning => &[],
        RegistryStatus::Trial => &["trial"],
        RegistryStatus::Active => &["active"],
        RegistryStatus::Suspended => &["suspended"],
        RegistryStatus::Deprovisioning => &["active", "deprovisioning"],
        RegistryStatus::Deprovisioned => &["active", "deprovisioning", "deprovisioned"],
        RegistryStatus::Failed => &["failed"],
    }
}

#[tokio::test]
async fn database_refuses_invalid_transitions() {
    use RegistryStatus::{Deprovisioning, Provisioning};
    for system in System::both().await {
        let registry = system.registry("one").await;
        let mut session = system.session().await;
        for from in RegistryStatus::ALL {
            for to in RegistryStatus::ALL {
                let slug = format!("{}-{}", from.as_str(), to.as_str());
                let row = created(&registry, &tenant(&slug)).await;
                let update = |status: &str| {
                    AssertSqlSafe(format!("UPDATE tenants SET status = '{status}' WHERE id = '{}'", row.id))
                };
                for step in way_to(from) {
                    session.execute(update(step)).await.unwrap();
                }
                // An activated tenant never returns to provisioning.
                let backwards = (from, to) == (Deprovisioning, Provisioning);
                let possible = from == to || is_possible(from, to) && !backwards;
                let outcome = session.execute(update(to.as_str())).await;
                assert_eq!(outcome.is_ok(), possible, "{slug}: {outcome:?}");
                if let Err(error) = outcome {
                    assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("TN001"));
                }
            }
        }
        // A tenant that was never activated can return to provisioning.
        let row = created(&registry, &tenant("never-active")).await;
        for status in ["deprovisioning", "provisioning"] {
            let statement = format!("UPDATE tenants SET status = '{status}' WHERE id = '{}'", row.id);
            session.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        for status in RegistryStatus::ALL.into_iter().filter(|status| *status != Provisioning) {
            let insert = format!(
                "INSERT INTO tenants (id, slug, name, plan, server, database_name, login_name, resource_namespace,
                     resource_name, resource_uid, status)
                 VALUES (gen_random_uuid(), 'born-late', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', '{}')",
                status.as_str()
            );
            assert_eq!(refused(&mut session, insert).await, "TN001");
        }
        let fixed = format!("UPDATE tenants SET created_at = now() WHERE id = '{}'", row.id);
        assert_eq!(refused(&mut session, fixed).await, "TN003");
    }
}

#[tokio::test]
async fn records_cannot_be_changed_or_deleted() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let entry = Activity {
            tenant: Some(row.id),
            action: "Viewed",
            actor: "grace",
            reason: Some("ticket 7"),
            details: serde_json::json!({"page": "usage"}),
            correlation: None,
        };
        registry.activity(&entry).await.unwrap();
        close(&registry, row.id, Uuid::new_v4()).await.unwrap_err();
        let mut session = system.session().await;
        for table in ["activity", "deletion_receipts", "installation"] {
            let (delete, truncate) = (format!("DELETE FROM {table}"), format!("TRUNCATE {table}"));
            assert_eq!(refused(&mut session, delete).await, "TN003");
            assert_eq!(refused(&mut session, truncate).await, "TN003");
        }
        assert_eq!(refused(&mut session, "UPDATE activity SET actor = 'unknown'").await, "TN003");
        assert_eq!(refused(&mut session, "UPDATE installation SET id = gen_random_uuid()").await, "TN003");
        assert_eq!(refused(&mut session, "INSERT INTO installation DEFAULT VALUES").await, "23505");
        assert_eq!(refused(&mut session, "DELETE FROM tenants").await, "TN003");
        assert_eq!(refused(&mut session, "TRUNCATE tenants CASCADE").await, "TN003");
        let kept: (String, Option<String>, serde_json::Value) =
            sqlx::query_as("SELECT actor, reason, details FROM activity WHERE action = 'Viewed'")
                .fetch_one(&mut session)
                .await
                .unwrap();
        assert_eq!(
            kept,
            ("grace".to_owned(), Some("ticket 7".to_owned()), serde_json::json!({"page": "usage"}))
        );
    }
}
