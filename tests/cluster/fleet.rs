//! Tenants as the tests make and watch them.

use std::{path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
    runtime::wait::{Condition, await_condition},
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tenantry::api::{
    conditions::{IN_FORCE, READY, find_condition},
    tenant::Tenant,
    tenant_hold::TenantHold,
    tenant_status::Access,
};

/// Longer than anything should take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A namespace, and what is done in it.
pub struct Fleet {
    pub client: Client,
    pub tenants: Api<Tenant>,
    pub secrets: Api<Secret>,
    pub holds: Api<TenantHold>,
    log: PathBuf,
}

impl Fleet {
    /// In a namespace that exists, under an operator with this log.
    pub fn of(client: Client, namespace: &str, log: PathBuf) -> Self {
        Self {
            tenants: Api::namespaced(client.clone(), namespace),
            secrets: Api::namespaced(client.clone(), namespace),
            holds: Api::namespaced(client.clone(), namespace),
            client,
            log,
        }
    }

    /// Applies a Tenant whose slug is its name, with more spec over the least there is; null removes.
    pub async fn apply(&self, name: &str, more: Value) -> Tenant {
        self.try_apply(name, more).await.unwrap()
    }

    pub async fn try_apply(&self, name: &str, more: Value) -> kube::Result<Tenant> {
        let mut spec = json!({
            "slug": name, "displayName": name, "plan": "starter", "offboarding": {"gracePeriodSeconds": 0},
        });
        let fields = spec.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        fields.retain(|_, value| !value.is_null());
        let object = json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": spec,
        });
        self.tenants.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(object)).await
    }

    /// Waits for something to be true of a Tenant.
    pub async fn wait(&self, name: &str, what: &str, condition: impl Condition<Tenant>) -> Tenant {
        let waited =
            tokio::time::timeout(PATIENCE, await_condition(self.tenants.clone(), name, condition)).await;
        match waited {
            Ok(found) => found.unwrap().unwrap(),
            Err(_) => {
                let now = self
                    .tenants
                    .get(name)
                    .await
                    .map(|tenant| serde_json::to_string_pretty(&tenant.status).unwrap());
                panic!(
                    "{name} is not {what}: {}\n{}",
                    now.unwrap_or_else(|e| e.to_string()),
                    self.operator_log()
                )
            }
        }
    }

    /// Waits until a Tenant is Ready for what its spec says now.
    pub async fn ready(&self, name: &str) -> Tenant {
        self.wait(name, "Ready", is_ready()).await
    }

    /// Waits until `Ready` has a reason.
    pub async fn reason(&self, name: &str, type_: &'static str, reason: &'static str) -> Tenant {
        self.wait(name, reason, move |tenant: Option<&Tenant>| {
            tenant.and_then(|t| t.status.as_ref()).is_some_and(|status| {
                find_condition(&status.conditions, type_).is_some_and(|condition| condition.reason == reason)
            })
        })
        .await
    }

    /// Applies a TenantHold.
    pub async fn hold(&self, name: &str, tenant: &str, more: Value) -> TenantHold {
        let mut spec = json!({"tenant": tenant, "reason": format!("held by {name}")});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let object = json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantHold", "metadata": {"name": name}, "spec": spec,
        });
        self.holds.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(object)).await.unwrap()
    }

    /// Waits until a TenantHold's InForce has a reason.
    pub async fn hold_is(&self, name: &str, reason: &'static str) -> TenantHold {
        let so = move |hold: Option<&TenantHold>| {
            hold.and_then(|hold| hold.status.as_ref()).is_some_and(|status| {
                find_condition(&status.conditions, IN_FORCE).is_some_and(|found| found.reason == reason)
            })
        };
        match tokio::time::timeout(PATIENCE, await_condition(self.holds.clone(), name, so)).await {
            Ok(found) => found.unwrap().unwrap(),
            Err(_) => {
                panic!("{name} is not {reason}: {:?}\n{}", self.holds.get(name).await, self.operator_log())
            }
        }
    }

    /// Deletes a TenantHold and waits until it is gone.
    pub async fn unhold(&self, name: &str) {
        let uid = self.holds.get(name).await.unwrap().metadata.uid.unwrap();
        self.holds.delete(name, &DeleteParams::default()).await.unwrap();
        let gone = kube::runtime::conditions::is_deleted(&uid);
        let gone = tokio::time::timeout(PATIENCE, await_condition(self.holds.clone(), name, gone));
        assert!(gone.await.is_ok(), "{name} is not gone\n{}", self.operator_log());
    }

    /// Waits until a Tenant is Ready with this access, proven.
    pub async fn may(&self, name: &str, access: Access) -> Tenant {
        let ready = is_ready();
        self.wait(name, access.as_str(), move |tenant: Option<&Tenant>| {
            ready.matches_object(tenant)
                && tenant.and_then(|t| t.status.as_ref()).is_some_and(|status| status.access == Some(access))
        })
        .await
    }

    /// Deletes a Tenant and waits until it is gone.
    pub async fn delete(&self, name: &str) {
        let tenant = self.tenants.get(name).await.unwrap();
        self.tenants.delete(name, &DeleteParams::default()).await.unwrap();
        self.gone(name, &tenant).await;
    }

    /// Waits until a Tenant is gone.
    pub async fn gone(&self, name: &str, tenant: &Tenant) {
        let uid = tenant.metadata.uid.clone().unwrap();
        let gone = kube::runtime::conditions::is_deleted(&uid);
        if tokio::time::timeout(PATIENCE, await_condition(self.tenants.clone(), name, gone)).await.is_err() {
            let now = self.tenants.get(name).await.map(|t| serde_json::to_string_pretty(&t.status).unwrap());
            panic!("{name} is not gone: {now:?}\n{}", self.operator_log());
        }
    }

    /// The last lines of the operator's log, for a test that failed.
    pub fn operator_log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// An entry of a Secret.
    pub async fn secret(&self, name: &str, key: &str) -> String {
        let secret = self.secrets.get(name).await.unwrap();
        String::from_utf8(secret.data.unwrap()[key].0.clone()).unwrap()
    }

    /// Logs in as the tenant, with the `uri` of its connection Secret.
    pub async fn login(&self, name: &str) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.secret(&format!("{name}-db"), "uri").await).await
    }
}

/// `Ready` is True for the generation that is there.
pub fn is_ready() -> impl Condition<Tenant> {
    |tenant: Option<&Tenant>| {
        tenant.is_some_and(|tenant| {
            let Some(status) = &tenant.status else { return false };
            status.observed_generation == tenant.metadata.generation
                && find_condition(&status.conditions, READY).is_some_and(|ready| ready.status == "True")
        })
    }
}
