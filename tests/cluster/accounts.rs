//! The customer's own view of a tenant: where it is made, what is edited there, and what is never seen there.

mod places;
mod requests;
mod secrecy;

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
    runtime::conditions::is_deleted,
};
use serde_json::{Value, json};
use tenantry::api::{
    LABEL_ACCOUNTS, LABEL_TENANT_ID,
    conditions::{ACCOUNT_SHOWN, READY, find_condition},
    tenant_account::TenantAccount,
    tenant_status::TenantState,
};
use tenantry_test_support::{
    Fleet,
    shared_operator::{ENVIRONMENT, ask, namespace, superuser},
    users::{LoggedActivity, activity},
};

/// A tenant with a plan of its own, and the namespace of its customer.
struct Stage {
    fleet: Fleet,
    name: &'static str,
    /// The customer's namespace.
    home: String,
    accounts: Api<TenantAccount>,
}

impl Stage {
    /// With a namespace that may have accounts.
    async fn new(name: &'static str) -> Self {
        let stage = Self::closed(name).await;
        stage.label(&stage.home, json!("true")).await;
        stage
    }

    /// With a namespace that may not.
    async fn closed(name: &'static str) -> Self {
        let fleet = Fleet::new(name).await;
        let home = namespace(&fleet.client, &format!("{name}-home")).await;
        let accounts = Api::namespaced(fleet.client.clone(), &home);
        Self { fleet, name, home, accounts }
    }

    /// Sets the label that allows accounts; null removes it.
    async fn label(&self, namespace: &str, value: Value) {
        let patch = json!({"metadata": {"labels": {LABEL_ACCOUNTS: value}}});
        let namespaces = Api::<Namespace>::all(self.fleet.client.clone());
        namespaces.patch(namespace, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Applies the plan, and the Tenant with it.
    async fn apply(&self, self_service: Value, mut changes: Value) {
        self.fleet.apply_plan(self.name, json!({"selfService": self_service})).await;
        for (field, value) in [("plan", json!(self.name)), ("accountNamespace", json!(self.home))] {
            if changes.get(field).is_none() {
                changes[field] = value;
            }
        }
        self.fleet.apply(self.name, changes).await;
    }

    /// The account, as the customer's administrator edits it.
    async fn edit(&self, spec: Value) -> TenantAccount {
        self.patch_as("owner@acme.example", json!({"spec": spec})).await.unwrap()
    }

    async fn patch_as(&self, user: &str, patch: Value) -> kube::Result<TenantAccount> {
        let client = self.fleet.by(ENVIRONMENT.control_plane(), user).await.client;
        let accounts = Api::<TenantAccount>::namespaced(client, &self.home);
        accounts.patch(self.name, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    /// Waits until the account is as wanted; returns it.
    async fn shown(&self, what: &str, is_wanted: impl Fn(&TenantAccount) -> bool) -> TenantAccount {
        let wait = self.fleet.until(format!("the account of {} shows: {what}", self.name));
        wait.observe(async || match self.accounts.get_opt(self.name).await.unwrap() {
            Some(found) if is_wanted(&found) => Ok(found),
            other => Err(other),
        })
        .await
    }

    /// Waits until the account describes its present spec; returns it.
    async fn current(&self) -> TenantAccount {
        self.shown("its present spec", |account| {
            let status = account.status.clone().unwrap_or_default();
            status.observed_generation == account.metadata.generation && ready(account).0 != "AccountPending"
        })
        .await
    }

    async fn is_gone(&self) {
        let wait = self.fleet.until(format!("the account of {} is gone", self.name));
        wait.is_true(async || self.accounts.get_opt(self.name).await.unwrap().is_none()).await;
    }

    /// Waits until the customer's name and a setting are these, in the registry.
    async fn counts(&self, name: &str, theme: &Value) {
        let query = "SELECT jsonb_build_array(name, settings -> 'theme') FROM tenants WHERE slug = $1
                     ORDER BY created_at DESC LIMIT 1";
        let wait = self.fleet.until(format!("{name:?} and {theme} count for {}", self.name));
        wait.observe(async || {
            let found: Value = ask("tenantry_system", query, self.name).await;
            if found == json!([name, theme]) { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// The setting in the tenant's own database.
    async fn setting(&self) -> Value {
        let mut session = self.fleet.login(self.name).await.unwrap();
        let query = "SELECT value FROM tenantry.settings WHERE key = 'theme'";
        sqlx::query_scalar(query).fetch_one(&mut session).await.unwrap()
    }

    async fn log(&self) -> Vec<LoggedActivity> {
        activity(&mut superuser("tenantry_system").await, self.name).await
    }
}

/// Reason and message of `Ready` of an account.
fn ready(account: &TenantAccount) -> (String, String) {
    let conditions = account.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    find_condition(&conditions, READY)
        .map(|found| (found.reason.clone(), found.message.clone()))
        .unwrap_or_default()
}

#[tokio::test]
async fn account_is_edited_and_wins_while_the_tenant_is_applied_again() {
    let stage = Stage::new("acc-edit").await;
    let declared = json!({"settings": {"theme": "light", "region": "eu"}});
    stage.apply(json!({"settings": ["theme"]}), declared.clone()).await;
    let tenant = stage.fleet.ready("acc-edit").await;
    let account = stage.current().await;
    let status = account.status.unwrap();
    assert_eq!(status.display_name.as_deref(), Some("acc-edit"));
    assert_eq!(status.plan.as_deref(), Some("acc-edit"));
    assert_eq!(status.state, Some(TenantState::Active));
    assert_eq!(status.limits, tenant.status.clone().unwrap().limits);
    assert_eq!(status.editable_settings, ["theme"]);
    assert_eq!(json!(account.spec), json!({}));
    stage.fleet.reason("acc-edit", ACCOUNT_SHOWN, "AccountCurrent").await;

    stage.edit(json!({"displayName": "Acme Inc", "settings": {"theme": "dark", "region": "us"}})).await;
    stage.counts("Acme Inc", &json!("dark")).await;
    let account = stage.current().await;
    let (reason, message) = ready(&account);
    assert_eq!(reason, "NotAllowed");
    assert!(message.contains("settings.region cannot be edited with this plan"), "{message}");
    assert_eq!(account.status.unwrap().display_name.as_deref(), Some("Acme Inc"));
    assert_eq!(stage.setting().await, "dark");
    stage.edit(json!({"settings": {"region": null}})).await;
    assert_eq!(ready(&stage.current().await).0, "AccountCurrent");

    // A GitOps tool applies the Tenant again and again, and a person changes it.
    for n in 0..3 {
        stage.apply(json!({"settings": ["theme"]}), declared.clone()).await;
        let mut changed = declared.clone();
        changed["settings"]["count"] = json!(n);
        stage.apply(json!({"settings": ["theme"]}), changed).await;
        stage.fleet.ready("acc-edit").await;
        stage.counts("Acme Inc", &json!("dark")).await;
        let spec = stage.fleet.tenants.get("acc-edit").await.unwrap().spec;
        assert_eq!((spec.display_name.as_str(), &spec.settings["theme"]), ("acc-edit", &json!("light")));
    }
    assert_eq!(stage.setting().await, "dark");

    // Each change is a row, named for who made it, with old and new values.
    let updates: Vec<_> =
        stage.log().await.into_iter().filter(|row| row.action == "AccountUpdated").collect();
    assert_eq!(updates.len(), 2, "{updates:#?}");
    assert!(updates.iter().all(|row| row.actor == "owner@acme.example"), "{updates:#?}");
    assert_eq!(updates[0].details["fields"]["displayName"], json!({"to": "Acme Inc"}));
    assert_eq!(updates[1].details["fields"]["settings"]["removed"], json!(["region"]));

    // A plan that allows less, and the Tenant without the field.
    stage.fleet.apply_plan("acc-edit", json!({"selfService": {"settings": ["region"]}})).await;
    stage.counts("Acme Inc", &json!("light")).await;
    stage.fleet.apply_plan("acc-edit", json!({"selfService": {"settings": ["theme"]}})).await;
    stage.counts("Acme Inc", &json!("dark")).await;
    let mut without = declared.clone();
    without["accountNamespace"] = Value::Null;
    stage.apply(json!({"settings": ["theme"]}), without).await;
    stage.counts("acc-edit", &json!("light")).await;
    stage.is_gone().await;
    let tenant = stage.fleet.ready("acc-edit").await;
    assert!(find_condition(&tenant.status.unwrap().conditions, ACCOUNT_SHOWN).is_none());
}

#[tokio::test]
async fn account_that_is_deleted_or_changed_by_hand_comes_back_as_it_was() {
    let stage = Stage::new("acc-back").await;
    let rules = json!({"settings": ["theme"]});
    stage.apply(rules.clone(), json!({})).await;
    stage.fleet.ready("acc-back").await;
    stage.current().await;
    stage.edit(json!({"displayName": "Acme Inc", "settings": {"theme": "dark"}})).await;
    stage.counts("Acme Inc", &json!("dark")).await;
    let uid = stage.current().await.metadata.uid.unwrap();
    stage.accounts.delete("acc-back", &DeleteParams::default()).await.unwrap();
    stage.fleet.until("it is deleted").object(&stage.accounts, "acc-back", is_deleted(&uid)).await;
    let account = stage.current().await;
    assert_ne!(account.metadata.uid.unwrap(), uid);
    assert_eq!(json!(account.spec), json!({"displayName": "Acme Inc", "settings": {"theme": "dark"}}));
    stage.counts("Acme Inc", &json!("dark")).await;

    // The mark: it is still ours, by what only the operator writes.
    let id = account.status.unwrap().tenant_id.unwrap();
    let label = |found: &TenantAccount| found.metadata.labels.as_ref()?.get(LABEL_TENANT_ID).cloned();
    for value in [json!("00000000-0000-0000-0000-000000000000"), Value::Null] {
        stage.patch_as("owner", json!({"metadata": {"labels": {LABEL_TENANT_ID: value}}})).await.unwrap();
        stage.shown("the tenant's label", |found| label(found).as_ref() == Some(&id)).await;
    }
    // What is never allowed is refused by the API server.
    for (spec, message) in [
        (json!({"displayName": " "}), "displayName must not be empty"),
        (json!({"displayName": "a\nb"}), "displayName must be text of one line"),
        (json!({"planRequest": {"plan": "-"}}), "planRequest.plan must be the name of a plan"),
        (json!({"exportRequest": {}}), "Required value"),
        (json!({"settings": {"theme": null}}), ""),
    ] {
        let patched = stage.patch_as("owner", json!({"spec": spec})).await;
        match message {
            // A merge patch removes it.
            "" => assert_eq!(patched.unwrap().spec.settings.get("theme"), None),
            message => {
                let error = patched.unwrap_err().to_string();
                assert!(error.contains(message), "{error}");
            }
        }
    }
}
