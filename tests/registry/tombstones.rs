//! Tombstones: undone until their purge has begun, and purged only when two clocks agree.

use jiff::{SignedDuration, Timestamp};
use tenantry::{
    domain::{access::AccessLevel, departure::Terms, observed::RegistryStatus},
    registry::Deadline,
};
use uuid::Uuid;

use crate::{
    registration::tombstone,
    system::{System, close, created, in_use, tenant},
};

#[tokio::test]
async fn a_tombstone_is_taken_back_until_its_purge_has_begun() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let (id, run) = (row.id, Uuid::new_v4());
        registry.activate(id, &in_use(), &[], run).await.unwrap();
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
        assert_eq!(purge, Deadline::Passed);
        let again = registry.begin_purge(id, "uid-of-acme", SignedDuration::ZERO, run).await.unwrap();
        assert_eq!(again, Deadline::Passed);
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
        assert_eq!(begin(uid, SignedDuration::ZERO).await.unwrap(), Deadline::NotDue);
        for terms in [Terms { held: true, ..now }, Terms { retain: true, ..now }] {
            assert!(registry.change_terms(id, terms, run).await.unwrap());
            assert_eq!(begin(uid, SignedDuration::ZERO).await.unwrap(), Deadline::Changed);
        }
        registry.change_terms(id, later, run).await.unwrap();
        assert_eq!(begin("uid-of-another", hour).await.unwrap(), Deadline::Changed);
        assert_eq!(begin(uid, hour).await.unwrap(), Deadline::Passed);
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
        registry.activate(id, &in_use(), &[], run).await.unwrap();
        assert_eq!(registry.fail(id, "x", true, run).await.unwrap_err().reason(), "TransitionRefused");
    }
}

#[tokio::test]
async fn a_clock_that_is_behind_takes_nothing_of_the_grace() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let (day, run) = (SignedDuration::from_hours(24), Uuid::new_v4());
        for (slug, off) in [("behind", SignedDuration::from_hours(-365 * 24)), ("ahead", day)] {
            let row = created(&registry, &tenant(slug)).await;
            let mut stone = tombstone(false);
            stone.at += off;
            stone.terms.purge_after = stone.at + day;
            let written = registry.begin_deprovisioning(row.id, &stone, Some(run)).await.unwrap();
            assert_eq!(written.purge_after, written.at + day, "{slug}");
            let late = written.at.duration_since(Timestamp::now() + off.max(SignedDuration::ZERO)).abs();
            assert!(late < SignedDuration::from_mins(1), "{slug}: {late:?}");
            let stored = registry.by_id(row.id).await.unwrap().unwrap();
            assert_eq!(
                (stored.deprovisioned_at, stored.purge_after),
                (Some(written.at), Some(written.purge_after))
            );
        }
    }
}

#[tokio::test]
async fn a_row_is_closed_under_the_rules_of_a_purge() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let (id, run, uid) = (row.id, Uuid::new_v4(), "uid-of-acme");
        registry.database_exists(id, true).await.unwrap();
        registry.begin_deprovisioning(id, &tombstone(true), Some(run)).await.unwrap();
        let now = registry.by_id(id).await.unwrap().unwrap().terms().unwrap();
        let (zero, hour) = (SignedDuration::ZERO, SignedDuration::from_hours(1));
        let both = async |uid: &str, ahead| {
            let may = registry.may_close(id, uid, ahead).await.unwrap();
            if may != Deadline::Passed {
                assert_eq!(registry.close(id, uid, ahead, run).await.unwrap(), may);
            }
            may
        };
        let later = Terms { purge_after: now.purge_after + hour, ..now };
        registry.change_terms(id, later, run).await.unwrap();
        assert_eq!(both(uid, zero).await, Deadline::NotDue);
        assert_eq!(both("uid-of-another", hour).await, Deadline::Changed);
        registry.change_terms(id, Terms { held: true, ..now }, run).await.unwrap();
        assert_eq!(both(uid, zero).await, Deadline::Changed);
        registry.change_terms(id, later, run).await.unwrap();
        assert_eq!(both(uid, hour).await, Deadline::Passed);
        assert_eq!(registry.close(id, uid, hour, run).await.unwrap(), Deadline::Passed);
    }
}

#[tokio::test]
async fn a_cut_is_doubted_only_of_a_tombstone() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let (id, run) = (row.id, Uuid::new_v4());
        registry.activate(id, &in_use(), &[], run).await.unwrap();
        registry.set_access(id, Some(AccessLevel::Blocked)).await.unwrap();
        assert!(!registry.doubt_cut(id).await.unwrap(), "it lives");
        registry.begin_deprovisioning(id, &tombstone(false), Some(run)).await.unwrap();
        assert!(registry.doubt_cut(id).await.unwrap() && !registry.doubt_cut(id).await.unwrap());
        assert_eq!(registry.by_id(id).await.unwrap().unwrap().access, None);
        // Gone for good, and kept for good.
        registry.begin_purge(id, "uid-of-acme", SignedDuration::ZERO, run).await.unwrap();
        close(&registry, id, run).await.unwrap();
        let kept = created(&registry, &tenant("kept")).await;
        registry.database_exists(kept.id, true).await.unwrap();
        registry.begin_deprovisioning(kept.id, &tombstone(true), Some(run)).await.unwrap();
        assert_eq!(registry.gone(&[id, kept.id]).await.unwrap(), [id].into());
        assert!(registry.all_retained().await.unwrap().is_empty());
        close(&registry, kept.id, run).await.unwrap();
        assert_eq!(registry.gone(&[id, kept.id]).await.unwrap(), [id].into());
        assert_eq!(registry.all_retained().await.unwrap()[0].id, kept.id);
    }
}
