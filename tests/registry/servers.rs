//! The recorded identity of servers, and former leaders.

use std::collections::HashMap;

use tenantry::registry::{ServerIdentity, ServerMatch};

use crate::system::{System, created, tenant};

#[tokio::test]
async fn server_with_tenants_is_not_replaced_unless_accepted() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let server = tenant("acme").server;
        let bind = async |server: &str, identifier: &str, timeline, accepted| {
            let found = ServerIdentity { identifier: identifier.to_owned(), timeline };
            registry.bind_server(server, &found, accepted).await.unwrap()
        };
        let prove = async |identifier, accepted| bind(&server, identifier, Some(1), accepted).await;
        assert_eq!(prove("1", false).await, ServerMatch::Bound);
        // Without tenants, any server is accepted.
        assert_eq!(prove("2", false).await, ServerMatch::Doubted);
        let id = created(&registry, &tenant("acme")).await.id;
        let doubted = async || {
            let doubted = registry.by_id(id).await.unwrap().unwrap().verification_required;
            registry.set_verification_required(id, false).await.unwrap();
            doubted
        };
        assert_eq!(prove("2", false).await, ServerMatch::Bound);
        assert_eq!(prove("1", false).await, ServerMatch::Refused("2".into()));
        assert_eq!(prove("2", false).await, ServerMatch::Bound, "it is back");
        assert!(!doubted().await);
        assert_eq!(prove("3", true).await, ServerMatch::Doubted, "the user accepted it");
        assert!(doubted().await, "a dump may be older");
        assert_eq!(prove("2", false).await, ServerMatch::Refused("3".into()));
        assert_eq!(bind("elsewhere", "1", None, false).await, ServerMatch::Bound);
        // A failover, or a restore to a point in time; a login that may not read the timeline shows none.
        for (timeline, bound) in [
            (Some(2), ServerMatch::Doubted),
            (Some(2), ServerMatch::Bound),
            (None, ServerMatch::Bound),
            (Some(4), ServerMatch::Doubted),
        ] {
            assert_eq!(bind(&server, "3", timeline, false).await, bound, "{timeline:?}");
            assert_eq!(doubted().await, bound == ServerMatch::Doubted, "{timeline:?}");
        }
        // One that was never read before proves nothing.
        assert_eq!(bind("elsewhere", "1", Some(7), false).await, ServerMatch::Bound);
        let logged: Vec<String> = sqlx::query_scalar(
            "SELECT (details->>'from') || (details->>'to') FROM activity WHERE action = 'ServerReplaced' ORDER BY id",
        )
        .fetch_all(&mut system.session().await)
        .await
        .unwrap();
        assert_eq!(logged, ["12", "23"]);
    }
}

#[tokio::test]
async fn leader_knows_its_predecessors() {
    for system in System::both().await {
        let first = system.registry("first").await;
        assert!(first.lead(None).await.unwrap().is_empty());
        assert!(first.lead(None).await.unwrap().is_empty());
        assert_eq!(system.registry("second").await.lead(Some("first")).await.unwrap(), ["first"]);
        // A leader from before leaders were recorded, and one that released the Lease.
        let third = system.registry("third").await.lead(Some("ancient")).await.unwrap();
        assert_eq!(third, ["ancient", "first", "second"]);
        let mut session = system.session().await;
        let old = "UPDATE leaders SET since = now() - interval '31 days' WHERE identity <> 'third'";
        sqlx::query(old).execute(&mut session).await.unwrap();
        assert_eq!(system.registry("fourth").await.lead(None).await.unwrap(), ["third"]);
    }
}

#[tokio::test]
async fn watermark_outlives_the_process() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        assert_eq!(registry.watermarks().await.unwrap(), HashMap::new());
        for name in ["default", "second"] {
            let found = ServerIdentity { identifier: name.to_owned(), timeline: Some(1) };
            registry.bind_server(name, &found, false).await.unwrap();
        }
        assert_eq!(registry.watermarks().await.unwrap(), HashMap::new());
        let marks = |of: &[(&str, i64)]| of.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect();
        // A server without a system identifier is not recorded.
        registry.record_watermarks(&marks(&[("default", 7), ("unknown", 8)])).await.unwrap();
        registry.record_watermarks(&marks(&[("default", 9), ("second", 5)])).await.unwrap();
        let later = system.registry("two").await;
        assert_eq!(later.watermarks().await.unwrap(), marks(&[("default", 9), ("second", 5)]));
        later.require_verification("second", 3).await.unwrap();
        assert_eq!(later.watermarks().await.unwrap(), marks(&[("default", 9), ("second", 3)]));
        // Transaction ids of a server that replaced it are not comparable.
        let other = ServerIdentity { identifier: "other".to_owned(), timeline: Some(1) };
        later.bind_server("default", &other, true).await.unwrap();
        assert_eq!(later.watermarks().await.unwrap(), marks(&[("second", 3)]));
    }
}
