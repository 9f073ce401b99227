//! Mutable and immutable fields of a Tenant.

use serde_json::json;
use tenantry::api::tenant::Tenant;

use super::{Objects, assert_accepted, assert_refused, tenant, with};
use tenantry_test_support::shared_operator;

#[tokio::test]
async fn immutable_fields_are_refused_by_name() {
    let client = shared_operator::client().await;
    let namespace = shared_operator::namespace(&client, "schema-tenant-fixed").await;
    let tenants = Objects::namespaced::<Tenant>(&client, &namespace);
    let full = json!({"server": "elsewhere", "connectionSecretName": "acme-database", "paused": true});
    tenants.create("bare", &with(&tenant(), &json!({"slug": "bare", "paused": true}))).await;
    tenants.create("full", &with(&with(&tenant(), &full), &json!({"slug": "full"}))).await;
    for (name, change, field, words) in [
        ("bare", json!({"slug": "other"}), "spec.slug", "slug can be changed only together with stateReason"),
        (
            "bare",
            json!({"slug": "other", "stateReason": ""}),
            "spec.slug",
            "write the reason of this change there",
        ),
        (
            "bare",
            json!({"slug": "other", "state": "Deprovisioned", "stateReason": "left"}),
            "spec.slug",
            "slug cannot be changed while state is Deprovisioned",
        ),
        (
            "bare",
            json!({"server": "x"}),
            "spec.server",
            "server cannot be added, changed or removed, because moving",
        ),
        ("full", json!({"server": "x"}), "spec.server", "server cannot be added, changed or removed"),
        ("full", json!({"server": null}), "spec.server", "write the value that the Tenant was created with"),
        (
            "bare",
            json!({"connectionSecretName": "x"}),
            "spec.connectionSecretName",
            "cannot be added, changed or removed",
        ),
        (
            "full",
            json!({"connectionSecretName": "x"}),
            "spec.connectionSecretName",
            "cannot be added, changed or",
        ),
        (
            "full",
            json!({"connectionSecretName": null}),
            "spec.connectionSecretName",
            "write the value that the",
        ),
        (
            "full",
            json!({"state": "Suspended", "stateReason": null}),
            "spec.stateReason",
            "is required unless",
        ),
        ("full", json!({"trial": {"endsAt": null}}), "spec.trial", "trial.endsAt is required"),
    ] {
        assert_refused(&change, tenants.try_change(name, &change).await, field, words);
    }
}

#[tokio::test]
async fn mutable_fields_can_be_added_and_removed() {
    let client = shared_operator::client().await;
    let namespace = shared_operator::namespace(&client, "schema-tenant-changes").await;
    let tenants = Objects::namespaced::<Tenant>(&client, &namespace);
    let full = json!({
        "slug": "full", "state": "Active", "stateReason": "as agreed", "paused": true,
        "suspension": {"mode": "ReadOnly"}, "offboarding": {"gracePeriodSeconds": 0, "trigger": "NonPayment"},
        "admins": [{"email": "ada@acme.example", "name": "Ada"}], "settings": {"theme": "dark"}, "demoData": true,
        "provisioning": {"onFailure": "Resume"}, "isolation": "Database",
    });
    tenants.create("bare", &with(&tenant(), &json!({"slug": "bare", "paused": true}))).await;
    tenants.create("full", &with(&tenant(), &full)).await;
    for (name, change) in [
        ("bare", json!({"displayName": "Acme Incorporated"})),
        ("bare", json!({"state": "Active", "stateReason": "as agreed"})),
        ("full", json!({"state": null, "stateReason": null})),
        ("bare", json!({"suspension": {"mode": "Blocked", "trigger": "TermsViolation"}})),
        ("full", json!({"suspension": null})),
        ("bare", json!({"deletionPolicy": "Purge", "offboarding": {"gracePeriodSeconds": 0}})),
        ("full", json!({"deletionPolicy": null})),
        ("full", json!({"offboarding": null})),
        ("bare", json!({"admins": [{"email": "ada@acme.example"}, {"email": "bob@acme.example"}]})),
        ("full", json!({"admins": [{"email": "ada@acme.example", "credential": "OneTimePassword"}]})),
        ("full", json!({"admins": null})),
        ("bare", json!({"settings": {"theme": "light"}})),
        ("full", json!({"settings": {"theme": null, "colour": {"r": 1}}})),
        ("bare", json!({"demoData": true})),
        ("full", json!({"demoData": null})),
        ("full", json!({"provisioning": null, "isolation": null})),
        ("bare", json!({"slug": "bare-new", "stateReason": "new brand"})),
        ("bare", json!({"slug": "bare-newer", "state": "Suspended", "stateReason": "sold"})),
        ("full", json!({"paused": false})),
        ("full", json!({"paused": null})),
    ] {
        assert_accepted(&change, tenants.try_change(name, &change).await);
    }
}
