//! Modules while the operator is stopped or killed, and modules in a directory.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tenantry::api::{
    API_VERSION,
    conditions::{READY, find_condition},
    tenant_module::TenantModule,
};
use tenantry_test_support::World;

pub async fn files(world: &World, name: &str, files: Value) {
    let maps = Api::<ConfigMap>::namespaced(world.fleet.client.clone(), &format!("{}-system", world.name));
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": files});
    maps.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(map)).await.unwrap();
}

pub async fn apply(world: &World, name: &str, spec: Value) {
    let modules = Api::<TenantModule>::all(world.fleet.client.clone());
    let module = json!({"apiVersion": API_VERSION, "kind": "TenantModule",
        "metadata": {"name": name, "labels": {"tenantry.dev/test": world.name}}, "spec": spec});
    modules.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(module)).await.unwrap();
}

/// Waits until `Ready` of a module has this reason.
pub async fn until(world: &World, name: &str, reason: &str) {
    let modules = Api::<TenantModule>::all(world.fleet.client.clone());
    let wait = world.fleet.until(format!("module {name} is {reason}"));
    wait.observe(async || {
        let status = modules.get(name).await.unwrap().status.unwrap_or_default();
        match find_condition(&status.conditions, READY) {
            Some(ready) if ready.reason == reason => Ok(()),
            other => Err(other.cloned()),
        }
    })
    .await;
}

async fn version(world: &World, tenant: &str, module: &str) -> Option<i64> {
    let status = world.fleet.tenants.get(tenant).await.unwrap().status.unwrap_or_default();
    status.modules.iter().find(|found| found.name == module).map(|module| module.version)
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn accepted_content_outlives_the_operator() {
    let world = World::new("modules-restart").await;
    let operator = world.installation.operator();
    let first = "CREATE TABLE public.restarted ()";
    files(&world, "restarted", json!({"0001_a.sql": first})).await;
    apply(&world, "restarted", json!({"source": {"configMaps": [{"name": "restarted"}]}})).await;
    world.apply("restarted", json!({"modules": [{"name": "restarted"}]})).await;
    world.fleet.ready("restarted").await;
    operator.kill().await.unwrap();
    files(&world, "restarted", json!({"0001_a.sql": "CREATE TABLE public.restarted (id integer)"})).await;
    world.delete_lease().await;
    operator.start().await.unwrap();
    until(&world, "restarted", "ChecksumChanged").await;
    assert_eq!(version(&world, "restarted", "restarted").await, Some(1));
    operator.stop().await.unwrap();
    files(
        &world,
        "restarted",
        json!({"0001_a.sql": first, "0002_b.sql": "CREATE TABLE public.restarted_b ()"}),
    )
    .await;
    operator.start().await.unwrap();
    let second = async || version(&world, "restarted", "restarted").await == Some(2);
    world.until("the new file is applied", second).await;
    world.fleet.ready("restarted").await;

    // A bad file while the operator is away: a new tenant gets what was accepted.
    operator.kill().await.unwrap();
    let second = "CREATE TABLE public.restarted_b ()";
    let bad = json!({"0001_a.sql": first, "0002_b.sql": second, "0003_c.sql": "SELECT 1/0"});
    files(&world, "restarted", bad).await;
    world.delete_lease().await;
    operator.start().await.unwrap();
    until(&world, "restarted", "RehearsalFailed").await;
    world.apply("restarted-2", json!({"modules": [{"name": "restarted"}]})).await;
    world.fleet.ready("restarted-2").await;
    assert_eq!(version(&world, "restarted-2", "restarted").await, Some(2));

    // A directory, as a volume has it.
    let directory = std::env::temp_dir().join(format!("tenantry-modules-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("..2026_11_30")).unwrap();
    std::fs::write(directory.join("0001_d.sql"), "CREATE TABLE public.from_directory ()").unwrap();
    apply(&world, "from-directory", json!({"source": {"directory": directory}})).await;
    until(&world, "from-directory", "Accepted").await;
    apply(&world, "from-nowhere", json!({"source": {"directory": directory.join("nowhere")}})).await;
    until(&world, "from-nowhere", "SourceNotFound").await;
    std::fs::remove_dir_all(&directory).unwrap();
}
