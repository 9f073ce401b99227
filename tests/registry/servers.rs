//! Which server a name stands for.

use crate::system::{System, created, tenant};

#[tokio::test]
async fn a_name_stands_for_one_server_while_tenants_have_databases_there() {
    for system in System::both().await {
        let registry = system.registry("one").await;
        let server = tenant("acme").server;
        let prove = |identifier: &'static str, accepted| registry.prove_server(&server, identifier, accepted);
        assert_eq!(prove("1", false).await.unwrap(), None);
        // Nobody is there yet: whatever it leads to is right.
        assert_eq!(prove("2", false).await.unwrap(), None);
        created(&registry, &tenant("acme")).await;
        assert_eq!(prove("2", false).await.unwrap(), None);
        assert_eq!(prove("1", false).await.unwrap().as_deref(), Some("2"));
        assert_eq!(prove("2", false).await.unwrap(), None, "it is back");
        assert_eq!(prove("3", true).await.unwrap(), None, "a person says so");
        assert_eq!(prove("2", false).await.unwrap().as_deref(), Some("3"));
        assert_eq!(registry.prove_server("elsewhere", "1", false).await.unwrap(), None);
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
async fn a_leader_knows_all_who_led_before_it() {
    for system in System::both().await {
        let first = system.registry("first").await;
        assert!(first.lead(None).await.unwrap().is_empty());
        assert!(first.lead(None).await.unwrap().is_empty());
        assert_eq!(system.registry("second").await.lead(Some("first")).await.unwrap(), ["first"]);
        // One from before there was a record; and whoever gave the Lease back.
        let third = system.registry("third").await.lead(Some("ancient")).await.unwrap();
        assert_eq!(third, ["ancient", "first", "second"]);
        let mut session = system.session().await;
        let old = "UPDATE leaders SET since = now() - interval '31 days' WHERE identity <> 'third'";
        sqlx::query(old).execute(&mut session).await.unwrap();
        assert_eq!(system.registry("fourth").await.lead(None).await.unwrap(), ["third"]);
    }
}
