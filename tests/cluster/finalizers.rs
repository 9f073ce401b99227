//! The finalizer in the manifest of another client: an export that was created again, or a restored backup.

use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams},
    runtime::conditions::is_deleted,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tenantry::api::{
    FINALIZER, database_server::DatabaseServer, plan::TenantPlan, tenant::Tenant, tenant_hold::TenantHold,
};
use tenantry_test_support::{Fleet, objects};

/// Applies an object with our finalizer as another manager, by force.
async fn apply<K>(api: &Api<K>, name: &str, mut object: Value)
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    object["metadata"]["finalizers"] = json!([FINALIZER]);
    api.patch(name, &PatchParams::apply("velero").force(), &Patch::Apply(object)).await.unwrap();
}

/// Deletes it, and waits until it does not exist.
async fn delete<K>(fleet: &Fleet, api: &Api<K>, name: &str)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let uid = api.get(name).await.unwrap().meta().uid.clone().unwrap();
    api.delete(name, &DeleteParams::default()).await.unwrap();
    fleet.until(format!("{} {name} is deleted", K::kind(&()))).object(api, name, is_deleted(&uid)).await;
}

#[tokio::test]
async fn finalizer_of_another_manifest_is_released() {
    let fleet = Fleet::new("finalizers").await;
    let (plans, servers) =
        (Api::<TenantPlan>::all(fleet.client.clone()), Api::<DatabaseServer>::all(fleet.client.clone()));
    apply(&plans, "fin-plan", objects::plan("fin-plan", json!({}))).await;
    apply(&plans, "fin-unused", objects::plan("fin-unused", json!({}))).await;
    apply(&servers, "fin-server", objects::database_server("fin-server", 1, json!({}))).await;
    apply::<Tenant>(&fleet.tenants, "fin-tenant", objects::tenant("fin-tenant", json!({"plan": "fin-plan"})))
        .await;
    apply::<TenantHold>(&fleet.holds, "fin-hold", objects::hold("fin-hold", "fin-tenant", json!({}))).await;
    fleet.ready("fin-tenant").await;
    fleet.hold_reason("fin-hold", "Verified").await;
    delete(&fleet, &fleet.holds, "fin-hold").await;
    delete(&fleet, &fleet.tenants, "fin-tenant").await;
    delete(&fleet, &plans, "fin-plan").await;
    delete(&fleet, &plans, "fin-unused").await;
    delete(&fleet, &servers, "fin-server").await;
}
