//! The schema of Tenants at creation.

use serde_json::{Value, json};
use tenantry::api::tenant::Tenant;

use super::{Objects, assert_accepted, assert_refused, gates, limits, tenant, with};
use tenantry_test_support::shared_operator;

fn admins(count: usize) -> Value {
    (0..count).map(|n| json!({"email": format!("a{n}@acme.example")})).collect()
}

fn settings(count: usize) -> Value {
    (0..count).map(|n| (format!("key{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into()
}

/// Changes to the smallest Tenant that are refused: the field, and a part of the message.
fn refusals() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        // Slugs are compared with the domain in slug.rs; these are the messages.
        (json!({"slug": null}), "spec.slug", "Required value"),
        (json!({"slug": "Acme"}), "spec.slug", "slug must have 3 to 40 characters of a-z, 0-9 and '-'"),
        (json!({"slug": "a".repeat(41)}), "spec.slug", "may not be more than 40"),
        (json!({"slug": "public"}), "spec.slug", "slug is reserved"),
        (json!({"displayName": null}), "spec.displayName", "Required value"),
        (json!({"displayName": ""}), "spec.displayName", "displayName must not be empty: write"),
        (json!({"displayName": " \u{a0} "}), "spec.displayName", "displayName must not be empty"),
        (
            json!({"displayName": "Acme\nCorp"}),
            "spec.displayName",
            "displayName must be text of one line: remove",
        ),
        (json!({"displayName": "Acme\u{0}"}), "spec.displayName", "control characters"),
        (json!({"displayName": "Acme\u{9b}1m"}), "spec.displayName", "control characters"),
        (json!({"displayName": "Acme\u{2028}"}), "spec.displayName", "line breaks"),
        (json!({"displayName": "x".repeat(201)}), "spec.displayName", "may not be more than 200"),
        (json!({"plan": null}), "spec.plan", "Required value"),
        (
            json!({"plan": "Starter"}),
            "spec.plan",
            "plan must be the name of a TenantPlan: a-z, 0-9, '-' and '.'",
        ),
        (json!({"plan": ""}), "spec.plan", "plan must be the name of a TenantPlan"),
        (json!({"plan": "p".repeat(64)}), "spec.plan", "may not be more than 63"),
        (json!({"state": "Suspended"}), "spec.stateReason", "stateReason is required unless state is Active"),
        (
            json!({"state": "Deprovisioned"}),
            "spec.stateReason",
            "stateReason is required unless state is Active",
        ),
        (
            json!({"state": "Broken"}),
            "spec.state",
            r#"supported values: "Active", "Suspended", "Deprovisioned""#,
        ),
        (json!({"stateReason": "a\nb"}), "spec.stateReason", "stateReason must be text of one line"),
        (json!({"stateReason": "x".repeat(1001)}), "spec.stateReason", "may not be more than 1000"),
        (
            json!({"suspension": {"mode": "Half"}}),
            "spec.suspension.mode",
            r#"supported values: "Blocked", "ReadOnly""#,
        ),
        (json!({"suspension": {"trigger": "Mood"}}), "spec.suspension.trigger", r#""SecurityIncident""#),
        (
            json!({"trial": {"endsAt": "2030-02-30T00:00:00Z"}}),
            "spec.trial.endsAt",
            "must be of type date-time",
        ),
        (
            json!({"validity": {"notAfter": "9999-12-31T23:59:59Z"}}),
            "spec.validity.notAfter",
            "a time must be before the year 9999, as in 2026-12-31T00:00:00Z: leave the field out for no end",
        ),
        (
            json!({"trial": {"endsAt": "9999-12-31T23:59:59-23:59"}}),
            "spec.trial.endsAt",
            "before the year 9999",
        ),
        (
            json!({"trial": {"endsAt": "2030-01-01T00:00:00.1234567890123Z"}}),
            "spec.trial.endsAt",
            "should match '^[0-9]{4}-[0-9]{2}-[0-9]{2}T",
        ),
        (json!({"trial": {}}), "spec.trial", "trial.endsAt is required: write the time"),
        (json!({"validity": {}}), "spec.validity", "validity must have notBefore, notAfter or both"),
        (
            json!({"validity": {"notBefore": "2027-12-31T00:00:00Z", "notAfter": "2027-01-01T00:00:00Z"}}),
            "spec.validity",
            "validity.notBefore must be before validity.notAfter",
        ),
        (json!({"deletionPolicy": "Keep"}), "spec.deletionPolicy", r#"supported values: "Purge", "Retain""#),
        (
            json!({"offboarding": {"gracePeriodSeconds": 315360001}}),
            "spec.offboarding.gracePeriodSeconds",
            "and 315360000, which is ten years",
        ),
        (
            json!({"offboarding": {"gracePeriodSeconds": -1}}),
            "spec.offboarding.gracePeriodSeconds",
            "must be between 0, which drops the database at once,",
        ),
        (
            json!({"offboarding": {"export": true}}),
            "spec.offboarding.export",
            "exports are not supported yet",
        ),
        (json!({"offboarding": {"reason": "a\tb"}}), "spec.offboarding.reason", "text of one line"),
        (
            json!({"offboarding": {"reason": "x".repeat(1001)}}),
            "spec.offboarding.reason",
            "may not be more than 1000",
        ),
        (json!({"offboarding": {"trigger": "Mood"}}), "spec.offboarding.trigger", r#""NonPayment""#),
        (json!({"admins": [{"name": "Ada"}]}), "spec.admins[0].email", "Required value"),
        (
            json!({"admins": [{"email": "Ada@acme.example"}]}),
            "spec.admins[0].email",
            "email must be an e-mail address in lower case, as in ada@acme.example",
        ),
        (
            json!({"admins": [{"email": "a@acme.example"}, {"email": "a@acme.example"}]}),
            "spec.admins[1]",
            "Duplicate value",
        ),
        (
            json!({"admins": [{"email": format!("{}@acme.example", "a".repeat(250))}]}),
            "spec.admins[0].email",
            "may not be more than 254",
        ),
        (
            json!({"admins": [{"email": "a@acme.example", "name": "A\nB"}]}),
            "spec.admins[0].name",
            "text of one line",
        ),
        (
            json!({"admins": [{"email": "a@acme.example", "name": "x".repeat(201)}]}),
            "spec.admins[0].name",
            "may not be more than 200",
        ),
        (
            json!({"admins": [{"email": "a@acme.example", "credential": "Password"}]}),
            "spec.admins[0].credential",
            r#"supported values: "ResetToken", "OneTimePassword""#,
        ),
        (json!({"admins": admins(51)}), "spec.admins", "must have at most 50 items"),
        (
            json!({"gates": [{"name": "Contract"}]}),
            "spec.gates[0].name",
            "the name of a gate must have a-z, 0-9 and '-', start with a letter and not end with '-', as in go-live",
        ),
        (json!({"gates": [{"name": "go-live-"}]}), "spec.gates[0].name", "the name of a gate must"),
        (json!({"gates": [{"name": ""}]}), "spec.gates[0].name", "the name of a gate must"),
        (json!({"gates": [{"name": "g".repeat(64)}]}), "spec.gates[0].name", "may not be more than 63"),
        (json!({"gates": [{"done": true}]}), "spec.gates[0].name", "Required value"),
        (json!({"gates": [{"name": "a", "done": "yes"}]}), "spec.gates[0].done", "must be of type boolean"),
        (json!({"gates": [{"name": "a"}, {"name": "a", "done": true}]}), "spec.gates[1]", "Duplicate value"),
        (json!({"gates": gates(21)}), "spec.gates", "must have at most 20 items"),
        (json!({"server": "Default"}), "spec.server", "server must be the name of a DatabaseServer"),
        (json!({"server": "s".repeat(64)}), "spec.server", "may not be more than 63"),
        (
            json!({"serverSelector": {"matchLabels": {"tier": "a"}}}),
            "spec.serverSelector",
            "not supported yet: leave it out and name a DatabaseServer in server",
        ),
        (
            json!({"isolation": "Schema"}),
            "spec.isolation",
            "isolation must be Database or left out: Schema is not supported yet",
        ),
        (json!({"isolation": "None"}), "spec.isolation", r#"supported values: "Database", "Schema""#),
        (
            json!({"modules": [{"name": "Wiki"}]}),
            "spec.modules[0].name",
            "modules.name must be the name of a TenantModule",
        ),
        (
            json!({"modules": [{"name": "wiki", "version": "new"}]}),
            "spec.modules[0].version",
            "modules.version must be the number of a file",
        ),
        (json!({"modules": [{"name": "wiki"}, {"name": "wiki"}]}), "spec.modules[1]", "Duplicate value"),
        (json!({"demoData": "yes"}), "spec.demoData", "must be of type boolean"),
        (json!({"settings": settings(201)}), "spec.settings", "must have at most 200 items"),
        (json!({"settings": ["theme"]}), "spec.settings", "must be of type object"),
        (
            json!({"limits": {"users": "custom"}}),
            "spec.limits",
            "a tenant's own limit must be a whole number, a quantity as in 10Gi, or unlimited: custom is for the limits",
        ),
        (json!({"limits": {"users": -1}}), "spec.limits[users]", "a limit must be a whole number"),
        (json!({"limits": {"users": "5"}}), "spec.limits[users]", "a limit must be a whole number"),
        (
            json!({"limits": {"users": 9007199254740992_i64}}),
            "spec.limits[users]",
            "from 0 to 9007199254740991",
        ),
        (json!({"limits": {"connections": 0}}), "spec.limits", "the limit connections must be at least 1"),
        (json!({"limits": {"connections": "10Gi"}}), "spec.limits", "a number of sessions without a unit"),
        (json!({"limits": {"tempFileBytes": "3T"}}), "spec.limits", "tempFileBytes must be less than 2Ti"),
        (
            json!({"limits": {"storage-bytes": 5}}),
            "spec.limits",
            "the name of a limit must have at most 63 letters and digits",
        ),
        (json!({"limits": limits(51)}), "spec.limits", "must have at most 50 items"),
        (
            json!({"provisioning": {"onFailure": "Retry"}}),
            "spec.provisioning.onFailure",
            r#"supported values: "Resume", "Rollback""#,
        ),
        (
            json!({"accountNamespace": "Acme"}),
            "spec.accountNamespace",
            "accountNamespace must be the name of a namespace",
        ),
        (json!({"adopt": {}}), "spec.adopt.database", "Required value"),
        (
            json!({"adopt": {"database": "old", "keepLogin": {"name": "shop"}}}),
            "spec.adopt.keepLogin.until",
            "Required value",
        ),
        (
            json!({"adopt": {"database": "old", "keepLogin": {"name": "a\tb", "until": "2027-01-01T00:00:00Z"}}}),
            "spec.adopt.keepLogin.name",
            "adopt.keepLogin.name must be the name of a role, without control characters",
        ),
        (
            json!({"adopt": {"database": "old", "confirm": "x"}}),
            "spec.adopt.confirm",
            "adopt.confirm must be the digest in status.adoption.digest",
        ),
        (
            json!({"adopt": {"database": "old", "baseline": {"app": "0"}}}),
            "spec.adopt.baseline[app]",
            "a version in adopt.baseline must be the number of a file",
        ),
        (
            json!({"bootstrap": {"export": "x"}}),
            "spec.bootstrap",
            "bootstrap is not supported yet: leave it out",
        ),
        (
            json!({"connectionSecretName": "Acme"}),
            "spec.connectionSecretName",
            "connectionSecretName must be a DNS name",
        ),
        (json!({"connectionSecretName": "acme..db"}), "spec.connectionSecretName", "as in acme-db"),
        (
            json!({"connectionSecretName": "acme-admin"}),
            "spec.connectionSecretName",
            "must not end in -admin",
        ),
        (
            json!({"connectionSecretName": "x".repeat(254)}),
            "spec.connectionSecretName",
            "may not be more than 253",
        ),
        (json!({"paused": "no"}), "spec.paused", "must be of type boolean"),
    ]
}

/// Changes to the smallest Tenant that are accepted.
fn acceptances() -> Vec<Value> {
    vec![
        json!({}),
        json!({"displayName": "Ünïcode & Söhne GmbH — «東京» 😀"}),
        json!({"displayName": "ü".repeat(200)}),
        json!({"plan": "not-there-yet"}),
        json!({"plan": "v1.2"}),
        json!({"state": "Active"}),
        json!({"state": "Active", "stateReason": ""}),
        json!({"stateReason": "as agreed with Ada"}),
        json!({"state": "Deprovisioned", "stateReason": "left"}),
        json!({"suspension": {}}),
        json!({"suspension": {"mode": "Blocked", "trigger": "PaymentFailure"}}),
        json!({"deletionPolicy": null}),
        json!({"deletionPolicy": null, "offboarding": {"gracePeriodSeconds": 315360000}}),
        json!({"deletionPolicy": "Purge", "offboarding": {"gracePeriodSeconds": 0}}),
        json!({"offboarding": {"gracePeriodSeconds": 0}}),
        json!({"offboarding": {"trigger": "ContractEnd", "reason": "moved to us-1", "export": false}}),
        json!({"admins": []}),
        json!({"admins": [{"email": "o'neil+x@mail.acme.example", "name": "Ada", "credential": "OneTimePassword"}]}),
        json!({"admins": [{"email": "a@x.io"}, {"email": "a.b@xn--mller-kva.example", "credential": "ResetToken"}]}),
        json!({"admins": admins(50)}),
        json!({"gates": []}),
        json!({"gates": [{"name": "contract", "done": true}, {"name": "go-live", "done": false}, {"name": "x"}]}),
        json!({"gates": gates(20)}),
        json!({"server": "not-there-yet"}),
        json!({"isolation": "Database"}),
        json!({"modules": []}),
        json!({"modules": [{"name": "billing"}, {"name": "wiki", "version": "7"}]}),
        json!({"demoData": true}),
        json!({"settings": settings(200)}),
        json!({"settings": {"theme": "dark", "ratio": 1.5, "deep": {"list": [1, "two", {"three": 3}], "on": true}}}),
        json!({"limits": {}}),
        json!({"limits": {"users": 0, "connections": 1, "storageBytes": 9007199254740991_i64, "seats": "unlimited"}}),
        json!({"limits": {"storageBytes": "10Gi"}}),
        json!({"limits": {"connections": "unlimited"}}),
        json!({"limits": limits(50)}),
        json!({"provisioning": {}}),
        json!({"provisioning": {"onFailure": "Resume"}}),
        json!({"provisioning": {"onFailure": "Rollback"}}),
        json!({"accountNamespace": ""}),
        json!({"accountNamespace": "acme"}),
        json!({"connectionSecretName": "acme.database-1"}),
        json!({"paused": true}),
    ]
}

#[tokio::test]
async fn every_refusal_names_field_and_remedy() {
    let client = shared_operator::client().await;
    let namespace = shared_operator::namespace(&client, "schema-tenant-refused").await;
    let tenants = Objects::namespaced::<Tenant>(&client, &namespace);
    for (changes, field, words) in refusals() {
        let outcome = tenants.try_create("acme", &with(&tenant(), &changes)).await;
        assert_refused(&changes, outcome, field, words);
    }
}

#[tokio::test]
async fn valid_specs_are_accepted() {
    let client = shared_operator::client().await;
    let namespace = shared_operator::namespace(&client, "schema-tenant-accepted").await;
    let tenants = Objects::namespaced::<Tenant>(&client, &namespace);
    for changes in acceptances() {
        let spec = with(&tenant(), &changes);
        match tenants.try_create("acme", &spec).await {
            // No default is written into the spec: it would never change again.
            Ok(stored) => {
                assert_eq!(stored["spec"], spec, "{changes}");
                assert_eq!(stored["status"], json!({"observedGeneration": -1}), "{changes}");
            }
            Err(causes) => panic!("{changes} was refused: {causes:#?}"),
        }
    }
}

#[tokio::test]
async fn addresses() {
    let client = shared_operator::client().await;
    let namespace = shared_operator::namespace(&client, "schema-tenant-addresses").await;
    let tenants = Objects::namespaced::<Tenant>(&client, &namespace);
    let longest = format!("{}@{}.example", "a".repeat(64), "b".repeat(63));
    for good in ["a@b.c", "a.b.c@d.e.f", "a_b-c+d@x1.example", "1@2.example", &longest] {
        let spec = with(&tenant(), &json!({"admins": [{"email": good}]}));
        assert_accepted(&json!(good), tenants.try_create("acme", &spec).await);
    }
    for bad in [
        "",
        "a",
        "@",
        "a@",
        "@b.example",
        "a@b",
        "a@@b.example",
        "a@b.example ",
        " a@b.example",
        "a b@c.example",
        ".a@b.example",
        "a.@b.example",
        "a..b@c.example",
        "a@.example",
        "a@b.",
        "a@-b.example",
        "a@b-.example",
        "a@b..example",
        "a@b_c.example",
        "a@b.exämple",
        "ä@b.example",
        "A@b.example",
        "a@B.example",
        "a\n@b.example",
        "a@b.example\n",
        "<a@b.example>",
        "a,b@c.example",
        "a@b.example,c@d.example",
        "\"a\"@b.example",
    ] {
        let spec = with(&tenant(), &json!({"admins": [{"email": bad}]}));
        let outcome = tenants.try_create("acme", &spec).await;
        assert_refused(&json!(bad), outcome, "spec.admins[0].email", "email must be an e-mail address");
    }
}

#[tokio::test]
async fn state_reason_is_required_unless_active() {
    let client = shared_operator::client().await;
    let namespace = shared_operator::namespace(&client, "schema-tenant-reason").await;
    let tenants = Objects::namespaced::<Tenant>(&client, &namespace);
    for reason in [json!(null), json!("")] {
        for state in ["Suspended", "Deprovisioned"] {
            let spec = with(&tenant(), &json!({"state": state, "stateReason": reason}));
            let words = "stateReason is required unless state is Active";
            assert_refused(&spec, tenants.try_create("acme", &spec).await, "spec.stateReason", words);
        }
    }
}

#[tokio::test]
async fn name_longer_than_a_label_is_refused() {
    let client = shared_operator::client().await;
    let namespace = shared_operator::namespace(&client, "schema-tenant-name").await;
    let tenants = Objects::namespaced::<Tenant>(&client, &namespace);
    assert_accepted(&json!("63"), tenants.try_create(&"a".repeat(63), &tenant()).await);
    let outcome = tenants.try_create(&"a".repeat(64), &tenant()).await;
    let words = "metadata.name must have at most 63 characters: choose a shorter name";
    assert_refused(&json!("64"), outcome, "<nil>", words);
}

#[tokio::test]
async fn null_equals_absent() {
    let client = shared_operator::client().await;
    let namespace = shared_operator::namespace(&client, "schema-tenant-null").await;
    let tenants = Objects::namespaced::<Tenant>(&client, &namespace);
    let mut spec = tenant();
    for field in
        ["state", "trial", "adopt", "admins", "settings", "limits", "server", "paused", "offboarding"]
    {
        spec[field] = json!(null);
    }
    assert_eq!(tenants.try_create("acme", &spec).await.unwrap()["spec"], tenant());
    // The API server drops a null at the top of settings; one further down is kept, and the operator refuses it.
    spec["settings"] = json!({"gone": null, "kept": {"null": null}});
    let stored = tenants.try_create("acme", &spec).await.unwrap();
    assert_eq!(stored["spec"]["settings"], json!({"kept": {"null": null}}));
}
