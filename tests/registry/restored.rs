//! What a registry that was restored to an older state records again.

use jiff::{SignedDuration, Timestamp};
use tenantry::{
    api::tenant_hold::TenantHoldMode,
    domain::{
        access::holds::{Hold, LegalHold, Party},
        identity::TenantId,
        observed::RegistryStatus,
        placement::Placement,
        slug::Slug,
    },
    registry::{HoldChange, LostRow, Registration},
};
use uuid::Uuid;

use crate::{
    registration::tombstone,
    system::{System, created, in_use, tenant},
};

fn hold(name: &str, mode: TenantHoldMode, since: Timestamp) -> Hold {
    Hold {
        name: name.to_owned(),
        mode: Some(mode),
        preserve: None,
        trigger: None,
        reason: "reported".to_owned(),
        since,
        party: Party::TenantHold,
    }
}

#[tokio::test]
async fn activation_is_restored_from_every_state_but_a_begun_purge() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let (now, run) = (Timestamp::now(), Uuid::new_v4());
        let later = now + SignedDuration::from_hours(24);
        let restored = async |id| registry.restore_activation(id, now, later, run).await;

        let provisioning = created(&registry, &tenant("aaa")).await.id;
        let row = restored(provisioning).await.unwrap();
        assert_eq!((row.status, row.database_exists), (RegistryStatus::Suspended, true));
        assert!(row.activated_at.is_some() && row.suspended_at.is_some() && row.access.is_none());
        assert_eq!(restored(provisioning).await.unwrap(), row, "once");

        let failed = created(&registry, &tenant("bbb")).await.id;
        registry.fail(failed, "it failed", true, run).await.unwrap();
        let row = restored(failed).await.unwrap();
        assert_eq!((row.status, row.rolling_back), (RegistryStatus::Suspended, false));

        let leaving = created(&registry, &tenant("ccc")).await.id;
        registry.begin_deprovisioning(leaving, &tombstone(false), None).await.unwrap();
        let row = restored(leaving).await.unwrap();
        assert_eq!(row.status, RegistryStatus::Deprovisioning);
        assert!(row.purge_after.unwrap() >= later - SignedDuration::from_secs(1));
        assert_eq!(row.status_reason.as_deref(), Some("has left"));

        let begun = created(&registry, &tenant("ddd")).await.id;
        registry.begin_deprovisioning(begun, &tombstone(false), None).await.unwrap();
        registry.begin_purge(begun, "uid-of-ddd", SignedDuration::ZERO, run).await.unwrap();
        assert!(restored(begun).await.unwrap().activated_at.is_none(), "it has begun");
    }
}

/// The row of a tenant that the registry lost.
fn lost_row(slug: &str, id: u128, now: Timestamp) -> LostRow {
    LostRow {
        placement: Placement {
            tenant: TenantId(Uuid::from_u128(id)),
            server: "default".to_owned(),
            database: format!("tenant_{slug}"),
            schema: None,
            login: format!("tenant_{slug}_app"),
            previous_login: None,
            reader_login: None,
        },
        slug: Slug::parse(slug).unwrap(),
        name: slug.to_owned(),
        plan: "starter".to_owned(),
        database_oid: 1,
        login_oid: Some(2),
        resource_namespace: "customers".to_owned(),
        resource_name: slug.to_owned(),
        resource_uid: format!("uid-of-{slug}"),
        holds: vec![
            hold("fraud", TenantHoldMode::Blocked, now),
            Hold {
                preserve: Some(LegalHold::of("uid".to_owned(), None, false)),
                ..hold("legal", TenantHoldMode::None, now)
            },
        ],
        retain: false,
    }
}

#[tokio::test]
async fn lost_row_is_written_once_and_never_over_another() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let now = Timestamp::now();
        let Registration::Created { row, .. } =
            registry.adopt_row(&lost_row("aaa", 1, now), &[], now).await.unwrap()
        else {
            panic!("the row is written")
        };
        assert_eq!((row.id, row.status), (TenantId(Uuid::from_u128(1)), RegistryStatus::Suspended));
        assert!(row.activated_at.is_some() && row.database_exists && row.access.is_none());
        assert_eq!((row.database_oid, row.login_oid), (Some(1), Some(2)));
        assert_eq!(row.holds, lost_row("aaa", 1, now).holds);
        // Each is in its own column, so that it can be changed and lifted.
        for hold in &row.holds {
            let read = registry.by_id(row.id).await.unwrap().unwrap();
            let after: Vec<_> = read.holds.iter().filter(|other| other.name != hold.name).cloned().collect();
            let change = HoldChange {
                before: &read.holds,
                after: &after,
                hold,
                actor: "unknown",
                deletion: None,
                placed_by: None,
            };
            assert!(registry.change_holds(row.id, &change).await.unwrap().is_some(), "{}", hold.name);
        }
        let again = registry.adopt_row(&lost_row("aaa", 1, now), &[], now).await.unwrap();
        assert!(matches!(again, Registration::Existing(found) if found.id == row.id));

        let other = created(&registry, &tenant("bbb")).await;
        registry.activate(other.id, &in_use(), &[], Uuid::new_v4()).await.unwrap();
        let taken = registry.adopt_row(&lost_row("bbb", 2, now), &[], now).await.unwrap();
        assert!(matches!(taken, Registration::SlugTaken(owner) if owner.id == other.id));
        let unchanged = registry.by_id(other.id).await.unwrap().unwrap();
        assert_eq!(unchanged.status, RegistryStatus::Active);
    }
}

#[tokio::test]
async fn row_of_an_earlier_tenant_with_the_slug_is_closed_with_its_receipt() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let (now, mut session) = (Timestamp::now(), system.session().await);
        let lost = |slug: &str| lost_row(slug, u128::from(slug.as_bytes()[0]), now);
        let active = created(&registry, &tenant("aaa")).await.id;
        registry.activate(active, &in_use(), &[], Uuid::new_v4()).await.unwrap();
        let leaving = created(&registry, &tenant("bbb")).await.id;
        registry.begin_deprovisioning(leaving, &tombstone(false), None).await.unwrap();
        for (slug, earlier) in [("aaa", active), ("bbb", leaving)] {
            let blocking = registry.blocking_rows(&lost(slug)).await.unwrap();
            assert_eq!(blocking.iter().map(|row| row.id).collect::<Vec<_>>(), [earlier]);
            let adopted = registry.adopt_row(&lost(slug), &blocking, now).await.unwrap();
            assert!(matches!(&adopted, Registration::Created { row, .. } if row.slug == slug), "{adopted:?}");
            let closed = registry.by_id(earlier).await.unwrap().unwrap();
            assert_eq!((closed.status, closed.database_exists), (RegistryStatus::Deprovisioned, false));
            let receipts = "SELECT count(*) FROM deletion_receipts JOIN activity USING (tenant_id)
                            WHERE tenant_id = $1 AND action = 'RowSuperseded' AND NOT database_retained";
            let receipts: i64 =
                sqlx::query_scalar(receipts).bind(earlier.0).fetch_one(&mut session).await.unwrap();
            assert_eq!(receipts, 1);
            assert!(registry.blocking_rows(&lost(slug)).await.unwrap().is_empty());
        }

        // One that changed since it was read is not closed, and then nothing is written.
        let changed = created(&registry, &tenant("ccc")).await;
        registry.activate(changed.id, &in_use(), &[], Uuid::new_v4()).await.unwrap();
        let refused = registry.adopt_row(&lost("ccc"), &[changed], now).await.unwrap();
        assert!(matches!(refused, Registration::SlugTaken(owner) if owner.status == RegistryStatus::Active));
    }
}

#[tokio::test]
async fn row_is_taken_over_as_it_was_read_and_never_a_tombstone() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("aaa")).await;
        registry.activate(row.id, &in_use(), &[], Uuid::new_v4()).await.unwrap();
        assert_eq!(registry.take_over(&row, "others", "moved", "new").await.unwrap(), None, "it changed");
        let row = registry.by_id(row.id).await.unwrap().unwrap();
        assert!(!registry.was_moved_from(row.id, "customers", "aaa").await.unwrap());
        let taken = registry.take_over(&row, "others", "moved", "new").await.unwrap().unwrap();
        let place = (taken.resource_namespace.as_str(), taken.resource_name.as_str());
        assert_eq!((taken.id, taken.status, place), (row.id, RegistryStatus::Active, ("others", "moved")));
        assert!(registry.was_moved_from(row.id, "customers", "aaa").await.unwrap());
        let found = registry.by_resource("others", "moved", "new").await.unwrap().unwrap();
        assert_eq!(found, taken);
        registry.begin_deprovisioning(row.id, &tombstone(false), None).await.unwrap();
        let leaving = registry.by_id(row.id).await.unwrap().unwrap();
        assert_eq!(registry.take_over(&leaving, "customers", "aaa", "newest").await.unwrap(), None);
    }
}
