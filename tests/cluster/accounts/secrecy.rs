//! What a customer's administrator can read is searched for every word that is not theirs to know.

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
    discovery::{Discovery, Scope, verbs},
};
use serde_json::{Value, json};
use tenantry::api::{tenant_account::TenantAccount, tenant_status::TenantState};
use tenantry_test_support::{objects, shared_operator::ENVIRONMENT};

use super::Stage;

const ADMIN: &str = "admin@acme.example";

/// The rights of a customer's administrator, who may read Events too, in their own namespace.
async fn grant(stage: &Stage) {
    let rbac = "rbac.authorization.k8s.io";
    let role = json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role",
        "metadata": {"name": "admin", "namespace": stage.home},
        "rules": [
            {"apiGroups": ["tenantry.dev"], "resources": ["tenantaccounts"],
                "verbs": ["get", "list", "watch", "update", "patch"]},
            {"apiGroups": ["", "events.k8s.io"], "resources": ["events", "secrets", "configmaps"],
                "verbs": ["get", "list", "watch"]}]});
    let binding = json!({"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding",
        "metadata": {"name": "admin", "namespace": stage.home},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "admin"},
        "subjects": [{"apiGroup": rbac, "kind": "User", "name": ADMIN}]});
    let kubectl = ENVIRONMENT.control_plane().kubectl();
    kubectl.apply(&objects::list(&[role, binding]).to_string()).await.unwrap();
}

/// A client of the administrator, with no other rights than those.
async fn admin() -> Client {
    let mut config = ENVIRONMENT.control_plane().config().await.unwrap();
    config.auth_info.impersonate = Some(ADMIN.to_owned());
    Client::try_from(config).unwrap()
}

/// Everything in a namespace that this client may list, as text.
async fn readable(client: &Client, namespace: &str) -> (usize, String) {
    let discovered = Discovery::new(ENVIRONMENT.control_plane().client().await.unwrap()).run().await.unwrap();
    let mut found = Vec::new();
    for group in discovered.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if capabilities.scope == Scope::Namespaced && capabilities.supports_operation(verbs::LIST) {
                found.extend(list(client, namespace, &resource).await);
            }
        }
    }
    (found.len(), json!(found).to_string())
}

async fn list(client: &Client, namespace: &str, resource: &ApiResource) -> Vec<Value> {
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, resource);
    match api.list(&ListParams::default()).await {
        Ok(listed) => listed.items.iter().map(|object| json!(object)).collect(),
        // Not readable.
        Err(kube::Error::Api(answer)) if answer.code == 403 || answer.code == 404 || answer.code == 405 => {
            vec![]
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn no_word_of_a_reason_a_hold_or_another_tenant_is_readable() {
    let stage = Stage::new("acc-secret").await;
    grant(&stage).await;
    let admin = admin().await;
    // Another tenant, in the same namespace of Tenants, on the same plan and server.
    let neighbour =
        json!({"displayName": "MARKER-neighbour", "plan": "acc-secret", "settings": {"x": "MARKER-set"}});
    let rules = json!({"settings": ["theme"], "plans": []});
    let spec = json!({"settings": {"theme": "light", "internal": "MARKER-internal"},
        "admins": [{"email": "marker-admin@acme.example"}], "limits": {"markerLimit": 5},
        "offboarding": {"reason": "MARKER-offboarding", "gracePeriodSeconds": 3600}});
    stage.apply(rules.clone(), spec.clone()).await;
    stage.fleet.apply("marker-neighbour", neighbour).await;
    stage.fleet.ready("acc-secret").await;
    stage.fleet.ready("marker-neighbour").await;
    stage.current().await;
    stage.edit(json!({"displayName": "Acme Inc", "settings": {"internal": "mine"}})).await;
    stage.counts("Acme Inc", &json!("light")).await;

    let with = |more: Value| {
        let mut changed = spec.clone();
        changed.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        changed
    };
    let search = async |what: &str, state: TenantState| {
        let is_shown = |account: &TenantAccount| {
            account.status.as_ref().is_some_and(|status| status.state == Some(state))
        };
        stage.shown(what, is_shown).await;
        let (count, text) = readable(&admin, &stage.home).await;
        assert!(count >= 1 && text.contains("Acme Inc"), "the administrator sees the account: {text}");
        let text = text.to_lowercase();
        let at = text
            .find("marker")
            .map(|at| text[at.saturating_sub(200)..].chars().take(400).collect::<String>());
        assert_eq!(at, None, "{what}");
        for word in ["customers", "postgres", "127.0.0.1", "tenant_acc_secret", "acc-secret-db"] {
            assert!(!text.contains(word), "{what}: {word}");
        }
    };
    search("in use", TenantState::Active).await;
    for (hold, mode) in [("marker-billing", "ReadOnly"), ("marker-legal", "Blocked")] {
        let reason =
            json!({"mode": mode, "reason": format!("MARKER of {hold}"), "trigger": "PaymentFailure"});
        stage.fleet.apply_hold(hold, "acc-secret", reason).await;
        stage.fleet.hold_reason(hold, "Verified").await;
    }
    search("held", TenantState::Suspended).await;
    let suspended = json!({"state": "Suspended", "stateReason": "MARKER-state",
        "suspension": {"trigger": "TermsViolation"}, "gates": [{"name": "marker-gate"}]});
    stage.apply(rules.clone(), with(suspended)).await;
    stage.fleet.ready("acc-secret").await;
    search("suspended", TenantState::Suspended).await;
    // What the operator cannot do is not shown with its text.
    stage.apply(rules.clone(), with(json!({"modules": [{"name": "marker-module"}]}))).await;
    stage.fleet.reason("acc-secret", "Ready", "ModuleNotFound").await;
    search("a spec that is wrong", TenantState::Suspended).await;
    let leaving = json!({"state": "Deprovisioned", "stateReason": "MARKER-end"});
    stage.apply(rules, with(leaving)).await;
    search("leaving", TenantState::Deprovisioning).await;

    // Nothing else than the account can be changed or read.
    let tenants = Api::<tenantry::api::tenant::Tenant>::namespaced(
        admin.clone(),
        stage.fleet.tenants.namespace().unwrap(),
    );
    assert!(tenants.get("acc-secret").await.is_err() && tenants.list(&ListParams::default()).await.is_err());
}
