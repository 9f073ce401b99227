//! Tombstones: undone until their purge has begun, and purged only when two clocks agree.

use jiff::SignedDuration;
use tenantry::{
    domain::{departure::Terms, observed::RegistryStatus},
    registry::PurgeStart,
};
use uuid::Uuid;

use crate::{
    registration::tombstone,
    system::{System, created, in_use, tenant},
};

#[tokio::test]
async fn a_tombstone_is_taken_back_until_its_purge_has_begun() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let (id, run) = (row.id, Uuid::new_v4());
        registry.activate(id, &in_use(), run).await.unwrap();
        registry.begin_deprovisioning(id, &tombstone(false), Some(run)).await.unwrap();
        assert!(registry.reinstate(id, run).await.unwrap());
        assert!(!registry.reinstate(id, run).await.unwrap());
        let back = registry.by_id(id).await.unwrap().unwrap();
        // Cut off still, until its access is judged.
        assert_eq!(
            (back.status, back.terms(), back.deprovisioned_at),
            (RegistryStatus::Suspended, None, None)
        );

        registry.begin_deprovisioning(id, &tombstone(false), Some(run)).await.unwrap();
        let purge = registry.begin_purge(id, "uid-of-acme", SignedDuration::ZERO, run).await.unwrap();
        assert_eq!(purge, PurgeStart::Begun);
        let again = registry.begin_purge(id, "uid-of-acme", SignedDuration::ZERO, run).await.unwrap();
        assert_eq!(again, PurgeStart::Begun);
        assert_eq!(registry.reinstate(id, run).await.unwrap_err().reason(), "TransitionRefused");
        let changed = Terms { retain: true, ..tombstone(false).terms };
        assert!(!registry.change_terms(id, changed, run).await.unwrap());
    }
}

#[tokio::test]
async fn one_that_was_never_in_use_goes_back_to_provisioning() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let run = Uuid::new_v4();
        registry.begin_deprovisioning(row.id, &tombstone(false), Some(run)).await.unwrap();
        registry.reinstate(row.id, run).await.unwrap();
        let back = registry.by_id(row.id).await.unwrap().unwrap();
        assert_eq!(back.status, RegistryStatus::Provisioning);
    }
}

#[tokio::test]
async fn a_purge_does_not_begin_before_its_time_nor_while_it_is_held_nor_for_another_object() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let (id, run, uid) = (row.id, Uuid::new_v4(), "uid-of-acme");
        let now = tombstone(false).terms;
        registry.begin_deprovisioning(id, &tombstone(false), Some(run)).await.unwrap();
        let begin = |uid: &'static str, ahead| registry.begin_purge(id, uid, ahead, run);
        let hour = SignedDuration::from_hours(1);

        // The operator's clock may say what it wants: the registry's has its own mind.
        let later = Terms { purge_after: now.purge_after + hour, ..now };
        assert!(registry.change_terms(id, later, run).await.unwrap());
        assert_eq!(begin(uid, SignedDuration::ZERO).await.unwrap(), PurgeStart::NotDue);
        for terms in [Terms { held: true, ..now }, Terms { retain: true, ..now }] {
            assert!(registry.change_terms(id, terms, run).await.unwrap());
            assert_eq!(begin(uid, SignedDuration::ZERO).await.unwrap(), PurgeStart::Changed);
        }
        registry.change_terms(id, later, run).await.unwrap();
        assert_eq!(begin("uid-of-another", hour).await.unwrap(), PurgeStart::Changed);
        assert_eq!(begin(uid, hour).await.unwrap(), PurgeStart::Begun);
    }
}

#[tokio::test]
async fn a_failed_provisioning_is_rolled_back_once_and_one_that_was_in_use_never() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let (id, run) = (row.id, Uuid::new_v4());
        registry.database_exists(id, true).await.unwrap();
        registry.fail(id, "MigrationFailed", true, run).await.unwrap();
        // Not tried again before what was made is gone.
        assert_eq!(registry.retry(id, run).await.unwrap_err().reason(), "TransitionRefused");
        assert!(registry.rolled_back(id, run).await.unwrap());
        assert!(!registry.rolled_back(id, run).await.unwrap());
        let row = registry.by_id(id).await.unwrap().unwrap();
        assert!(!row.database_exists && !row.rolling_back && row.status == RegistryStatus::Failed);
        registry.retry(id, run).await.unwrap();
        registry.activate(id, &in_use(), run).await.unwrap();
        assert_eq!(registry.fail(id, "x", true, run).await.unwrap_err().reason(), "TransitionRefused");
    }
}
