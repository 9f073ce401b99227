//! Legal holds: the registry itself refuses to begin a purge, and is read by a release that does not know them.

use jiff::{SignedDuration, Timestamp};
use sqlx::Executor;
use tenantry::{
    api::{reason::Reason, tenant_hold::TenantHoldMode},
    domain::{
        access::{
            AccessLevel,
            holds::{Hold, LegalHold, Party, with, without},
        },
        identity::TenantId,
        record::TenantRecord,
    },
    registry::{Deadline, HoldChange, Registry},
};
use uuid::Uuid;

use crate::{
    registration::tombstone,
    system::{System, close, created, in_use, passed, refused, tenant},
};

fn legal(name: &str, mode: TenantHoldMode) -> Hold {
    Hold {
        name: name.into(),
        mode: Some(mode),
        preserve: Some(LegalHold::of("uid".into(), None, false)),
        trigger: None,
        reason: "litigation".into(),
        since: Timestamp::constant(1_800_000_000, 0),
        party: Party::TenantHold,
    }
}

async fn change(
    registry: &Registry,
    row: &TenantRecord,
    after: &[Hold],
    hold: &Hold,
) -> Option<TenantRecord> {
    let change =
        HoldChange { before: &row.holds, after, hold, actor: "unknown", deletion: None, placed_by: None };
    registry.change_holds(row.id, &change).await.unwrap()
}

async fn place(registry: &Registry, id: TenantId, hold: &Hold) -> Option<TenantRecord> {
    let row = registry.by_id(id).await.unwrap().unwrap();
    change(registry, &row, &with(&row.holds, hold.clone()).unwrap(), hold).await
}

async fn lift(registry: &Registry, id: TenantId, hold: &Hold) {
    let row = registry.by_id(id).await.unwrap().unwrap();
    change(registry, &row, &without(&row.holds, &hold.name).unwrap(), hold).await.unwrap();
}

/// A tombstone whose purge is due.
async fn due(registry: &Registry, name: &str, retain: bool) -> TenantId {
    let row = created(registry, &tenant(name)).await;
    registry.activate(row.id, &in_use(), &[], Uuid::new_v4()).await.unwrap();
    registry.begin_deprovisioning(row.id, &tombstone(retain), None).await.unwrap();
    registry.set_access(row.id, Some(AccessLevel::Blocked)).await.unwrap();
    row.id
}

#[tokio::test]
async fn no_purge_begins_and_no_row_is_closed_under_a_legal_hold() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let (zero, run) = (SignedDuration::ZERO, Uuid::new_v4());
        let (purged, retained) = (due(&registry, "acme", false).await, due(&registry, "kept", true).await);
        // One that restricts nothing, and one that does: they are in different columns.
        let (open, blocked) = (legal("legal", TenantHoldMode::None), legal("court", TenantHoldMode::Blocked));
        for id in [purged, retained] {
            place(&registry, id, &open).await.unwrap();
            let row = place(&registry, id, &blocked).await.unwrap();
            assert_eq!(row.holds, [blocked.clone(), open.clone()]);
            assert_eq!(registry.by_id(id).await.unwrap().unwrap(), row);
        }
        for hold in [&open, &blocked] {
            let begun = registry.begin_purge(purged, "uid-of-acme", zero, run).await.unwrap();
            assert_eq!(begun, Deadline::Changed);
            assert_eq!(registry.may_close(retained, "uid-of-kept", zero).await.unwrap(), Deadline::Changed);
            assert_eq!(close(&registry, retained, run).await.unwrap(), Deadline::Changed);
            // Not by another program either.
            let mut session = system.session().await;
            for statement in
                ["UPDATE tenants SET purge_started_at = now()", "UPDATE tenants SET status = 'deprovisioned'"]
            {
                assert_eq!(refused(&mut session, statement).await, "TN006");
            }
            for id in [purged, retained] {
                lift(&registry, id, hold).await;
            }
        }
        assert!(passed(&registry.begin_purge(purged, "uid-of-acme", zero, run).await.unwrap()));
        // After that it is too late.
        assert_eq!(place(&registry, purged, &open).await, None);
        assert!(passed(&registry.may_close(retained, "uid-of-kept", zero).await.unwrap()));
        assert!(passed(&close(&registry, retained, run).await.unwrap()));
        let named = registry.by_name("customers", "acme").await.unwrap();
        assert_eq!(named.iter().map(|row| row.id).collect::<Vec<_>>(), [purged]);
    }
}

#[tokio::test]
async fn release_without_legal_holds_can_read_and_not_purge() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let id = due(&registry, "acme", false).await;
        place(&registry, id, &legal("legal", TenantHoldMode::None)).await.unwrap();
        let mut session = system.session().await;
        // What such a release reads, and what it writes to begin a purge.
        let restricting: bool =
            sqlx::query_scalar("SELECT holds <> '[]' FROM tenants").fetch_one(&mut session).await.unwrap();
        assert!(!restricting, "it would restrict the access");
        let begin = "UPDATE tenants SET purge_started_at = now() WHERE status = 'deprovisioning'
                     AND deletion_policy <> 'Retain' AND purge_held IS NULL AND purge_after <= now()";
        let error = session.execute(begin).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "TN006");
        let error = tenantry::registry::Error::from(error);
        assert_eq!((error.reason(), error.is_permanent()), (Reason::LegalHold, false));
    }
}
