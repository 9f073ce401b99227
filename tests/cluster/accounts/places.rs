//! Where accounts are made, and when they go.

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::conditions::is_deleted,
};
use serde_json::{Value, json};
use tenantry::api::{
    conditions::{ACCOUNT_SHOWN, REGISTERED, find_condition},
    tenant_account::TenantAccount,
    tenant_status::TenantState,
};
use tenantry_test_support::shared_operator::namespace;

use super::Stage;

#[tokio::test]
async fn namespace_needs_the_label_and_the_tenant_does_not() {
    let stage = Stage::closed("acc-label").await;
    stage.apply(json!({}), json!({})).await;
    let tenant = stage.fleet.reason("acc-label", ACCOUNT_SHOWN, "AccountNamespaceClosed").await;
    let message = find_condition(&tenant.status.unwrap().conditions, ACCOUNT_SHOWN).unwrap().message.clone();
    assert!(
        message.contains("kubectl label namespace acc-label-home tenantry.dev/accounts=true"),
        "{message}"
    );
    stage.fleet.ready("acc-label").await;
    assert!(stage.accounts.get_opt("acc-label").await.unwrap().is_none());
    stage.label(&stage.home, json!("true")).await;
    stage.current().await;
    stage.fleet.reason("acc-label", ACCOUNT_SHOWN, "AccountCurrent").await;
    stage.edit(json!({"displayName": "Acme Inc"})).await;
    stage.counts("Acme Inc", &json!(null)).await;
    // Without the label it goes; what was changed there still counts, and is there again with it.
    stage.label(&stage.home, json!(null)).await;
    stage.is_gone().await;
    stage.fleet.reason("acc-label", ACCOUNT_SHOWN, "AccountNamespaceClosed").await;
    stage.counts("Acme Inc", &json!(null)).await;
    stage.label(&stage.home, json!("true")).await;
    assert_eq!(stage.current().await.spec.display_name.as_deref(), Some("Acme Inc"));
}

#[tokio::test]
async fn account_follows_its_namespace() {
    let stage = Stage::new("acc-move").await;
    stage.apply(json!({}), json!({})).await;
    stage.fleet.ready("acc-move").await;
    stage.current().await;
    stage.edit(json!({"displayName": "Acme Inc"})).await;
    stage.counts("Acme Inc", &json!(null)).await;
    let other = namespace(&stage.fleet.client, "acc-move-other").await;
    stage.label(&other, json!("true")).await;
    stage.apply(json!({}), json!({"accountNamespace": other})).await;
    stage.is_gone().await;
    let moved = Stage { accounts: Api::namespaced(stage.fleet.client.clone(), &other), ..stage };
    assert_eq!(moved.current().await.spec.display_name.as_deref(), Some("Acme Inc"));
    // A namespace that is deleted takes it along, and no request is repeated in it.
    let namespaces = Api::<Namespace>::all(moved.fleet.client.clone());
    let uid = namespaces.get(&other).await.unwrap().metadata.uid.unwrap();
    namespaces.delete(&other, &DeleteParams::default()).await.unwrap();
    moved.fleet.until("the namespace is deleted").object(&namespaces, &other, is_deleted(&uid)).await;
    moved.fleet.reason("acc-move", ACCOUNT_SHOWN, "AccountNamespaceClosed").await;
    moved.fleet.ready("acc-move").await;
    moved.counts("Acme Inc", &json!(null)).await;
}

#[tokio::test]
async fn account_follows_the_slug_and_no_edit_is_lost() {
    let stage = Stage::new("acc-slug").await;
    stage.apply(json!({}), json!({})).await;
    stage.fleet.apply("acc-slug-two", json!({"plan": "acc-slug"})).await;
    stage.fleet.ready("acc-slug").await;
    stage.fleet.ready("acc-slug-two").await;
    stage.current().await;
    // A slug that is refused: the account stays where it is, and what is edited there counts.
    stage.apply(json!({}), json!({"slug": "acc-slug-two", "stateReason": "brand"})).await;
    stage.fleet.reason("acc-slug", REGISTERED, "SlugTaken").await;
    stage.edit(json!({"displayName": "Acme Inc"})).await;
    stage.counts("Acme Inc", &json!(null)).await;
    let renamed = json!({"slug": "acc-slug-new", "stateReason": "another brand"});
    stage.apply(json!({}), renamed.clone()).await;
    stage.is_gone().await;
    stage.fleet.ready("acc-slug").await;
    let there = Stage { name: "acc-slug-new", ..stage };
    assert_eq!(there.current().await.spec.display_name.as_deref(), Some("Acme Inc"));
    there.edit(json!({"displayName": "Acme Ltd"})).await;
    there.counts("Acme Ltd", &json!(null)).await;
    there.current().await;

    // What is edited while nothing is reconciled is taken in before the account goes elsewhere.
    let of_tenant = Stage { name: "acc-slug", ..there };
    let with = |field: &str, value: Value| {
        let mut changed = renamed.clone();
        changed[field] = value;
        changed
    };
    of_tenant.apply(json!({}), with("paused", json!(true))).await;
    of_tenant.fleet.ready("acc-slug").await;
    let there = Stage { name: "acc-slug-new", ..of_tenant };
    there.edit(json!({"displayName": "Acme & Co"})).await;
    let other = namespace(&there.fleet.client, "acc-slug-other").await;
    there.label(&other, json!("true")).await;
    let moving = with("accountNamespace", json!(other));
    let of_tenant = Stage { name: "acc-slug", ..there };
    of_tenant.apply(json!({}), moving).await;
    let there = Stage { name: "acc-slug-new", ..of_tenant };
    there.is_gone().await;
    there.counts("Acme & Co", &json!(null)).await;
    let moved = Stage { accounts: Api::namespaced(there.fleet.client.clone(), &other), ..there };
    assert_eq!(moved.current().await.spec.display_name.as_deref(), Some("Acme & Co"));
    let names: Vec<Value> = moved
        .log()
        .await
        .into_iter()
        .filter(|row| row.action == "AccountUpdated")
        .map(|row| row.details["fields"]["displayName"]["to"].clone())
        .collect();
    assert_eq!(names, ["Acme Inc", "Acme Ltd", "Acme & Co"]);
}

#[tokio::test]
async fn object_of_another_owner_is_left_alone() {
    let stage = Stage::new("acc-foreign").await;
    let foreign = TenantAccount::new(
        "acc-foreign",
        serde_json::from_value(json!({"displayName": "Another one's"})).unwrap(),
    );
    let foreign = stage.accounts.create(&PostParams::default(), &foreign).await.unwrap();
    stage.apply(json!({}), json!({})).await;
    let tenant = stage.fleet.reason("acc-foreign", ACCOUNT_SHOWN, "AccountConflict").await;
    assert_eq!(tenant.spec.display_name, "acc-foreign");
    stage.fleet.ready("acc-foreign").await;
    stage.counts("acc-foreign", &json!(null)).await;
    let now = stage.accounts.get("acc-foreign").await.unwrap();
    assert_eq!(now.metadata.resource_version, foreign.metadata.resource_version);
    // A deletion of the tenant does not touch it either.
    stage.fleet.delete("acc-foreign").await;
    let now = stage.accounts.get("acc-foreign").await.unwrap();
    assert_eq!(now.metadata.resource_version, foreign.metadata.resource_version);
    stage.fleet.apply("acc-foreign", json!({"plan": stage.name, "accountNamespace": stage.home})).await;
    stage.fleet.reason("acc-foreign", ACCOUNT_SHOWN, "AccountConflict").await;
    stage.accounts.delete("acc-foreign", &DeleteParams::default()).await.unwrap();
    stage.fleet.reason("acc-foreign", ACCOUNT_SHOWN, "AccountCurrent").await;
    stage.current().await;
}

#[tokio::test]
async fn account_stays_for_the_grace_period_and_goes_with_the_tenant() {
    let stage = Stage::new("acc-gone").await;
    let grace = json!({"offboarding": {"gracePeriodSeconds": 3600}, "settings": {"theme": "light"}});
    stage.apply(json!({"settings": ["theme"]}), grace.clone()).await;
    stage.fleet.ready("acc-gone").await;
    stage.current().await;
    stage.edit(json!({"displayName": "Acme Inc", "settings": {"theme": "dark"}})).await;
    stage.counts("Acme Inc", &json!("dark")).await;
    stage.fleet.delete("acc-gone").await;
    let leaving = |account: &TenantAccount| {
        let status = account.status.clone().unwrap_or_default();
        status.state == Some(TenantState::Deprovisioning) && status.purge_after.is_some()
    };
    stage.shown("when the data is deleted", leaving).await;
    // The same tenant again, with what its customer changed, from its first reconcile on.
    stage.apply(json!({"settings": ["theme"]}), grace).await;
    stage.fleet.ready("acc-gone").await;
    stage.shown("that it is in use", |account| !leaving(account)).await;
    stage.counts("Acme Inc", &json!("dark")).await;
    // Without a grace period.
    stage.apply(json!({"settings": ["theme"]}), json!({})).await;
    stage.fleet.ready("acc-gone").await;
    stage.fleet.delete("acc-gone").await;
    stage.is_gone().await;
    // A new tenant of that slug has nothing of the former one.
    stage.apply(json!({"settings": ["theme"]}), json!({})).await;
    stage.fleet.ready("acc-gone").await;
    assert_eq!(json!(stage.current().await.spec), json!({}));

    // The label goes while only a tombstone is left.
    let merge = Patch::Merge(json!({"spec": {"offboarding": {"gracePeriodSeconds": 3600}}}));
    stage.fleet.tenants.patch("acc-gone", &PatchParams::default(), &merge).await.unwrap();
    stage.fleet.ready("acc-gone").await;
    stage.fleet.delete("acc-gone").await;
    stage.shown("when the data is deleted", leaving).await;
    stage.label(&stage.home, json!(null)).await;
    stage.is_gone().await;
}
