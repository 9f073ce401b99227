//! Who changed a tenant: the user whom the API server authenticated, whatever the object says.

use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tenantry::api::{
    ANNOTATION_CHANGES,
    tenant::Tenant,
    tenant_status::{Access, TenantState},
};
use tenantry_test_support::{
    Fleet, objects,
    shared_operator::{ENVIRONMENT, superuser},
    users::{LoggedActivity, activity, actors},
};

async fn by(fleet: &Fleet, user: &str) -> Fleet {
    fleet.by(ENVIRONMENT.control_plane(), user).await
}

async fn log(slug: &str) -> Vec<LoggedActivity> {
    activity(&mut superuser("tenantry_system").await, slug).await
}

fn stamp(tenant: &Tenant) -> &str {
    tenant
        .metadata
        .annotations
        .as_ref()
        .and_then(|found| found.get(ANNOTATION_CHANGES))
        .map_or("", String::as_str)
}

/// Waits until the status names this user.
async fn updated_by(fleet: &Fleet, name: &str, user: &'static str) {
    fleet
        .wait(name, user, move |tenant: Option<&Tenant>| {
            let status = tenant.and_then(|tenant| tenant.status.as_ref());
            status.is_some_and(|status| status.state_updated_by.as_deref() == Some(user))
        })
        .await;
}

#[tokio::test]
async fn each_transition_is_named_for_its_user() {
    let fleet = Fleet::new("actors-life").await;
    by(&fleet, "alice").await.apply("actors-life", json!({})).await;
    fleet.ready("actors-life").await;
    updated_by(&fleet, "actors-life", "tenantry").await;
    let suspended = json!({"state": "Suspended", "stateReason": "unpaid"});
    by(&fleet, "bob").await.apply("actors-life", suspended.clone()).await;
    fleet.access("actors-life", Access::Blocked).await;
    updated_by(&fleet, "actors-life", "bob").await;
    by(&fleet, "carol").await.apply("actors-life", json!({"plan": "free"})).await;
    fleet.access("actors-life", Access::ReadWrite).await;
    updated_by(&fleet, "actors-life", "carol").await;
    let leaving = json!({"plan": "free", "state": "Deprovisioned", "stateReason": "contract ended"});
    by(&fleet, "dave").await.apply("actors-life", leaving).await;
    let is_closed = |tenant: Option<&Tenant>| {
        let status = tenant.and_then(|tenant| tenant.status.as_ref());
        status.is_some_and(|status| status.state == Some(TenantState::Deprovisioned))
    };
    fleet.wait("actors-life", "deprovisioned", is_closed).await;

    let log = log("actors-life").await;
    let named = |actor: &str, actions: &[&str]| {
        let expected: Vec<_> =
            actions.iter().map(|action| ((*action).to_owned(), actor.to_owned())).collect();
        assert_eq!(actors(&log, actions), expected, "{log:#?}");
    };
    named("alice", &["Created", "Registered"]);
    named("tenantry", &["Activated"]);
    named("bob", &["Suspended"]);
    named("carol", &["Resumed"]);
    named("carol", &["PlanChanged"]);
    named("dave", &["DeprovisioningBegun"]);
    let updates = actors(&log, &["Updated"]);
    assert_eq!(updates.iter().map(|(_, actor)| actor.as_str()).collect::<Vec<_>>(), ["bob", "carol", "dave"]);
    let updates: Vec<_> = log.iter().filter(|row| row.action == "Updated").collect();
    assert_eq!(updates[0].details["fields"]["state"], json!({"to": "Suspended"}));
    assert_eq!(updates[1].details["fields"]["plan"], json!({"from": "starter", "to": "free"}));
    // Each reason goes with its own change.
    let reasons: Vec<_> = updates.iter().map(|row| row.reason.as_deref()).collect();
    assert_eq!(reasons, [Some("unpaid"), None, Some("contract ended")]);
    let receipt: (String, Option<String>) =
        sqlx::query_as("SELECT requested_by, reason FROM deletion_receipts WHERE slug = 'actors-life'")
            .fetch_one(&mut superuser("tenantry_system").await)
            .await
            .unwrap();
    assert_eq!(receipt, ("dave".to_owned(), Some("contract ended".to_owned())));
}

#[tokio::test]
async fn reason_of_a_suspension_is_not_that_of_the_deletion() {
    let fleet = Fleet::new("actors-reason").await;
    fleet.apply("actors-reason", json!({"state": "Suspended", "stateReason": "unpaid"})).await;
    fleet.access("actors-reason", Access::Blocked).await;
    fleet.delete("actors-reason").await;
    let receipt: (String, Option<String>) =
        sqlx::query_as("SELECT requested_by, reason FROM deletion_receipts WHERE slug = 'actors-reason'")
            .fetch_one(&mut superuser("tenantry_system").await)
            .await
            .unwrap();
    assert_eq!(receipt, ("unknown (deletion)".to_owned(), None));
}

#[tokio::test]
async fn actor_cannot_be_forged() {
    let fleet = Fleet::new("actors-forged").await;
    let (alice, mallory) = (by(&fleet, "alice").await, by(&fleet, "mallory").await);
    let forged = |text: &str| json!({"metadata": {"annotations": {ANNOTATION_CHANGES: text}}});
    let mut object = objects::tenant("actors-forged", json!({}));
    object["metadata"]["annotations"] = forged("1 * root")["metadata"]["annotations"].clone();
    let object: Tenant = serde_json::from_value(object).unwrap();
    let created = mallory.tenants.create(&PostParams::default(), &object).await.unwrap();
    assert_eq!(stamp(&created), "1 * mallory");
    let changed = alice.apply("actors-forged", json!({"displayName": "Forged"})).await;
    let genuine = "2 displayName alice\n1 * mallory";
    assert_eq!(stamp(&changed), genuine);

    let merge = PatchParams::default();
    let edit =
        async |patch: Value| mallory.tenants.patch("actors-forged", &merge, &Patch::Merge(patch)).await;
    for text in ["1 * root", "2 displayName root\n1 * mallory", &format!("3 * root\n{genuine}")] {
        let error = edit(forged(text)).await.unwrap_err().to_string();
        assert!(error.contains("leave it out"), "{text:?}: {error}");
    }
    // Another field manager, by server-side apply.
    let manager = PatchParams::apply("forger").force();
    let applied = json!({"apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
        "metadata": {"name": "actors-forged", "annotations": {ANNOTATION_CHANGES: "2 * root"}}});
    let refused = mallory.tenants.patch("actors-forged", &manager, &Patch::Apply(applied)).await;
    assert!(refused.unwrap_err().to_string().contains("leave it out"));
    // What removes it, or has no effect on metadata, leaves it as it is.
    let removed = edit(json!({"metadata": {"annotations": {ANNOTATION_CHANGES: null}}})).await.unwrap();
    assert_eq!(stamp(&removed), genuine);
    // The operator writes nothing more, which would be a conflict.
    fleet.ready("actors-forged").await;
    let mut replaced = mallory.tenants.get("actors-forged").await.unwrap();
    replaced.metadata.annotations = None;
    let replaced = mallory.tenants.replace("actors-forged", &PostParams::default(), &replaced).await.unwrap();
    assert_eq!(stamp(&replaced), genuine);
    let status = json!({"metadata": forged("1 * root")["metadata"], "status": {}});
    mallory.tenants.patch_status("actors-forged", &merge, &Patch::Merge(status)).await.unwrap();
    assert_eq!(stamp(&mallory.tenants.get("actors-forged").await.unwrap()), genuine);
    // With a change of the spec, the user is named, and not who the request names.
    let both = json!({"metadata": forged("9 * root")["metadata"], "spec": {"displayName": "Both"}});
    assert_eq!(stamp(&edit(both).await.unwrap()), format!("3 displayName mallory\n{genuine}"));

    // Impersonation without the right.
    let namespace = fleet.tenants.namespace().unwrap();
    let account = async || ENVIRONMENT.control_plane().service_account_config(namespace, "default").await;
    fleet.until("the account exists").is_true(async || account().await.is_ok()).await;
    let mut config = account().await.unwrap();
    config.auth_info.impersonate = Some("alice".to_owned());
    let pretender = Fleet::of(kube::Client::try_from(config).unwrap(), namespace, fleet.log().to_owned());
    let refused = pretender.try_apply("actors-forged", json!({"displayName": "Pretended"})).await;
    assert!(matches!(&refused, Err(kube::Error::Api(answer)) if answer.code == 403), "{refused:?}");

    fleet.ready("actors-forged").await;
    let log = log("actors-forged").await;
    assert!(log.iter().all(|row| row.actor != "root"), "{log:#?}");
}

#[tokio::test]
async fn long_and_reserved_names_are_safe() {
    let fleet = Fleet::new("actors-names").await;
    by(&fleet, "unknown (deletion)").await.apply("actors-names", json!({})).await;
    let long = format!("CN={},O=acme", "ü".repeat(400));
    // A header has no such characters: the name comes from a token or a certificate. What is long is enough here.
    let long = long.replace('ü', "u");
    let changed = by(&fleet, &long).await.apply("actors-names", json!({"displayName": "Long"})).await;
    let line = stamp(&changed).lines().next().unwrap();
    assert!(line.starts_with("2 displayName CN=uuu") && line.ends_with(",O=acme"), "{line}");
    assert!(line.contains('…') && line.chars().count() < 300, "{line}");
    for n in 0..15 {
        by(&fleet, &format!("user-{n}"))
            .await
            .apply("actors-names", json!({"displayName": format!("{n}")}))
            .await;
    }
    let last = fleet.tenants.get("actors-names").await.unwrap();
    assert_eq!(stamp(&last).lines().count(), 10, "{}", stamp(&last));
    fleet.ready("actors-names").await;
    let created = actors(&log("actors-names").await, &["Created"]);
    let expected = ["\"unknown (deletion)\"", "unknown (not recorded)"];
    assert!(expected.contains(&created[0].1.as_str()), "{created:?}");
}

#[tokio::test]
async fn applying_again_names_no_one() {
    let fleet = Fleet::new("actors-again").await;
    let tool = by(&fleet, "system:serviceaccount:flux-system:kustomize-controller").await;
    let first = tool.apply("actors-again", json!({})).await;
    fleet.ready("actors-again").await;
    let before = log("actors-again").await;
    let other = by(&fleet, "another-tool").await;
    for _ in 0..5 {
        for client in [&tool, &other] {
            let again = client.apply("actors-again", json!({})).await;
            assert_eq!(
                (stamp(&again), again.metadata.generation),
                (stamp(&first), first.metadata.generation)
            );
        }
    }
    // A change that is seen after them.
    by(&fleet, "bob").await.apply("actors-again", json!({"displayName": "Again"})).await;
    fleet.ready("actors-again").await;
    let after = log("actors-again").await;
    assert_eq!(after[..before.len()], before);
    assert_eq!(actors(&after[before.len()..], &["Updated"]), [("Updated".to_owned(), "bob".to_owned())]);
}

#[tokio::test]
async fn objects_with_generated_names_are_admitted_and_attributed() {
    let fleet = Fleet::new("actors-generated").await;
    let alice = by(&fleet, "alice").await;
    let generated = |mut object: Value| {
        object["metadata"] = json!({"generateName": "actors-generated-"});
        object
    };
    let tenant = generated(objects::tenant("actors-generated", json!({})));
    let tenant = serde_json::from_value(tenant).unwrap();
    let tenant = alice.tenants.create(&PostParams::default(), &tenant).await.unwrap();
    assert_eq!(stamp(&tenant), "1 * alice");
    let name = tenant.metadata.name.unwrap();
    fleet.ready(&name).await;
    let hold = generated(objects::hold("", &name, json!({"mode": "ReadOnly"})));
    let hold = serde_json::from_value(hold).unwrap();
    let hold = alice.holds.create(&PostParams::default(), &hold).await.unwrap();
    fleet.access(&name, Access::ReadOnly).await;
    updated_by(&fleet, &name, "alice").await;
    fleet.delete_hold(&hold.metadata.name.unwrap()).await;
    fleet.access(&name, Access::ReadWrite).await;
    // At once with its deletion, as from a file that declares a tenant gone.
    let gone = generated(objects::tenant(
        "actors-generated-gone",
        json!({"state": "Deprovisioned", "stateReason": "never used"}),
    ));
    let gone = serde_json::from_value(gone).unwrap();
    alice.tenants.create(&PostParams::default(), &gone).await.unwrap();
    assert_eq!(actors(&log("actors-generated").await, &["Created"])[0].1, "alice");
}

#[tokio::test]
async fn two_users_are_named_each_for_their_own_change() {
    let fleet = Fleet::new("actors-two").await;
    fleet.apply("actors-two", json!({})).await;
    fleet.ready("actors-two").await;
    let (alice, bob) = (by(&fleet, "alice").await, by(&fleet, "bob").await);
    // Before the operator can have seen the first.
    let merge = PatchParams::default();
    let state = Patch::Merge(json!({"spec": {"state": "Suspended", "stateReason": "unpaid"}}));
    let name = Patch::Merge(json!({"spec": {"displayName": "Two", "settings": {"token": "s3cret"}}}));
    let (one, two) = tokio::join!(
        alice.tenants.patch("actors-two", &merge, &state),
        bob.tenants.patch("actors-two", &merge, &name)
    );
    assert_ne!(one.unwrap().metadata.generation, two.unwrap().metadata.generation);
    fleet.access("actors-two", Access::Blocked).await;
    updated_by(&fleet, "actors-two", "alice").await;
    let log = log("actors-two").await;
    let updates: Vec<_> = log.iter().filter(|row| row.action == "Updated").collect();
    assert_eq!(updates.len(), 2, "{log:#?}");
    for row in updates {
        let fields: Vec<_> = row.details["fields"].as_object().unwrap().keys().map(String::as_str).collect();
        match row.actor.as_str() {
            "alice" => assert_eq!(fields, ["state", "stateReason"]),
            "bob" => assert_eq!(fields, ["displayName", "settings"]),
            other => panic!("{other}"),
        }
    }
    assert_eq!(actors(&log, &["Suspended"])[0].1, "alice");
    let text = format!("{log:?}");
    assert!(!text.contains("s3cret") && text.contains("token"), "{text}");
}

#[tokio::test]
async fn hold_is_named_for_its_user() {
    let fleet = Fleet::new("actors-hold").await;
    fleet.apply("actors-hold", json!({})).await;
    fleet.ready("actors-hold").await;
    by(&fleet, "billing-bot")
        .await
        .apply_hold("actors-billing", "actors-hold", json!({"mode": "ReadOnly"}))
        .await;
    let hold = fleet.hold_reason("actors-billing", "Verified").await;
    assert_eq!(hold.status.unwrap().placed_by.as_deref(), Some("billing-bot"));
    let status = fleet.access("actors-hold", Access::ReadOnly).await.status.unwrap();
    assert_eq!(status.holds[0].placed_by.as_deref(), Some("billing-bot"));
    updated_by(&fleet, "actors-hold", "billing-bot").await;
    // Another user changes it: it stays that of the first.
    by(&fleet, "carol").await.apply_hold("actors-billing", "actors-hold", json!({"mode": "Blocked"})).await;
    let status = fleet.access("actors-hold", Access::Blocked).await.status.unwrap();
    assert_eq!(status.holds[0].placed_by.as_deref(), Some("billing-bot"));
    updated_by(&fleet, "actors-hold", "carol").await;
    fleet.delete_hold("actors-billing").await;
    fleet.access("actors-hold", Access::ReadWrite).await;
    updated_by(&fleet, "actors-hold", "unknown (deletion)").await;
    let log = log("actors-hold").await;
    let expected = [
        ("HoldPlaced", "billing-bot"),
        ("Suspended", "billing-bot"),
        ("HoldPlaced", "carol"),
        ("SuspensionChanged", "carol"),
        ("HoldLifted", "unknown (deletion)"),
        ("Resumed", "unknown (deletion)"),
    ];
    let expected = expected.map(|(action, actor)| (action.to_owned(), actor.to_owned()));
    let actions = ["HoldPlaced", "HoldLifted", "Suspended", "SuspensionChanged", "Resumed"];
    assert_eq!(actors(&log, &actions), expected);
    // Why it was placed is not why it was lifted.
    let lifted = log.iter().find(|row| row.action == "HoldLifted").unwrap();
    assert_eq!(
        (lifted.reason.as_deref(), &lifted.details["placedFor"]),
        (None, &json!("held by actors-billing"))
    );
}

#[tokio::test]
async fn new_limits_are_named_for_the_user_who_changed_the_plan() {
    let fleet = Fleet::new("actors-plan").await;
    fleet.apply_plan("actors-plan", json!({"limits": {"users": 5}})).await;
    by(&fleet, "alice").await.apply("actors-plan", json!({"plan": "actors-plan"})).await;
    fleet.ready("actors-plan").await;
    by(&fleet, "erin").await.apply_plan("actors-plan", json!({"limits": {"users": 7}})).await;
    let wait = fleet.until("the change of the plan is logged");
    let changed = wait
        .observe(async || {
            let found = actors(&log("actors-plan").await, &["PlanChanged"]);
            if found.is_empty() { Err(found) } else { Ok(found) }
        })
        .await;
    assert_eq!(changed, [("PlanChanged".to_owned(), "erin".to_owned())]);
}
