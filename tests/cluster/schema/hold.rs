//! The schema of TenantHolds.

use serde_json::json;
use tenantry::api::tenant_hold::TenantHold;

use super::{Objects, assert_accepted, assert_refused, with};
use tenantry_test_support::shared_operator;

#[tokio::test]
async fn every_refusal_names_field_and_remedy() {
    let client = shared_operator::client().await;
    let namespace = shared_operator::namespace(&client, "schema-hold").await;
    let holds = Objects::namespaced::<TenantHold>(&client, &namespace);
    let least = json!({"tenant": "acme", "reason": "unpaid"});
    for (change, field, words) in [
        (json!({"tenant": null}), "spec.tenant", "Required value"),
        (json!({"tenant": "Acme"}), "spec.tenant", "tenant must be the name of a Tenant"),
        (json!({"reason": null}), "spec.reason", "Required value"),
        (json!({"reason": " "}), "spec.reason", "reason must not be empty: write for the audit trail why"),
        (json!({"reason": "a\nb"}), "spec.reason", "text of one line"),
        (json!({"reason": "x".repeat(1001)}), "spec.reason", "may not be more than 1000"),
        (json!({"mode": "ReadWrite"}), "spec.mode", r#"supported values: "Blocked", "ReadOnly", "None""#),
        (json!({"mode": "None"}), "spec.mode", "set preserve to true for a legal hold"),
        (json!({"mode": "None", "preserve": false}), "spec.mode", "mode None restricts nothing"),
        (json!({"trigger": "Mood"}), "spec.trigger", r#""PaymentFailure""#),
    ] {
        assert_refused(&change, holds.try_create("billing", &with(&least, &change)).await, field, words);
    }
    for name in ["inactivity", "quota"] {
        let outcome = holds.try_create(name, &least).await;
        assert_refused(&json!(name), outcome, "<nil>", "metadata.name is reserved");
    }
    for change in [
        json!({}),
        json!({"mode": "ReadOnly", "trigger": "PaymentFailure"}),
        json!({"mode": "Blocked"}),
        json!({"mode": "None", "preserve": true}),
        json!({"preserve": true}),
    ] {
        assert_accepted(&change, holds.try_create("billing", &with(&least, &change)).await);
    }
    holds.create("stays", &least).await;
    let another = holds.try_change("stays", &json!({"tenant": "globex"})).await;
    assert_refused(&json!("globex"), another, "spec.tenant", "tenant cannot be changed");
    assert_accepted(&json!("Blocked"), holds.try_change("stays", &json!({"mode": "Blocked"})).await);
    let legal = json!({"mode": "None", "preserve": true});
    assert_accepted(&legal, holds.try_change("stays", &legal).await);
    holds.create("legal", &with(&least, &legal)).await;
    for change in
        [json!({"preserve": false, "mode": "Blocked"}), json!({"preserve": null, "mode": "Blocked"})]
    {
        let outcome = holds.try_change("legal", &change).await;
        assert_refused(&change, outcome, "spec.preserve", "to end the legal hold, delete this TenantHold");
    }
}
