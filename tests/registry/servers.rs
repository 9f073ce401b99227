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
