//! The schema of TenantPlans, and the four shipped plans.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tenantry::api::{
    limit::{LimitValue, LimitWord},
    plan::TenantPlan,
};

use super::{Objects, assert_accepted, assert_refused, gates, limits};
use tenantry_test_support::shared_operator;

fn features(count: usize) -> Value {
    (0..count).map(|n| format!("f{n}")).collect()
}

#[tokio::test]
async fn every_refusal_names_field_and_remedy() {
    let client = shared_operator::client().await;
    let plans = Objects::cluster::<TenantPlan>(&client);
    for (spec, field, words) in [
        (
            json!({"limits": {"users": -1}}),
            "spec.limits[users]",
            "a limit must be a whole number from 0 to 9007199254740991, a quantity less than 8192Ti as in 10Gi, unlimited, or custom",
        ),
        (json!({"limits": {"users": 9007199254740992_i64}}), "spec.limits[users]", "a limit must be"),
        (json!({"limits": {"users": "many"}}), "spec.limits[users]", "a limit must be a whole number"),
        (
            json!({"limits": {"seats": 1, "users": "5"}}),
            "spec.limits[users]",
            "a limit must be a whole number",
        ),
        (json!({"limits": {"storageBytes": "10gi"}}), "spec.limits[storageBytes]", "as in 10Gi"),
        (json!({"limits": {"storageBytes": "8192Ti"}}), "spec.limits[storageBytes]", "less than 8192Ti"),
        (json!({"limits": {"storageBytes": "010Gi"}}), "spec.limits[storageBytes]", "as in 10Gi"),
        (json!({"limits": {"users": 1.5}}), "spec.limits.users", "must be of type integer,string"),
        (json!({"limits": {"users": "unlimited!"}}), "spec.limits[users]", "a limit must be"),
        (
            json!({"limits": {"Users": 5}}),
            "spec.limits",
            "the name of a limit must have at most 63 letters and digits and start with a lower-case letter, as in storageBytes",
        ),
        (json!({"limits": {"storage-bytes": 5}}), "spec.limits", "the name of a limit must"),
        (json!({"limits": {"": 5}}), "spec.limits", "the name of a limit must"),
        (json!({"limits": {"a".repeat(64): 5}}), "spec.limits", "the name of a limit must"),
        (json!({"limits": limits(51)}), "spec.limits", "must have at most 50 items"),
        (json!({"limits": {"users": "x".repeat(19)}}), "spec.limits.users", "may not be more than 18"),
        (
            json!({"published": ["Seats"]}),
            "spec.published",
            "published must have names of limits: at most 63 letters and digits that start with a lower-case letter",
        ),
        (json!({"published": ["seats", "seats"]}), "spec.published[1]", "Duplicate value"),
        (
            json!({"features": ["SSO"]}),
            "spec.features",
            "a feature must be a name of a-z, 0-9 and '-' that starts with a letter, as in sso",
        ),
        (json!({"features": ["sso", "sso"]}), "spec.features[1]", "Duplicate value"),
        (json!({"features": ["x".repeat(64)]}), "spec.features[0]", "may not be more than 63"),
        (json!({"features": features(51)}), "spec.features", "must have at most 50 items"),
        (json!({"sla": "99,9"}), "spec.sla", "sla must be a percentage in quotes"),
        (json!({"sla": "101"}), "spec.sla", "as in \"99.9\"; leave it out for none"),
        (json!({"sla": "99.9%"}), "spec.sla", "without a sign"),
        (json!({"sla": ""}), "spec.sla", "sla must be a percentage"),
        (json!({"sla": 99.9}), "spec.sla", "must be of type string"),
        (json!({"modules": ["Wiki"]}), "spec.modules", "a module must be a name of a-z, 0-9 and '-'"),
        (json!({"modules": ["core", "core"]}), "spec.modules[1]", "Duplicate value"),
        (json!({"modules": features(51)}), "spec.modules", "must have at most 50 items"),
        (json!({"trialDays": -1}), "spec.trialDays", "trialDays must be between 0, which means no trial,"),
        (json!({"trialDays": 3651}), "spec.trialDays", "and 3650"),
        (
            json!({"trialEnd": {"action": "ChangePlan"}}),
            "spec.trialEnd",
            "trialEnd.plan is required with action ChangePlan: write the name of the TenantPlan that follows",
        ),
        (
            json!({"trialEnd": {"action": "ChangePlan", "plan": "free", "mode": "ReadOnly"}}),
            "spec.trialEnd",
            "trialEnd.mode is for action Suspend",
        ),
        (
            json!({"trialEnd": {"action": "Suspend", "plan": "free"}}),
            "spec.trialEnd",
            "trialEnd.plan is for action ChangePlan",
        ),
        (json!({"trialEnd": {"action": "Delete"}}), "spec.trialEnd.action", r#""Suspend", "ChangePlan""#),
        (
            json!({"graceSeconds": {"NonPayment": -1}}),
            "spec.graceSeconds.NonPayment",
            "graceSeconds.NonPayment must be between 0 and 315360000 seconds",
        ),
        (
            json!({"suspensionMode": {"PaymentFailure": "ShrinkOnly"}}),
            "spec.suspensionMode.PaymentFailure",
            r#"supported values: "Blocked", "ReadOnly""#,
        ),
        (json!({"inactivity": {}}), "spec.inactivity", "inactivity must have warnDays, holdDays or both"),
        (
            json!({"inactivity": {"warnDays": 90, "holdDays": 90}}),
            "spec.inactivity",
            "inactivity.warnDays must be less than inactivity.holdDays",
        ),
        (
            json!({"inactivity": {"holdDays": 0}}),
            "spec.inactivity.holdDays",
            "inactivity.holdDays must be between 1 and 3650 days",
        ),
        (json!({"onFailure": "Retry"}), "spec.onFailure", r#"supported values: "Resume", "Rollback""#),
        (
            json!({"gates": [{"name": "contract", "done": true}]}),
            "spec.gates",
            "a gate of a plan must not be done: leave done out; each tenant marks gates as done in its own spec.gates",
        ),
        (json!({"gates": [{"name": "Go"}]}), "spec.gates[0].name", "the name of a gate must have a-z, 0-9"),
        (json!({"gates": [{"name": "g".repeat(64)}]}), "spec.gates[0].name", "may not be more than 63"),
        (json!({"gates": [{"name": "a"}, {"name": "a"}]}), "spec.gates[1]", "Duplicate value"),
        (json!({"gates": gates(21)}), "spec.gates", "must have at most 20 items"),
        (
            json!({"limits": {"connections": 0}}),
            "spec.limits",
            "the limit connections must be at least 1: to deny a tenant access, suspend it instead",
        ),
        (json!({"limits": {"connections": "10Gi"}}), "spec.limits", "a number of sessions without a unit"),
        (
            json!({"limits": {"connections": 262144}}),
            "spec.limits",
            "at most 262143, which is PostgreSQL's maximum",
        ),
        (json!({"limits": {"tempFileBytes": "2Ti"}}), "spec.limits", "tempFileBytes must be less than 2Ti"),
        (json!({"limits": {"tempFileBytes": 2199023255552_i64}}), "spec.limits", "must be less than 2Ti"),
        (
            json!({"selfService": {"settings": ["theme", "theme"]}}),
            "spec.selfService.settings[1]",
            "Duplicate value",
        ),
        (json!({"selfService": {"plans": [""]}}), "spec.selfService.plans[0]", "at least 1 chars long"),
    ] {
        assert_refused(&spec, plans.try_create("trial", &spec).await, field, words);
    }
    let outcome = plans.try_create(&"a".repeat(64), &json!({})).await;
    assert_refused(&json!("64"), outcome, "<nil>", "metadata.name must have at most 63 characters");
}

#[tokio::test]
async fn valid_specs_are_accepted() {
    let client = shared_operator::client().await;
    let plans = Objects::cluster::<TenantPlan>(&client);
    for spec in [
        json!({}),
        json!({"limits": {"users": 0, "projects": "unlimited", "storageBytes": "custom", "seats2": 9007199254740991_i64}}),
        json!({"limits": limits(50), "features": features(50), "gates": gates(20)}),
        json!({"limits": {"connections": 1}, "gates": [{"name": "contract"}, {"name": "go-live", "done": false}]}),
        json!({"limits": {"storageBytes": "10Gi", "tempFileBytes": "0k", "uploadBytes": "8191Ti"}, "published": ["uploadBytes"]}),
        json!({"limits": {"connections": "unlimited"}}),
        json!({"limits": {"connections": 262143, "tempFileBytes": 2199023255551_i64}}),
        json!({"limits": {"tempFileBytes": "2047Gi"}}),
        json!({"limits": {"tempFileBytes": "custom"}}),
        json!({"limits": {"connections": "custom"}}),
        json!({"features": ["sso", "single-sign-on2"]}),
        json!({"sla": "0"}),
        json!({"sla": "99.999"}),
        json!({"sla": "100"}),
        json!({"graceSeconds": {"CustomerRequest": 2592000, "ContractEnd": 0}, "onFailure": "Rollback"}),
        json!({"modules": ["core", "projects"]}),
        json!({"modules": [], "gates": [], "trialDays": 0, "onFailure": "Resume"}),
        json!({"trialDays": 14, "trialEnd": {"action": "Suspend", "mode": "ReadOnly"}}),
        json!({"trialDays": 14, "trialEnd": {"action": "ChangePlan", "plan": "free"}}),
        json!({"trialEnd": {"action": "Suspend"}, "inactivity": {"warnDays": 60, "holdDays": 90}}),
        json!({"suspensionMode": {"PaymentFailure": "ReadOnly", "SecurityIncident": "Blocked"}}),
    ] {
        let stored = plans.try_create(&"a".repeat(63), &spec).await;
        assert_accepted(&spec, stored.as_ref().map(Clone::clone).map_err(|_| Vec::new()));
        assert_eq!(stored.unwrap(), json!({"spec": spec}));
    }
}

#[tokio::test]
async fn shipped_plans_are_accepted_and_complete() {
    let client = shared_operator::client().await;
    let plans = Objects::cluster::<TenantPlan>(&client);
    let number = LimitValue::Number;
    let unlimited = LimitValue::Word(LimitWord::Unlimited);
    let custom = LimitValue::Word(LimitWord::Custom);
    let names = ["users", "projects", "storageBytes", "apiCallsPer15Minutes", "connections"];
    for (name, limits, features, sla) in [
        ("free", [number(5), number(10), number(100 << 20), number(100), number(10)], vec![], None),
        ("starter", [number(20), number(50), number(1 << 30), number(500), number(20)], vec![], Some("99")),
        (
            "professional",
            [number(100), number(200), number(10 << 30), number(2000), number(50)],
            vec![],
            Some("99.5"),
        ),
        (
            "enterprise",
            [unlimited, unlimited, custom, custom, number(100)],
            vec!["sso", "scim"],
            Some("99.9"),
        ),
    ] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/plans/{name}.yaml"));
        let plan: TenantPlan = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(plan.metadata.name.as_deref(), Some(name));
        assert_eq!(plan.spec.limits.len(), names.len(), "{name}");
        for (limit, value) in names.iter().zip(limits) {
            assert_eq!(plan.spec.limits.get(*limit), Some(&value), "{name}: {limit}");
        }
        assert_eq!(plan.spec.features, features, "{name}");
        assert_eq!(plan.spec.sla.as_deref(), sla, "{name}");
        let spec = serde_json::to_value(&plan.spec).unwrap();
        let stored = plans.try_create(&format!("shipped-{name}"), &spec).await.unwrap();
        assert_eq!(stored["spec"], spec);
    }
    let shipped = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/plans")).unwrap().count();
    assert_eq!(shipped, 4);
}
