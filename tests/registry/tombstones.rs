//! Tombstones are reinstated until their purge has begun, and purged only when two clocks agree.

use jiff::{SignedDuration, Timestamp};
use tenantry::{
    api::reason::Reason,
    domain::{
        access::AccessLevel, identity::TenantId, known_rows::KnownRows, observed::RegistryStatus,
        offboarding::PurgeTerms,
    },
    registry::{Deadline, KnownTenant},
};
use uuid::Uuid;

use crate::{
    registration::tombstone,
    system::{System, close, created, in_use, passed, tenant},
};

#[tokio::test]
async fn tombstone_is_reinstated_until_purge_begins() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let (id, run) = (row.id, Uuid::new_v4());
        registry.activate(id, &in_use(), &[], run).await.unwrap();
        registry.begin_deprovisioning(id, &tombstone(false), Some(run)).await.unwrap();
        assert!(registry.reinstate(id, "ada", run).await.unwrap().changed);
        assert!(!registry.reinstate(id, "ada", run).await.unwrap().changed);
        let back = registry.by_id(id).await.unwrap().unwrap();
        // Suspended until its access is evaluated.
        assert_eq!(
            (back.status, back.terms(), back.deprovisioned_at),
            (RegistryStatus::Suspended, None, None)
        );

        registry.begin_deprovisioning(id, &tombstone(false), Some(run)).await.unwrap();
        let purge = registry.begin_purge(id, "uid-of-acme", SignedDuration::ZERO, run).await.unwrap();
        assert!(passed(&purge));
        let again = registry.begin_purge(id, "uid-of-acme", SignedDuration::ZERO, run).await.unwrap();
        assert!(passed(&again));
        assert_eq!(registry.reinstate(id, "ada", run).await.unwrap_err().reason(), Reason::TransitionRefused);
        let changed = PurgeTerms { retain: true, ..tombstone(false).terms };
        assert!(!registry.change_terms(id, changed, "ada", run).await.unwrap().changed);
    }
}

#[tokio::test]
async fn tenant_never_activated_is_reinstated_to_provisioning() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let run = Uuid::new_v4();
        registry.begin_deprovisioning(row.id, &tombstone(false), Some(run)).await.unwrap();
        registry.reinstate(row.id, "ada", run).await.unwrap();
        let back = registry.by_id(row.id).await.unwrap().unwrap();
        assert_eq!(back.status, RegistryStatus::Provisioning);
    }
}

#[tokio::test]
async fn purge_needs_due_time_no_hold_and_same_object() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let (id, run, uid) = (row.id, Uuid::new_v4(), "uid-of-acme");
        let now = tombstone(false).terms;
        registry.begin_deprovisioning(id, &tombstone(false), Some(run)).await.unwrap();
        let begin = |uid: &'static str, ahead| registry.begin_purge(id, uid, ahead, run);
        let hour = SignedDuration::from_hours(1);

        // The operator's clock alone does not decide: the registry's must agree.
        let later = PurgeTerms { purge_after: now.purge_after + hour, ..now };
        assert!(registry.change_terms(id, later, "ada", run).await.unwrap().changed);
        assert_eq!(begin(uid, SignedDuration::ZERO).await.unwrap(), Deadline::NotDue);
        for terms in [PurgeTerms { held: true, ..now }, PurgeTerms { retain: true, ..now }] {
            assert!(registry.change_terms(id, terms, "ada", run).await.unwrap().changed);
            assert_eq!(begin(uid, SignedDuration::ZERO).await.unwrap(), Deadline::Changed);
        }
        registry.change_terms(id, later, "ada", run).await.unwrap();
        assert_eq!(begin("uid-of-another", hour).await.unwrap(), Deadline::Changed);
        assert!(passed(&begin(uid, hour).await.unwrap()));
    }
}

#[tokio::test]
async fn failed_provisioning_is_rolled_back_once() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let (id, run) = (row.id, Uuid::new_v4());
        registry.record_database_exists(id, true).await.unwrap();
        registry.fail(id, "MigrationFailed", true, run).await.unwrap();
        // Not retried before the rollback is done.
        assert_eq!(registry.retry(id, run).await.unwrap_err().reason(), Reason::TransitionRefused);
        assert!(registry.rolled_back(id, run).await.unwrap().changed);
        assert!(!registry.rolled_back(id, run).await.unwrap().changed);
        let row = registry.by_id(id).await.unwrap().unwrap();
        assert!(!row.database_exists && !row.rolling_back && row.status == RegistryStatus::Failed);
        registry.retry(id, run).await.unwrap();
        registry.activate(id, &in_use(), &[], run).await.unwrap();
        assert_eq!(registry.fail(id, "x", true, run).await.unwrap_err().reason(), Reason::TransitionRefused);
    }
}

#[tokio::test]
async fn slow_clock_does_not_shorten_the_grace_period() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let (day, run) = (SignedDuration::from_hours(24), Uuid::new_v4());
        for (slug, off) in [("behind", SignedDuration::from_hours(-365 * 24)), ("ahead", day)] {
            let row = created(&registry, &tenant(slug)).await;
            let mut stone = tombstone(false);
            stone.at += off;
            stone.terms.purge_after = stone.at + day;
            let written = registry.begin_deprovisioning(row.id, &stone, Some(run)).await.unwrap().record;
            let at = written.deprovisioned_at.unwrap();
            assert_eq!(written.purge_after, Some(at + day), "{slug}");
            let late = at.duration_since(Timestamp::now() + off.max(SignedDuration::ZERO)).abs();
            assert!(late < SignedDuration::from_mins(1), "{slug}: {late:?}");
            let stored = registry.by_id(row.id).await.unwrap().unwrap();
            assert_eq!(stored, written);
        }
    }
}

#[tokio::test]
async fn close_follows_the_rules_of_a_purge() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let (id, run, uid) = (row.id, Uuid::new_v4(), "uid-of-acme");
        registry.record_database_exists(id, true).await.unwrap();
        registry.begin_deprovisioning(id, &tombstone(true), Some(run)).await.unwrap();
        let now = registry.by_id(id).await.unwrap().unwrap().terms().unwrap();
        let (zero, hour) = (SignedDuration::ZERO, SignedDuration::from_hours(1));
        let both = async |uid: &str, ahead| {
            let may = registry.may_close(id, uid, ahead).await.unwrap();
            if !passed(&may) {
                assert_eq!(registry.close(id, uid, ahead, run).await.unwrap().deadline, may);
            }
            may
        };
        let later = PurgeTerms { purge_after: now.purge_after + hour, ..now };
        registry.change_terms(id, later, "ada", run).await.unwrap();
        assert_eq!(both(uid, zero).await, Deadline::NotDue);
        assert_eq!(both("uid-of-another", hour).await, Deadline::Changed);
        registry.change_terms(id, PurgeTerms { held: true, ..now }, "ada", run).await.unwrap();
        assert_eq!(both(uid, zero).await, Deadline::Changed);
        registry.change_terms(id, later, "ada", run).await.unwrap();
        assert!(passed(&both(uid, hour).await));
        assert!(passed(&registry.close(id, uid, hour, run).await.unwrap().deadline));
    }
}

#[tokio::test]
async fn revoked_access_is_doubted_only_for_tombstones() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let (id, run) = (row.id, Uuid::new_v4());
        registry.activate(id, &in_use(), &[], run).await.unwrap();
        registry.set_access(id, Some(AccessLevel::Blocked)).await.unwrap();
        assert_eq!(registry.doubt_revocation(id).await.unwrap(), None, "it is not a tombstone");
        registry.begin_deprovisioning(id, &tombstone(false), Some(run)).await.unwrap();
        assert!(registry.doubt_revocation(id).await.unwrap().is_some());
        assert_eq!(registry.doubt_revocation(id).await.unwrap(), None);
        assert_eq!(registry.by_id(id).await.unwrap().unwrap().access, None);
        // One database is dropped, one is retained.
        registry.begin_purge(id, "uid-of-acme", SignedDuration::ZERO, run).await.unwrap();
        close(&registry, id, run).await.unwrap();
        let kept = created(&registry, &tenant("kept")).await;
        registry.record_database_exists(kept.id, true).await.unwrap();
        registry.begin_deprovisioning(kept.id, &tombstone(true), Some(run)).await.unwrap();
        let never = TenantId(Uuid::new_v4());
        let known = async || registry.known(&[id, kept.id, never]).await.unwrap();
        let expected = [(id, KnownTenant::Dropped), (kept.id, KnownTenant::Other)].into();
        assert_eq!(known().await, expected);
        assert_eq!(registry.changed_since(None).await.unwrap().count, 1);
        close(&registry, kept.id, run).await.unwrap();
        assert_eq!(known().await, expected);
        let all = registry.changed_since(None).await.unwrap();
        assert_eq!((all.count, all.rows.len(), all.rows[0].id), (1, 1, kept.id), "closed, and retained");
        let mut rows = KnownRows::default();
        assert!(rows.update(all.clone()), "the checksum is computed alike");
        let changed = registry.changed_since(Some(all.at - SignedDuration::from_mins(2))).await.unwrap();
        assert_eq!(changed.rows.len(), 2, "closed rows too");
        assert!(rows.update(changed));
        let nothing = registry.changed_since(Some(all.at + SignedDuration::from_mins(2))).await.unwrap();
        assert_eq!((nothing.count, nothing.rows.len()), (1, 0));
        assert!(rows.update(nothing));
    }
}
