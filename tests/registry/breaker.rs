//! The breaker of mass deletions, as the database keeps it.

use jiff::{SignedDuration, Timestamp};
use tenantry::{
    domain::{breaker::Limits, identity::TenantId},
    registry::{Deadline, Registry},
};
use uuid::Uuid;

use crate::{
    registration::tombstone,
    system::{System, created, in_use, tenant},
};

const LIMITS: Limits = Limits { minimum: 2, percent: 50 };

/// Tenants in use.
async fn in_use_named(registry: &Registry, names: &[&str]) -> Vec<TenantId> {
    let mut ids = Vec::new();
    for name in names {
        let id = created(registry, &tenant(name)).await.id;
        registry.activate(id, &in_use(), &[], Uuid::new_v4()).await.unwrap();
        ids.push(id);
    }
    ids
}

async fn depart(registry: &Registry, id: TenantId) {
    registry.begin_deprovisioning(id, &tombstone(false), None).await.unwrap();
}

async fn purge(registry: &Registry, id: TenantId, slug: &str) -> tenantry::registry::Result<Deadline> {
    registry.begin_purge(id, &format!("uid-of-{slug}"), SignedDuration::ZERO, Uuid::new_v4()).await
}

#[tokio::test]
async fn it_opens_above_the_larger_of_a_number_and_a_share() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let names = ["aaa", "bbb", "ccc", "ddd", "eee", "fff"];
        let ids = in_use_named(&registry, &names).await;
        let count = async |limits| registry.count_departures(limits, Timestamp::now()).await.unwrap();
        for id in &ids[..3] {
            depart(&registry, *id).await;
            assert_eq!(count(LIMITS).await, None, "half of six are three");
        }
        // What was never in use is nobody's loss.
        let never = created(&registry, &tenant("never-used")).await.id;
        depart(&registry, never).await;
        assert_eq!(count(LIMITS).await, None);
        depart(&registry, ids[3]).await;
        let open = count(LIMITS).await.expect("four of six are too many");
        assert_eq!(
            (open.cause.as_str(), open.detail.as_str()),
            ("MassDeletion", "4 of 6 tenants began to go away within ten minutes")
        );
        assert_eq!(registry.breaker().await.unwrap(), Some(open.clone()));
        // Marked, and kept, whoever asks; those that go later too.
        depart(&registry, ids[4]).await;
        for (id, name) in ids[..5].iter().zip(names) {
            let row = registry.by_id(*id).await.unwrap().unwrap();
            assert_eq!(row.frozen_by, Some(open.id), "{name}");
            let refused = purge(&registry, *id, name).await.unwrap_err();
            assert_eq!((refused.reason(), refused.is_permanent()), ("PurgesFrozen", false));
        }
        assert_eq!(purge(&registry, never, "never-used").await.unwrap(), Deadline::Passed);
        registry.reinstate(ids[0], Uuid::new_v4()).await.unwrap();
        assert_eq!(registry.by_id(ids[0]).await.unwrap().unwrap().frozen_by, None);

        let now = Timestamp::now();
        assert!(!registry.acknowledge_breaker("another", "ada", now).await.unwrap());
        assert!(registry.acknowledge_breaker(&open.token, "ada", now).await.unwrap());
        assert!(!registry.acknowledge_breaker(&open.token, "ada", now).await.unwrap());
        // What was looked at does not count again.
        assert_eq!(registry.count_departures(LIMITS, now).await.unwrap(), None);
        assert_eq!(purge(&registry, ids[1], "bbb").await.unwrap(), Deadline::Passed);
    }
}

#[tokio::test]
async fn what_went_long_ago_does_not_count() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let ids = in_use_named(&registry, &["aaa", "bbb", "ccc"]).await;
        for id in ids {
            depart(&registry, id).await;
        }
        let later = Timestamp::now() + SignedDuration::from_mins(11);
        assert_eq!(registry.count_departures(LIMITS, later).await.unwrap(), None);
        assert!(registry.count_departures(LIMITS, Timestamp::now()).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_definition_opens_it_once_when_it_is_deleted_and_once_when_it_is_another() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let now = Timestamp::now();
        let open = async || registry.breaker().await.unwrap().map(|open| (open.token, open.cause));
        registry.definition_seen("one", "replaced", now).await.unwrap();
        registry.definition_seen("one", "replaced", now).await.unwrap();
        assert_eq!(open().await, None);
        registry.definition_deleted("one", "deleted", now).await.unwrap();
        let (first, cause) = open().await.unwrap();
        assert_eq!(cause, "DefinitionDeleted");
        registry.acknowledge_breaker(&first, "ada", now).await.unwrap();
        registry.definition_deleted("one", "deleted", now).await.unwrap();
        assert_eq!(open().await, None);
        registry.definition_seen("two", "replaced", now).await.unwrap();
        let (second, cause) = open().await.unwrap();
        assert_eq!(cause, "DefinitionReplaced");
        registry.acknowledge_breaker(&second, "ada", now).await.unwrap();
        registry.definition_seen("two", "replaced", now).await.unwrap();
        assert_eq!(open().await, None);
    }
}
