//! Secrets that lost their labels, were deleted or damaged, and what others write into them.

use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tenantry::api::{LABEL_TENANT_ID, conditions::DEPROVISIONED};
use tenantry_test_support::{Fleet, shared_operator::ask};

/// What the registry has of a tenant's seed, with the admins' credentials.
const RECORDED: &str = "SELECT seed_digest FROM tenants WHERE slug = $1";

async fn change(fleet: &Fleet, name: &str, patch: Value) {
    fleet.secrets.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Waits until a Secret exists and this holds.
async fn wait(fleet: &Fleet, name: &str, what: &str, holds: impl Fn(&Secret) -> bool) -> Secret {
    fleet
        .until(format!("Secret {name} {what}"))
        .observe(async || {
            let found = fleet.secrets.get_opt(name).await.unwrap();
            found.filter(&holds).ok_or("not yet")
        })
        .await
}

/// Waits for an Event with this reason on a Tenant.
pub async fn event(fleet: &Fleet, name: &str, reason: &str) -> String {
    event_in(fleet.tenants.namespace().unwrap(), fleet, name, reason).await
}

/// Waits for an Event in a namespace with this reason on an object; those of the cluster have theirs in `default`.
pub async fn event_in(namespace: &str, fleet: &Fleet, name: &str, reason: &str) -> String {
    let events = Api::<Event>::namespaced(fleet.client.clone(), namespace);
    let is_it = |event: &Event| {
        let about = event.regarding.as_ref().and_then(|about| about.name.as_deref());
        event.reason.as_deref() == Some(reason) && about == Some(name)
    };
    fleet
        .until(format!("{reason} on {name}"))
        .observe(async || {
            let all = events.list(&Default::default()).await.unwrap().items;
            all.into_iter().find(is_it).and_then(|event| event.note).ok_or("no Event")
        })
        .await
}

#[tokio::test]
async fn connection_secret_keeps_foreign_keys_and_gets_its_labels_back() {
    let fleet = Fleet::new("secrets-labels").await;
    fleet.apply("sec-label", json!({})).await;
    let id = fleet.ready("sec-label").await.status.unwrap().tenant_id.unwrap();
    let password = fleet.secret("sec-label-db", "password").await;
    let theirs =
        json!({"metadata": {"labels": {"theirs": "yes", LABEL_TENANT_ID: null}}, "data": {"theirs": "eA=="}});
    change(&fleet, "sec-label-db", theirs).await;
    let healed = wait(&fleet, "sec-label-db", "has its label", |secret| {
        secret.labels().get(LABEL_TENANT_ID) == Some(&id)
    })
    .await;
    assert_eq!(healed.labels()["theirs"], "yes");
    // A changed key of the operator's own is restored; the foreign one stays.
    change(&fleet, "sec-label-db", json!({"data": {"host": "eA==", "limit.seats": "eA=="}})).await;
    let is_restored = |secret: &Secret| {
        let data = secret.data.as_ref().unwrap();
        data["host"].0 != b"x" && !data.contains_key("limit.seats")
    };
    let restored = wait(&fleet, "sec-label-db", "is restored", is_restored).await;
    assert!(restored.data.unwrap().contains_key("theirs"));
    assert_eq!(fleet.secret("sec-label-db", "password").await, password);
    fleet.ready("sec-label").await;
    fleet.login("sec-label").await.unwrap();
}

#[tokio::test]
async fn secret_without_label_does_not_survive_the_purge() {
    let fleet = Fleet::new("secrets-purge").await;
    fleet.apply("sec-purge", json!({})).await;
    fleet.ready("sec-purge").await;
    let leaves = |grace: i64| json!({"state": "Deprovisioned", "stateReason": "left", "offboarding": {"gracePeriodSeconds": grace}});
    fleet.apply("sec-purge", leaves(3600)).await;
    fleet.reason("sec-purge", DEPROVISIONED, "GracePeriod").await;
    // In the grace period nothing gives it the label again.
    change(&fleet, "sec-purge-db", json!({"metadata": {"labels": null}})).await;
    fleet.apply("sec-purge", leaves(0)).await;
    fleet.reason("sec-purge", DEPROVISIONED, "Deprovisioned").await;
    assert!(fleet.secrets.get_opt("sec-purge-db").await.unwrap().is_none());
}

#[tokio::test]
async fn admin_secret_that_is_lost_or_damaged_is_issued_again() {
    let fleet = Fleet::new("secrets-admin").await;
    fleet.apply("sec-admin", json!({"admins": [{"email": "ada@acme.example"}]})).await;
    fleet.ready("sec-admin").await;
    let first = fleet.secret("sec-admin-admin", "admins.json").await;
    fleet.secrets.delete("sec-admin-admin", &DeleteParams::default()).await.unwrap();
    let content =
        |secret: &Secret| String::from_utf8(secret.data.as_ref().unwrap()["admins.json"].0.clone()).unwrap();
    let again = wait(&fleet, "sec-admin-admin", "is back", |_| true).await;
    assert_ne!(content(&again), first);
    let note = event(&fleet, "sec-admin", "AdminSecretReplaced").await;
    assert!(note.contains("\"sec-admin-admin\"") && note.contains("ada@acme.example"), "{note}");

    let recorded = async || ask::<String>("tenantry_system", RECORDED, "sec-admin").await;
    let before = recorded().await;
    change(&fleet, "sec-admin-admin", json!({"data": {"admins.json": "W10=", "theirs": "eA=="}})).await;
    let repaired =
        wait(&fleet, "sec-admin-admin", "is repaired", |secret| content(secret).contains("ada@")).await;
    assert!(repaired.data.unwrap().contains_key("theirs"));
    // The Secret has a credential before the database does, and the registry after that.
    fleet.until("the credential is recorded").is_true(async || recorded().await != before).await;
    fleet.ready("sec-admin").await;
    // Its credential is used: a lost Secret is not issued again.
    let mut session = fleet.login("sec-admin").await.unwrap();
    sqlx::query("UPDATE user_credentials SET used_at = now() WHERE revoked_at IS NULL")
        .execute(&mut session)
        .await
        .unwrap();
    fleet.secrets.delete("sec-admin-admin", &DeleteParams::default()).await.unwrap();
    let reseeded = "SELECT EXISTS (SELECT FROM tenants WHERE slug = $1 AND seed_digest NOT LIKE '%+%')";
    fleet
        .until("the used credential is not issued again")
        .is_true(async || ask("tenantry_system", reseeded, "sec-admin").await)
        .await;
    assert!(fleet.secrets.get_opt("sec-admin-admin").await.unwrap().is_none());
}
