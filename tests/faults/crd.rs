//! The Tenant CRD is deleted while Tenants exist.

use futures::future::join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, api::DeleteParams, runtime::wait::await_condition};
use serde_json::json;
use sqlx::Executor;
use tenantry_test_support::{Options, PATIENCE, World, login};

#[tokio::test]
async fn tenants_are_reinstated_after_crd_was_deleted() {
    let world = World::with("crd", Options { own_plane: true, ..Options::default() }).await;
    let names = ["one", "two", "three"];
    join_all(names.map(|name| world.apply(name, json!({})))).await;
    let before = join_all(names.map(async |name| {
        let id = world.fleet.ready(name).await.status.unwrap().tenant_id;
        let mut session = world.fleet.login(name).await.unwrap();
        session.execute("INSERT INTO users (email) VALUES ('kept@acme.example')").await.unwrap();
        (id, world.fleet.secret(&format!("{name}-db"), "uri").await)
    }))
    .await;
    let process = || world.installation.operator().service().record().unwrap().pid;
    let running = process();

    let definitions = Api::<CustomResourceDefinition>::all(world.fleet.client.clone());
    definitions.delete("tenants.tenantry.dev", &DeleteParams::default()).await.unwrap();
    let gone = |definition: Option<&CustomResourceDefinition>| definition.is_none();
    let waited = await_condition(definitions, "tenants.tenantry.dev", gone);
    tokio::time::timeout(PATIENCE, waited).await.expect("the CRD is deleted").unwrap();
    let cut =
        "SELECT status = 'deprovisioning' AND access = 'Blocked' AND purge_after > now() + interval '29 days'
               FROM tenants WHERE slug = $1";
    for (name, (_, uri)) in names.iter().zip(&before) {
        assert!(world.holds("tenantry_system", cut, name).await, "{name}");
        assert!(world.database_exists(&format!("tenant_{name}")).await);
        assert!(login(uri).await.is_err());
    }

    world.install_crds().await;
    join_all(names.map(|name| world.apply(name, json!({})))).await;
    for (name, (id, uri)) in names.iter().zip(&before) {
        assert_eq!(world.fleet.ready(name).await.status.unwrap().tenant_id, *id);
        assert_eq!(world.fleet.secret(&format!("{name}-db"), "uri").await, *uri);
        let mut session = login(uri).await.unwrap();
        let kept: i64 =
            sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut session).await.unwrap();
        assert_eq!(kept, 1);
    }
    assert_eq!(process(), running, "the operator was not restarted");
}
