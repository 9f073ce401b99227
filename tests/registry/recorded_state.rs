//! State that the operator decides by, as the registry records it.

use jiff::{SignedDuration, Timestamp};
use tenantry::{
    api::{reason::Reason, tenant_status::WorkflowKind},
    domain::{identity::TenantId, record::TenantRecord, usage::thresholds::WarnedLimits},
    registry::{Registry, WorkflowOutcome},
};
use uuid::Uuid;

use crate::{
    registration::tombstone,
    system::{System, close, created, in_use, tenant},
};

async fn stored(registry: &Registry, id: TenantId) -> TenantRecord {
    registry.by_id(id).await.unwrap().unwrap()
}

#[tokio::test]
async fn restored_server_requires_verification_of_its_tenants() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let (here, closed) =
            (created(&registry, &tenant("acme")).await.id, created(&registry, &tenant("closed")).await.id);
        let mut elsewhere = tenant("globex");
        elsewhere.server = "second".to_owned();
        let elsewhere = created(&registry, &elsewhere).await.id;
        let run = Uuid::new_v4();
        registry.activate(here, &in_use(), &[], run).await.unwrap();
        registry.begin_deprovisioning(closed, &tombstone(false), None).await.unwrap();
        close(&registry, closed, run).await.unwrap();
        for _ in 0..2 {
            registry.require_verification("default", 1).await.unwrap();
        }
        let mut required = Vec::new();
        for id in [here, closed, elsewhere] {
            required.push(stored(&registry, id).await.verification_required);
        }
        assert_eq!(required, [true, false, false]);
        // It outlives the process, and the tenant's other changes.
        let later = system.registry("two").await;
        assert!(stored(&later, here).await.verification_required);
        for changed in [true, false] {
            let update = later.set_verification_required(here, false).await.unwrap();
            assert_eq!((update.changed, update.record.verification_required), (changed, false));
        }
        let update = later.set_verification_required(elsewhere, true).await.unwrap();
        assert!(update.changed && update.record.verification_required);
        assert_eq!(stored(&later, elsewhere).await, update.record);
    }
}

#[tokio::test]
async fn restored_database_requires_verification_of_its_tenant() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("acme")).await.id;
        registry.activate(id, &in_use(), &[], Uuid::new_v4()).await.unwrap();
        let record = async |database, login| {
            let restored = registry.record_oids(&[(id, database, login)]).await.unwrap();
            let row = stored(&registry, id).await;
            assert_eq!((row.database_oid, row.login_oid), (Some(database), Some(login)));
            registry.set_verification_required(id, false).await.unwrap();
            (restored == [id], row.verification_required)
        };
        assert_eq!(record(1, 2).await, (false, false), "first read");
        assert_eq!(record(1, 3).await, (false, false), "another login has no data");
        assert_eq!(record(4, 3).await, (true, true));
        assert_eq!(record(4, 3).await, (false, false));
    }
}

#[tokio::test]
async fn last_failure_is_recorded_until_the_next_attempt() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("acme")).await.id;
        let begin = async || registry.begin_workflow(id, WorkflowKind::Provision).await.unwrap();
        let last_failure = async || stored(&registry, id).await.last_failure;
        let workflow = begin().await;
        assert_eq!(last_failure().await, None);
        let next = Timestamp::now() + SignedDuration::from_mins(5);
        registry
            .postpone_workflow(&workflow, None, Reason::SecretConflict, "Secret is not ours", next)
            .await
            .unwrap();
        assert_eq!(last_failure().await, Some(Reason::SecretConflict));
        let workflow = begin().await;
        assert_eq!(last_failure().await, None);
        registry.postpone_workflow(&workflow, None, Reason::SchemaBehind, "older", next).await.unwrap();
        assert_eq!(last_failure().await, Some(Reason::SchemaBehind));
        // A newer version may have recorded a reason that this one does not know.
        sqlx::query("UPDATE workflows SET failure_reason = 'OfTomorrow'")
            .execute(&mut system.session().await)
            .await
            .unwrap();
        assert_eq!(last_failure().await, Some(Reason::StepFailed));
        let workflow = begin().await;
        registry.finish_workflow(&workflow, WorkflowOutcome::Succeeded).await.unwrap();
        assert_eq!(last_failure().await, None);
    }
}

#[tokio::test]
async fn warned_limits_are_kept_while_usage_is_recorded() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("acme")).await.id;
        let warned = WarnedLimits::from(["storageBytes".to_owned(), "users".to_owned()]);
        // Without usage there is nothing to warn about.
        registry.record_warned_limits(id, &warned).await.unwrap();
        assert_eq!(stored(&registry, id).await.warned_limits, WarnedLimits::new());
        let used = |users| [("users".to_owned(), users)].into();
        registry.record_usage(&[(id, used(80))], Timestamp::UNIX_EPOCH).await.unwrap();
        registry.record_warned_limits(id, &warned).await.unwrap();
        registry.record_usage(&[(id, used(78))], Timestamp::UNIX_EPOCH).await.unwrap();
        assert_eq!(stored(&registry, id).await.warned_limits, warned);
        let seeded =
            registry.record_seed(id, "digest", &used(79), Timestamp::UNIX_EPOCH).await.unwrap().record;
        assert_eq!((seeded.warned_limits, seeded.usage), (warned, used(79)));
        registry.record_warned_limits(id, &WarnedLimits::new()).await.unwrap();
        assert_eq!(stored(&registry, id).await.warned_limits, WarnedLimits::new());
    }
}

#[tokio::test]
async fn unchanged_warned_limits_write_nothing() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = created(&registry, &tenant("acme")).await.id;
        registry
            .record_usage(&[(id, [("users".to_owned(), 80)].into())], Timestamp::UNIX_EPOCH)
            .await
            .unwrap();
        let warned = WarnedLimits::from(["users".to_owned()]);
        registry.record_warned_limits(id, &warned).await.unwrap();
        let mut session = system.session().await;
        let version = "SELECT xmin::text FROM usage";
        let before: String = sqlx::query_scalar(version).fetch_one(&mut session).await.unwrap();
        registry.record_warned_limits(id, &warned).await.unwrap();
        let after: String = sqlx::query_scalar(version).fetch_one(&mut session).await.unwrap();
        assert_eq!(before, after);
    }
}
