//! Status, holds and activity of tenants in use.

use jiff::Timestamp;
use tenantry::{
    api::{tenant::SuspensionTrigger, tenant_hold::TenantHoldMode},
    domain::{
        access::{
            AccessLevel,
            holds::{Hold, Party, with, without},
        },
        observed::RegistryStatus,
    },
    registry::{HoldChange, NewState, SessionSample},
};
use uuid::Uuid;

use crate::system::{System, created, in_use, tenant};

fn hold(name: &str) -> Hold {
    Hold {
        name: name.into(),
        mode: Some(TenantHoldMode::ReadOnly),
        preserve: None,
        trigger: Some(SuspensionTrigger::PaymentFailure),
        reason: "unpaid since May".into(),
        since: Timestamp::constant(1_800_000_000, 0),
        party: Party::TenantHold,
    }
}

#[tokio::test]
async fn suspension_and_resumption_are_logged() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let (id, run) = (row.id, Uuid::new_v4());
        registry.activate(id, &in_use(), &[], run).await.unwrap();
        let at = Timestamp::constant(1_900_000_000, 0);
        let suspended = NewState {
            to: RegistryStatus::Suspended,
            why: Some("unpaid"),
            access: AccessLevel::Blocked,
            actor: "unknown",
            generation: Some(1),
            at,
        };
        assert!(registry.record_state(id, &suspended, run).await.unwrap().changed);
        assert!(!registry.record_state(id, &suspended, run).await.unwrap().changed);
        let later = NewState { why: Some("abuse"), at: Timestamp::MAX, ..suspended };
        assert!(registry.record_state(id, &later, run).await.unwrap().changed);
        let row = registry.by_id(id).await.unwrap().unwrap();
        assert_eq!((row.status, row.suspended_at), (RegistryStatus::Suspended, Some(at)));
        assert_eq!(row.status_reason.as_deref(), Some("abuse"));
        assert!(registry.record_state(id, &in_use(), run).await.unwrap().changed);
        let row = registry.by_id(id).await.unwrap().unwrap();
        assert_eq!((row.status, row.suspended_at), (RegistryStatus::Active, None));
        let mut session = system.session().await;
        let log: Vec<String> =
            sqlx::query_scalar("SELECT action FROM activity WHERE tenant_id = $1 ORDER BY id")
                .bind(id.0)
                .fetch_all(&mut session)
                .await
                .unwrap();
        assert_eq!(
            log,
            ["Requested", "Registered", "Activated", "Suspended", "SuspensionChanged", "Resumed"]
        );
    }
}

#[tokio::test]
async fn holds_change_only_if_unchanged_since_read() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let put = |before: Vec<Hold>, name: &'static str| {
            let (registry, after) = (registry.clone(), with(&before, hold(name)).unwrap());
            async move {
                let (hold, actor) = (&hold(name), "unknown");
                let change = HoldChange {
                    before: &before,
                    after: &after,
                    hold,
                    actor,
                    deletion: None,
                    placed_by: None,
                };
                registry.change_holds(row.id, &change).await.unwrap().is_some()
            }
        };
        assert!(put(vec![], "billing").await);
        // The holds have changed since they were read.
        assert!(!put(vec![], "abuse").await);
        let now = registry.by_id(row.id).await.unwrap().unwrap().holds;
        assert_eq!(now, [hold("billing")]);
        assert!(put(now.clone(), "abuse").await);
        let both = registry.by_id(row.id).await.unwrap().unwrap().holds;
        let left = without(&both, "billing").unwrap();
        let change = HoldChange {
            before: &both,
            after: &left,
            hold: &hold("billing"),
            actor: "unknown",
            deletion: None,
            placed_by: None,
        };
        assert!(registry.change_holds(row.id, &change).await.unwrap().is_some());
        assert_eq!(registry.by_id(row.id).await.unwrap().unwrap().holds, [hold("abuse")]);
    }
}

#[tokio::test]
async fn use_clears_the_inactivity_warning() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let row = created(&registry, &tenant("acme")).await;
        let at = Timestamp::constant(1_900_000_000, 0);
        let seen = |sessions, used| [SessionSample { tenant: row.id, sessions, used }];
        registry.record_sessions(&seen(5, false), at).await.unwrap();
        registry.record_inactivity_warning(row.id, at).await.unwrap();
        let idle = registry.by_id(row.id).await.unwrap().unwrap();
        assert_eq!((idle.sessions_seen, idle.last_session_at), (Some(5), None));
        assert_eq!(idle.inactivity_warned_at, Some(at));
        registry.record_sessions(&seen(6, true), at).await.unwrap();
        let used = registry.by_id(row.id).await.unwrap().unwrap();
        assert_eq!((used.sessions_seen, used.last_session_at), (Some(6), Some(at)));
        assert_eq!(used.inactivity_warned_at, None);
    }
}
