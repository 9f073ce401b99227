//! The recorded identity of servers, and former leaders.

use crate::system::{System, created, tenant};

#[tokio::test]
async fn server_with_tenants_is_not_replaced_unless_accepted() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let server = tenant("acme").server;
        let prove = |identifier: &'static str, accepted| registry.bind_server(&server, identifier, accepted);
        assert_eq!(prove("1", false).await.unwrap(), None);
        // Without tenants, any server is accepted.
        assert_eq!(prove("2", false).await.unwrap(), None);
        created(&registry, &tenant("acme")).await;
        assert_eq!(prove("2", false).await.unwrap(), None);
        assert_eq!(prove("1", false).await.unwrap().as_deref(), Some("2"));
        assert_eq!(prove("2", false).await.unwrap(), None, "it is back");
        assert_eq!(prove("3", true).await.unwrap(), None, "the user accepted it");
        assert_eq!(prove("2", false).await.unwrap().as_deref(), Some("3"));
        assert_eq!(registry.bind_server("elsewhere", "1", false).await.unwrap(), None);
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
