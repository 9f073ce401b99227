//! Objects that the API server accepts and the operator cannot decode.

use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::{Patch, PatchParams, Request},
};
use serde_json::{Value, json};
use tenantry_test_support::{Fleet, objects, shared_operator::registry_status};

/// Settings nested deeper than a JSON parser follows. No schema can refuse them.
fn nested() -> Value {
    json!({"settings": {"deep": (0..200).fold(json!(1), |inner, _| json!({"a": inner}))}})
}

/// Applies a Tenant without decoding the answer.
async fn apply(fleet: &Fleet, name: &str, more: Value) {
    let patch = Patch::Apply(objects::tenant(name, more));
    let request = Request::new(fleet.tenants.resource_url());
    let request = request.patch(name, &PatchParams::apply("tests").force(), &patch).unwrap();
    fleet.client.request_text(request).await.unwrap();
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
    apply(&fleet, "undec-known", nested()).await;
    apply(&fleet, "undec-new", nested()).await;
    for name in ["undec-known", "undec-new"] {
        let note = reported(&fleet, name).await;
        assert!(note.contains("recursion limit"), "{note}");
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
