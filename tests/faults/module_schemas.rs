//! Built-in modules in other schemas, and an operator that is started with others than tenants have them in.

use kube::Api;
use serde_json::json;
use sqlx::Executor;
use tenantry::api::{conditions::READY, tenant_module::TenantModule};
use tenantry_test_support::{Options, World};

use crate::modules::{apply, files, until};

const FLAG: &str = "--module-schemas=core=s_core,identity=s_identity";

/// The schema of a module, as its status has it.
async fn schema(world: &World, module: &str) -> Option<String> {
    let modules = Api::<TenantModule>::all(world.fleet.client.clone());
    modules.get(module).await.unwrap().status.unwrap_or_default().schema
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn changed_schema_of_a_built_in_module_touches_no_tenant() {
    let options = Options { own_plane: true, arguments: vec![FLAG.to_owned()], ..Options::default() };
    let world = World::with("module-schemas", options).await;
    let first = world.installation.operator();
    for module in ["core", "identity", "projects"] {
        apply(&world, module, json!({"source": {"builtIn": {}}})).await;
        until(&world, module, "Accepted").await;
    }
    assert_eq!(schema(&world, "identity").await.as_deref(), Some("s_identity"));
    assert_eq!(schema(&world, "projects").await.as_deref(), Some("public"));
    files(
        &world,
        "schemas-wiki",
        json!({"0001_a.sql": "CREATE TABLE pages (author uuid REFERENCES s_identity.users)"}),
    )
    .await;
    let source = json!({"configMaps": [{"name": "schemas-wiki"}]});
    apply(&world, "schemas-wiki", json!({"source": source, "dependsOn": ["identity"]})).await;
    until(&world, "schemas-wiki", "Accepted").await;
    let admins = json!([{"email": "ada@schemas.example"}]);
    world.apply("schemas-before", json!({"settings": {"theme": "dark"}, "admins": admins})).await;
    world.fleet.ready("schemas-before").await;
    let secret = async || {
        let mut data = world.fleet.secrets.get("schemas-before-db").await.unwrap().data.unwrap();
        data.retain(|key, _| key.contains("schema"));
        data.into_iter().map(|(key, value)| (key, String::from_utf8(value.0).unwrap())).collect::<Vec<_>>()
    };
    let published = secret().await;
    let of = |key: &str| published.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str());
    assert_eq!(of("module-schema.identity"), Some("s_identity"));
    assert_eq!((of("module-schema.projects"), of("schema.projects")), (None, Some("1")));
    let mut session = world.fleet.login("schemas-before").await.unwrap();
    let seeded = "SELECT count(*) = 1 FROM s_identity.users, s_core.settings WHERE value = '\"dark\"'";
    assert!(sqlx::query_scalar::<_, bool>(seeded).fetch_one(&mut session).await.unwrap());
    session.execute("INSERT INTO projects (name) VALUES ('one')").await.unwrap();

    // identity would be in `public` now, and the text of projects another one.
    let changed = world.installation.replica(|options| {
        options.arguments.retain(|argument| argument != FLAG);
        options.arguments.push("--module-schemas=core=s_core".to_owned());
    });
    let changed = changed.unwrap();
    first.stop().await.unwrap();
    changed.start().await.unwrap();
    until(&world, "identity", "SchemaChanged").await;
    until(&world, "projects", "DependencyNotReady").await;
    until(&world, "schemas-wiki", "DependencyNotReady").await;
    until(&world, "core", "Accepted").await;
    assert_eq!(schema(&world, "identity").await.as_deref(), Some("s_identity"));
    world.apply("schemas-after", json!({})).await;
    world.fleet.reason("schemas-after", READY, "ModuleNotReady").await;
    // All that does not need the module goes on.
    let changes = json!({"settings": {"theme": "light"}, "admins": admins});
    world.apply("schemas-before", changes).await;
    world.fleet.ready("schemas-before").await;
    assert_eq!(secret().await, published);
    let mut superuser = world.superuser("tenant_schemas_before").await;
    let unchanged = "SELECT to_regclass('public.users') IS NULL AND value = '\"light\"' FROM s_core.settings";
    assert!(sqlx::query_scalar::<_, bool>(unchanged).fetch_one(&mut superuser).await.unwrap());

    changed.stop().await.unwrap();
    first.start().await.unwrap();
    until(&world, "identity", "Accepted").await;
    until(&world, "projects", "Accepted").await;
    until(&world, "schemas-wiki", "Accepted").await;
    world.fleet.ready("schemas-after").await;
}
