//! The breaker of mass deletions.

use jiff::{SignedDuration, Timestamp};
use tenantry::{
    api::reason::Reason,
    domain::{breaker::BreakerThresholds, identity::TenantId},
    registry::{Deadline, Registry},
};
use uuid::Uuid;

use crate::{
    registration::tombstone,
    system::{System, created, in_use, passed, tenant},
};

const LIMITS: BreakerThresholds = BreakerThresholds { minimum: 2, percent: 50 };

/// Creates activated tenants.
async fn in_use_named(registry: &Registry, names: &[&str]) -> Vec<TenantId> {
    let mut ids = Vec::new();
    for name in names {
        let id = created(registry, &tenant(name)).await.id;
        registry.activate(id, &in_use(), &[], Uuid::new_v4()).await.unwrap();
        ids.push(id);
    }
    ids
}

async fn deprovision(registry: &Registry, id: TenantId) {
    registry.begin_deprovisioning(id, &tombstone(false), None).await.unwrap();
}

async fn purge(registry: &Registry, id: TenantId, slug: &str) -> tenantry::registry::Result<Deadline> {
    registry.begin_purge(id, &format!("uid-of-{slug}"), SignedDuration::ZERO, Uuid::new_v4()).await
}

#[tokio::test]
async fn breaker_opens_above_the_larger_threshold() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let names = ["aaa", "bbb", "ccc", "ddd", "eee", "fff"];
        let ids = in_use_named(&registry, &names).await;
        let count = async |limits| registry.check_mass_deletion(limits, Timestamp::now()).await.unwrap();
        for id in &ids[..3] {
            deprovision(&registry, *id).await;
            assert_eq!(count(LIMITS).await, None, "half of six are three");
        }
        // A tenant that was never activated does not count.
        let never = created(&registry, &tenant("never-used")).await.id;
        deprovision(&registry, never).await;
        assert_eq!(count(LIMITS).await, None);
        deprovision(&registry, ids[3]).await;
        let open = count(LIMITS).await.expect("four of six are too many");
        assert_eq!(
            (open.cause.as_str(), open.detail.as_str()),
            ("MassDeletion", "the deprovisioning of 4 of 6 tenants began within ten minutes")
        );
        assert_eq!(registry.breaker().await.unwrap(), Some(open.clone()));
        // All tombstones are frozen, also those that are written later.
        deprovision(&registry, ids[4]).await;
        for (id, name) in ids[..5].iter().zip(names) {
            let row = registry.by_id(*id).await.unwrap().unwrap();
            assert_eq!(row.frozen_by, Some(open.id), "{name}");
            let refused = purge(&registry, *id, name).await.unwrap_err();
            assert_eq!((refused.reason(), refused.is_permanent()), (Reason::PurgesFrozen, false));
        }
        assert!(passed(&purge(&registry, never, "never-used").await.unwrap()));
        registry.reinstate(ids[0], Uuid::new_v4()).await.unwrap();
        assert_eq!(registry.by_id(ids[0]).await.unwrap().unwrap().frozen_by, None);

        let now = Timestamp::now();
        assert!(!registry.acknowledge_breaker("another", "ada", now).await.unwrap());
        assert!(registry.acknowledge_breaker(&open.token, "ada", now).await.unwrap());
        assert!(!registry.acknowledge_breaker(&open.token, "ada", now).await.unwrap());
        // Acknowledged deprovisionings do not count again.
        assert_eq!(registry.check_mass_deletion(LIMITS, now).await.unwrap(), None);
        assert!(passed(&purge(&registry, ids[1], "bbb").await.unwrap()));
    }
}

#[tokio::test]
async fn old_deprovisionings_do_not_count() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let ids = in_use_named(&registry, &["aaa", "bbb", "ccc"]).await;
        for id in ids {
            deprovision(&registry, id).await;
        }
        let later = Timestamp::now() + SignedDuration::from_mins(11);
        assert_eq!(registry.check_mass_deletion(LIMITS, later).await.unwrap(), None);
        assert!(registry.check_mass_deletion(LIMITS, Timestamp::now()).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn crd_deletion_and_replacement_each_open_the_breaker_once() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let now = Timestamp::now();
        let open = async || registry.breaker().await.unwrap().map(|open| (open.token, open.cause));
        registry.crd_found("one", "replaced", now).await.unwrap();
        registry.crd_found("one", "replaced", now).await.unwrap();
        assert_eq!(open().await, None);
        registry.crd_deleted("one", "deleted", now).await.unwrap();
        let (first, cause) = open().await.unwrap();
        assert_eq!(cause, "DefinitionDeleted");
        registry.acknowledge_breaker(&first, "ada", now).await.unwrap();
        registry.crd_deleted("one", "deleted", now).await.unwrap();
        assert_eq!(open().await, None);
        registry.crd_found("two", "replaced", now).await.unwrap();
        let (second, cause) = open().await.unwrap();
        assert_eq!(cause, "DefinitionReplaced");
        registry.acknowledge_breaker(&second, "ada", now).await.unwrap();
        registry.crd_found("two", "replaced", now).await.unwrap();
        assert_eq!(open().await, None);
    }
}
