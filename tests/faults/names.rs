//! Opaque names of databases: for new tenants, beside those that exist.

use serde_json::json;
use tenantry_test_support::World;

#[tokio::test]
async fn opaque_names_apply_to_new_tenants() {
    let world = World::new("names").await;
    world.apply("before", json!({})).await;
    let before = world.fleet.ready("before").await.status.unwrap();
    assert_eq!(before.database.as_deref(), Some("tenant_before"));
    let patch = json!({"spec": {"databaseNames": "Opaque"}}).to_string();
    world
        .kubectl()
        .run(&["patch", "databaseserver", world.name, "--type=merge", "-p", &patch])
        .await
        .unwrap();

    // The operator may still know the former spec when it registers a tenant.
    let mut opaque = None;
    for n in 0..50 {
        let name = format!("customer-{n}");
        world.apply(&name, json!({"offboarding": {"gracePeriodSeconds": 0}})).await;
        let status = world.fleet.ready(&name).await.status.unwrap();
        if !status.database.as_deref().unwrap().contains("customer") {
            opaque = Some((name, status));
            break;
        }
    }
    let (name, status) = opaque.expect("no tenant has an opaque name");
    let id = status.tenant_id.unwrap().replace('-', "");
    assert_eq!(status.database, Some(format!("t_{id}")));
    let uri = world.fleet.secret(&format!("{name}-db"), "uri").await;
    assert!(!uri.contains("customer"), "{uri}");
    let mut session = world.fleet.login(&name).await.unwrap();
    let named = "SELECT count(*) FROM (SELECT datname FROM pg_database UNION SELECT rolname FROM pg_roles) n
                 WHERE datname LIKE '%' || replace($1, '-', '_') || '%'";
    let named: i64 = sqlx::query_scalar(named).bind(&name).fetch_one(&mut session).await.unwrap();
    assert_eq!(named, 0, "another customer reads the name");
    // Existing tenants keep theirs, and both can be used and deleted.
    world.all_usable(&["before".to_owned()]).await;
    let tenant = world.fleet.tenants.get("before").await.unwrap();
    assert_eq!(tenant.status.unwrap().database.as_deref(), Some("tenant_before"));
    world.fleet.delete(&name).await;
    assert!(!world.database_exists(&format!("t_{id}")).await);
    assert!(!world.role_exists(&format!("t_{id}_app")).await);
}
