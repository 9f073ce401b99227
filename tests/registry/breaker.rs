//! The breaker of mass deletions.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use tenantry::{
    api::reason::Reason,
    domain::{
        breaker::{BreakerThresholds, COUNT_FIRST, Vanished},
        identity::TenantId,
        offboarding::PurgeTerms,
    },
    registry::{Deadline, Opening, Registry, Tombstone},
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

async fn deprovision_with_grace(registry: &Registry, id: TenantId, days: i64) {
    registry
        .begin_deprovisioning(id, &Tombstone { terms: terms(days), ..tombstone(false) }, None)
        .await
        .unwrap();
}

fn terms(days: i64) -> PurgeTerms {
    let purge_after = Timestamp::now() + SignedDuration::from_hours(24 * days);
    PurgeTerms { purge_after, retain: false, held: false }
}

/// The opening after a count at a time, by both clocks.
async fn opening_at(registry: &Registry, limits: BreakerThresholds, at: Timestamp) -> Option<Opening> {
    let ahead = at.duration_since(Timestamp::now()).max(SignedDuration::ZERO);
    registry.check_mass_deletion(limits, at, ahead).await.unwrap().opening
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
        let count = async |limits| opening_at(&registry, limits, Timestamp::now()).await;
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
        registry.reinstate(ids[0], "ada", Uuid::new_v4()).await.unwrap();
        assert_eq!(registry.by_id(ids[0]).await.unwrap().unwrap().frozen_by, None);

        let now = Timestamp::now();
        assert!(!registry.acknowledge_breaker("another", "ada", now).await.unwrap());
        assert!(registry.acknowledge_breaker(&open.token, "ada", now).await.unwrap());
        assert!(!registry.acknowledge_breaker(&open.token, "ada", now).await.unwrap());
        // Acknowledged deprovisionings do not count again.
        assert_eq!(opening_at(&registry, LIMITS, now).await, None);
        assert!(passed(&purge(&registry, ids[1], "bbb").await.unwrap()));
    }
}

#[tokio::test]
async fn old_deprovisionings_do_not_count() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let ids = in_use_named(&registry, &["aaa", "bbb", "ccc"]).await;
        for id in ids {
            deprovision_with_grace(&registry, id, 30).await;
        }
        let later = Timestamp::now() + SignedDuration::from_mins(11);
        assert_eq!(opening_at(&registry, LIMITS, later).await, None);
        assert!(opening_at(&registry, LIMITS, Timestamp::now()).await.is_some());
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

#[tokio::test]
async fn purges_that_come_due_together_open_the_breaker() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let names = ["aaa", "bbb", "ccc", "ddd"];
        let ids = in_use_named(&registry, &names).await;
        // They left a few at a time: each window has no more than two.
        let hours = |hours| Timestamp::now() + SignedDuration::from_hours(hours);
        for (id, days) in ids.iter().zip([10, 20, 30, 40]) {
            deprovision_with_grace(&registry, *id, days).await;
        }
        assert_eq!(opening_at(&registry, LIMITS, hours(24 * 25)).await, None, "two are due");
        // The operator's clock alone is wrong.
        let alone = registry.check_mass_deletion(LIMITS, hours(24 * 50), SignedDuration::ZERO).await.unwrap();
        assert_eq!((alone.opening, alone.is_settling), (None, false));
        let open = opening_at(&registry, LIMITS, hours(24 * 35)).await.expect("three are due");
        assert_eq!(
            (open.cause.as_str(), open.detail.as_str()),
            ("MassPurge", "the purges of 3 of 4 tenants came due or began within ten minutes: aaa, bbb, ccc")
        );
        assert_eq!(registry.by_id(ids[0]).await.unwrap().unwrap().frozen_by, Some(open.id));
        registry.acknowledge_breaker(&open.token, "ada", hours(24 * 35)).await.unwrap();
        // What was due when it was acknowledged does not count again; what was not due counts.
        assert_eq!(opening_at(&registry, LIMITS, hours(24 * 35)).await, None);
        assert_eq!(opening_at(&registry, LIMITS, hours(24 * 45)).await, None);
        // Unless it comes due earlier than acknowledged.
        for id in &ids[..3] {
            registry.change_terms(*id, terms(1), "ada", Uuid::new_v4()).await.unwrap();
        }
        let open = opening_at(&registry, LIMITS, hours(1)).await.expect("they are hastened");
        assert_eq!(open.cause, "GraceShortened");
    }
}

#[tokio::test]
async fn graces_that_are_made_shorter_together_open_the_breaker() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let ids = in_use_named(&registry, &["aaa", "bbb", "ccc", "ddd"]).await;
        for id in &ids {
            deprovision_with_grace(&registry, *id, 30).await;
        }
        let later = Timestamp::now() + SignedDuration::from_mins(11);
        let shorten =
            async |id, terms| registry.change_terms(id, terms, "ada", Uuid::new_v4()).await.unwrap().record;
        let hastened = async |id, terms| shorten(id, terms).await.purge_hastened_at.is_some();
        assert!(!hastened(ids[0], PurgeTerms { held: true, ..terms(20) }).await, "it is held");
        assert!(hastened(ids[0], terms(20)).await, "it is not held any more");
        assert!(!hastened(ids[0], terms(40)).await, "a longer grace");
        assert!(!hastened(ids[0], PurgeTerms { retain: true, ..terms(0) }).await);
        assert!(hastened(ids[0], terms(0)).await, "it is not retained any more");
        let begun = Instant::now();
        assert!(hastened(ids[1], terms(20)).await);
        let count = registry.check_mass_deletion(LIMITS, later, SignedDuration::from_mins(11)).await.unwrap();
        assert_eq!(count.opening, None, "two are tolerated");
        let is_over = begun.elapsed() >= COUNT_FIRST.unsigned_abs();
        assert!(count.is_settling || is_over, "they are not counted yet");
        shorten(ids[2], terms(10)).await;
        let open = opening_at(&registry, LIMITS, later).await.unwrap();
        let detail = "the grace of 3 of 4 tenants was made shorter within ten minutes; \
                      this would purge aaa, ccc, bbb";
        assert_eq!((open.cause.as_str(), open.detail.as_str()), ("GraceShortened", detail));
        assert!(registry.by_id(ids[3]).await.unwrap().unwrap().frozen_by.is_some());
        registry.acknowledge_breaker(&open.token, "ada", later).await.unwrap();
        assert_eq!(opening_at(&registry, LIMITS, later).await, None);
    }
}

#[tokio::test]
async fn vanished_tenants_are_held_until_acknowledged() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let ids = in_use_named(&registry, &["aaa", "bbb", "ccc", "ddd"]).await;
        let now = Timestamp::now();
        let open = registry.tenants_vanished(&ids[..3], "they vanished", now).await.unwrap().unwrap();
        assert_eq!((open.cause.as_str(), open.detail.as_str()), ("TenantsVanished", "they vanished"));
        let vanished = async |id| registry.by_id(id).await.unwrap().unwrap().vanished;
        assert_eq!(vanished(ids[0]).await, Some(Vanished::Held));
        assert_eq!(vanished(ids[3]).await, None);
        registry.tenants_found(&ids[..1]).await.unwrap();
        assert_eq!(vanished(ids[0]).await, None);
        registry.acknowledge_breaker(&open.token, "ada", now).await.unwrap();
        assert_eq!(vanished(ids[0]).await, None);
        assert_eq!(vanished(ids[1]).await, Some(Vanished::Acknowledged));
        // Deprovisioned after that, they do not open it again.
        for id in &ids[1..3] {
            deprovision_with_grace(&registry, *id, 1).await;
            assert_eq!(vanished(*id).await, None);
        }
        let one = BreakerThresholds { minimum: 0, percent: 0 };
        assert_eq!(opening_at(&registry, one, Timestamp::now()).await, None);
    }
}
