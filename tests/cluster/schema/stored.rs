//! Objects stored under laxer rules can still be deleted, and their valid fields changed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::{conditions, wait::await_condition};
use serde_json::{Value, json};
use tenantry::api::{FINALIZER, tenant::Tenant};

use super::{definition_in, tenant};
use tenantry_test_support::shared_operator;

const GROUP: &str = "stored.example";

/// A former CRD without rules.
fn lax() -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(definition_in::<Tenant>(GROUP)).unwrap();
    crd["spec"]["versions"][0]["selectableFields"] = Value::Null;
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
    });
    serde_json::from_value(crd).unwrap()
}

#[tokio::test]
async fn stored_tenant_that_became_invalid_can_be_deleted() {
    let client = shared_operator::client().await;
    let namespace = shared_operator::namespace(&client, "schema-stored").await;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1alpha1", "Tenant"));
    let tenants: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);

    super::install(&client, &lax()).await.unwrap();
    let wrongs = [
        json!({"slug": "WRONG"}),
        json!({"slug": "postgres", "displayName": "", "plan": "No Plan"}),
        json!({"state": "Suspended"}),
        json!({"state": "Nonsense", "isolation": "Schema", "bootstrap": {"a": 1}}),
        json!({"offboarding": {"gracePeriodSeconds": -1, "export": true}}),
        json!({"admins": [{"email": "A"}, {"email": "A"}], "limits": {"A": -1}}),
        json!({"gates": [{"name": "A", "done": true}], "limits": {"connections": 0, "users": "custom"}}),
        json!({"connectionSecretName": "acme-admin", "displayName": "x".repeat(300)}),
    ];
    let mut names = vec![];
    for (n, wrong) in wrongs.iter().enumerate() {
        let name = format!("wrong-{n}");
        let mut spec = tenant();
        // Objects in the free-form part: the API server then validates the whole spec at every change.
        spec["settings"] = json!({"deep": {"er": {"still": 1}}});
        spec.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        let object = json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "Tenant",
            "metadata": {"name": name, "finalizers": [FINALIZER]}, "spec": spec,
        });
        let object = serde_json::from_value(object).unwrap();
        tenants.create(&PostParams::default(), &object).await.unwrap();
        names.push(name);
    }
    super::install(&client, &definition_in::<Tenant>(GROUP)).await.unwrap();
    // The new rules are in force when they refuse a new object.
    let probe = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "Tenant", "metadata": {"name": "probe"}, "spec": {"slug": "X"},
    });
    let probe: DynamicObject = serde_json::from_value(probe).unwrap();
    let dry = PostParams { dry_run: true, ..Default::default() };
    while tenants.create(&dry, &probe).await.is_ok() {
        tokio::task::yield_now().await;
    }

    for name in &names {
        // What the operator does to such an object: status, deletion, release.
        let status = json!({"status": {"observedGeneration": 1, "state": "Deprovisioned"}});
        let params = PatchParams::default();
        tenants.patch_status(name, &params, &Patch::Merge(&status)).await.unwrap();
        let paused = json!({"spec": {"paused": true}});
        tenants.patch(name, &params, &Patch::Merge(&paused)).await.unwrap();
        let deleted = tenants.delete(name, &DeleteParams::default()).await.unwrap();
        let uid = deleted.left().unwrap().uid().unwrap();
        let release = json!({"metadata": {"finalizers": null}});
        tenants.patch(name, &params, &Patch::Merge(&release)).await.unwrap();
        await_condition(tenants.clone(), name, conditions::is_deleted(&uid)).await.unwrap();
    }
}
