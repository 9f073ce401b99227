//! Objects that the API server accepts and the operator cannot decode.

use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tenantry::api::tenant::Tenant;
use tenantry_test_support::{Fleet, objects, shared_operator::registry_status};

/// A usual way to write "for ever", beyond what this operator can represent.
const TOO_LATE: &str = "9999-12-31T23:59:59Z";

/// Applies a Tenant without decoding the answer.
async fn apply(fleet: &Fleet, name: &str, more: Value) {
    let kind = ApiResource::erase::<Tenant>(&());
    let namespace = fleet.tenants.namespace().unwrap();
    let tenants = Api::<DynamicObject>::namespaced_with(fleet.client.clone(), namespace, &kind);
    tenants
        .patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(objects::tenant(name, more)))
        .await
        .unwrap();
}

/// Waits for the Event that reports a Tenant, and returns its note.
async fn reported(fleet: &Fleet, name: &str) -> String {
    let events = Api::<Event>::namespaced(fleet.client.clone(), fleet.tenants.namespace().unwrap());
    let what = format!("{name} is reported");
    fleet
        .until(what)
        .observe(async || {
            let events = events.list(&Default::default()).await.unwrap().items;
            let is_it = |event: &&Event| {
                event.reason.as_deref() == Some("InvalidObject")
                    && event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(name)
            };
            events.iter().find(is_it).and_then(|event| event.note.clone()).ok_or("no Event")
        })
        .await
}

#[tokio::test]
async fn undecodable_tenant_does_not_hide_others() {
    let fleet = Fleet::new("undecodable").await;
    fleet.apply("undec-known", json!({})).await;
    fleet.ready("undec-known").await;
    let forever = json!({"validity": {"notAfter": TOO_LATE}});
    apply(&fleet, "undec-known", forever.clone()).await;
    apply(&fleet, "undec-new", forever).await;
    for name in ["undec-known", "undec-new"] {
        let note = reported(&fleet, name).await;
        assert!(note.contains("notAfter"), "{note}");
    }
    fleet.apply("undec-other", json!({})).await;
    fleet.ready("undec-other").await;
    // Its last valid version stays in force.
    assert_eq!(registry_status("undec-known").await.as_deref(), Some("active"));
    fleet.login("undec-known").await.unwrap();
    let log = fleet.operator_log();
    assert!(!log.contains("displayName"), "the log contains no spec:\n{log}");

    let valid = json!({"validity": {"notAfter": "2099-12-31T23:59:59Z"}});
    for name in ["undec-known", "undec-new"] {
        apply(&fleet, name, valid.clone()).await;
        fleet.ready(name).await;
    }
}
