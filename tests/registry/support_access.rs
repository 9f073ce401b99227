//! Support accesses in the registry: each change leaves one activity row, and what was granted or has ended stays as it is.

use jiff::{SignedDuration, Timestamp};
use sqlx::PgConnection;
use tenantry::{
    domain::support::{EndReason, Grant, SupportRequest},
    registry::SupportEnd,
};
use uuid::Uuid;

use crate::system::{System, created, refused, tenant};

fn request(id: u128, requires_approval: bool) -> SupportRequest {
    SupportRequest {
        id: Uuid::from_u128(id),
        namespace: "customers".into(),
        name: format!("look-{id}"),
        reason: "ticket 1".into(),
        duration: SignedDuration::from_hours(1),
        requires_approval,
        requested_by: "ada".into(),
    }
}

fn grant(login: &str, at: Timestamp) -> Grant {
    let expires_at = at + SignedDuration::from_hours(1);
    Grant { at, expires_at, server: "default".into(), login: login.into() }
}

/// The activity rows of an access.
async fn rows(session: &mut PgConnection, id: u128) -> Vec<(String, String)> {
    sqlx::query_as("SELECT action, actor FROM activity WHERE correlation_id = $1 ORDER BY id")
        .bind(Uuid::from_u128(id))
        .fetch_all(session)
        .await
        .unwrap()
}

fn end(at: Timestamp, reason: EndReason) -> SupportEnd<'static> {
    SupportEnd { at, reason, actor: "tenantry".to_owned(), deleted: None, left: Some("it is unreachable") }
}

#[tokio::test]
async fn each_change_is_recorded_once_and_nothing_is_taken_back() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let tenant = created(&registry, &tenant("acme")).await.id;
        let mut session = system.session().await;
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let (asked, id) = (request(1, true), Uuid::from_u128(1));
        for _ in 0..2 {
            registry.request_support(tenant, &asked, at).await.unwrap();
        }
        let waiting = registry.support_access(id).await.unwrap().unwrap();
        assert_eq!((&waiting.request, waiting.tenant, waiting.grant), (&asked, tenant, None));
        let granted = grant("tenant_acme_support_1", at);
        for approved_by in [None, Some("ada")] {
            registry.grant_support(id, &granted, approved_by).await.unwrap_err();
        }
        let too_long = Grant { expires_at: at + SignedDuration::from_secs(3601), ..granted.clone() };
        registry.grant_support(id, &too_long, Some("grace")).await.unwrap_err();
        for _ in 0..2 {
            registry.grant_support(id, &granted, Some("grace")).await.unwrap();
            registry.publish_support(id, at).await.unwrap();
        }
        let found = registry.support_in_force().await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].grant.as_ref(), found[0].approved_by.as_deref()),
            (Some(&granted), Some("grace"))
        );
        assert_eq!(found[0].published_at, Some(at));
        // A later grant changes nothing: the end stays.
        let later = grant("another", at + SignedDuration::from_hours(1));
        registry.grant_support(id, &later, Some("henry")).await.unwrap();
        registry.withdraw_support(id).await.unwrap();
        let found = registry.support_access(id).await.unwrap().unwrap();
        assert_eq!((found.grant, found.published_at), (Some(granted), None));
        assert!(registry.use_support(id, at).await.unwrap());
        assert!(!registry.use_support(id, at + SignedDuration::from_secs(1)).await.unwrap());
        for reason in [EndReason::Expired, EndReason::Deleted] {
            registry.end_support(id, &end(at, reason)).await.unwrap();
        }
        let ended = registry.support_access(id).await.unwrap().unwrap();
        assert_eq!((ended.ended, ended.first_used_at), (Some((at, EndReason::Expired)), Some(at)));
        assert!(registry.support_in_force().await.unwrap().is_empty());
        let expected = [
            ("SupportAccessRequested", "ada"),
            ("SupportAccessGranted", "grace"),
            ("SupportAccessUsed", "ada"),
            ("SupportAccessEnded", "tenantry"),
        ];
        let found = rows(&mut session, 1).await;
        assert_eq!(found, expected.map(|(action, actor)| (action.to_owned(), actor.to_owned())));
        for statement in [
            "UPDATE support_accesses SET ended_at = NULL, end_reason = NULL",
            "UPDATE support_accesses SET expires_at = expires_at + interval '1 min'",
            "UPDATE support_accesses SET reason = 'another'",
            "DELETE FROM support_accesses",
        ] {
            assert_eq!(refused(&mut session, statement).await, "P0001", "{statement}");
        }
        assert_eq!(refused(&mut session, "TRUNCATE support_accesses").await, "TN003");
        // One that was never granted.
        registry.request_support(tenant, &request(2, false), at).await.unwrap();
        registry.end_support(Uuid::from_u128(2), &end(at, EndReason::Lapsed)).await.unwrap();
        assert_eq!(rows(&mut session, 2).await[1].0, "SupportAccessRefused");
    }
}

#[tokio::test]
async fn break_glass_leaves_a_row_and_names_tenant_and_reason() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        created(&registry, &tenant("acme")).await;
        let mut session = system.superuser().await;
        sqlx::query("SELECT break_glass('acme', 'ada', 'the cluster is down')")
            .execute(&mut session)
            .await
            .unwrap();
        let row: (String, String, String) = sqlx::query_as(
            "SELECT actor, reason, details ->> 'session' FROM activity WHERE action = 'BreakGlass'",
        )
        .fetch_one(&mut session)
        .await
        .unwrap();
        let login: String =
            sqlx::query_scalar("SELECT session_user::text").fetch_one(&mut session).await.unwrap();
        assert_eq!(row, ("ada".into(), "the cluster is down".into(), login));
        for statement in [
            "SELECT break_glass('globex', 'ada', 'why')",
            "SELECT break_glass('acme', '', 'why')",
            "SELECT break_glass('acme', 'ada', ' ')",
        ] {
            assert_eq!(refused(&mut session, statement).await, "P0001", "{statement}");
        }
        assert_eq!(refused(&mut session, "TRUNCATE support_accesses").await, "TN003");
    }
}
