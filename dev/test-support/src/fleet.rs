//! The tenants of one namespace: applied, watched, deleted.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
    runtime::{conditions::is_deleted, wait::Condition},
};
use serde_json::Value;
use sqlx::PgConnection;
use tenantry::api::{
    conditions::{IN_FORCE, READY, find_condition},
    plan::TenantPlan,
    tenant::Tenant,
    tenant_hold::TenantHold,
    tenant_status::Access,
};

use crate::{Wait, objects, wait::tail};

/// A namespace, and the tenants, Secrets and holds in it.
#[derive(Clone)]
pub struct Fleet {
    /// A client of the cluster's administrator.
    pub client: Client,
    /// The Tenants.
    pub tenants: Api<Tenant>,
    /// The Secrets.
    pub secrets: Api<Secret>,
    /// The TenantHolds.
    pub holds: Api<TenantHold>,
    log: PathBuf,
}

impl Fleet {
    /// Of a namespace that exists, under an operator with this log.
    pub fn of(client: Client, namespace: &str, log: PathBuf) -> Self {
        Self {
            tenants: Api::namespaced(client.clone(), namespace),
            secrets: Api::namespaced(client.clone(), namespace),
            holds: Api::namespaced(client.clone(), namespace),
            client,
            log,
        }
    }

    /// Of another namespace, under the same operator.
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self::of(self.client.clone(), namespace, self.log.clone())
    }

    /// Applies a Tenant (`objects::tenant`).
    pub async fn apply(&self, name: &str, changes: Value) -> Tenant {
        self.try_apply(name, changes).await.unwrap()
    }

    /// Applies a Tenant, which may be refused.
    pub async fn try_apply(&self, name: &str, changes: Value) -> kube::Result<Tenant> {
        let tenant = objects::tenant(name, changes);
        self.tenants.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(tenant)).await
    }

    /// Applies a TenantPlan, which is cluster-scoped: each test has names of its own.
    pub async fn apply_plan(&self, name: &str, spec: Value) -> TenantPlan {
        let plans = Api::<TenantPlan>::all(self.client.clone());
        let plan = objects::plan(name, spec);
        plans.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(plan)).await.unwrap()
    }

    /// Applies a TenantHold (`objects::hold`).
    pub async fn apply_hold(&self, name: &str, tenant: &str, changes: Value) -> TenantHold {
        let hold = objects::hold(name, tenant, changes);
        self.holds.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(hold)).await.unwrap()
    }

    /// A wait whose failure shows the operator's log.
    pub fn until(&self, what: impl Into<String>) -> Wait {
        Wait::until(what).log(&self.log)
    }

    /// Waits until a condition holds for a Tenant.
    pub async fn wait(&self, name: &str, what: &str, condition: impl Condition<Tenant>) -> Tenant {
        self.until(format!("{name} is {what}")).object(&self.tenants, name, condition).await.unwrap()
    }

    /// Waits until a Tenant is Ready for its current generation.
    pub async fn ready(&self, name: &str) -> Tenant {
        self.wait(name, "Ready", is_ready()).await
    }

    /// Waits until these Tenants are Ready, each within this time: many share a server and, on a busy machine, a fraction of a
    /// processor.
    pub async fn all_ready(&self, names: &[String], within: Duration) -> Vec<Tenant> {
        join_all(names.iter().map(async |name| {
            let wait = self.until(format!("{name} is Ready")).within(within);
            wait.object(&self.tenants, name, is_ready()).await.unwrap()
        }))
        .await
    }

    /// Waits until a condition of a Tenant has a reason.
    pub async fn reason(&self, name: &str, type_: &'static str, reason: &'static str) -> Tenant {
        self.wait(name, reason, move |tenant: Option<&Tenant>| {
            tenant.and_then(|t| t.status.as_ref()).is_some_and(|status| {
                find_condition(&status.conditions, type_).is_some_and(|condition| condition.reason == reason)
            })
        })
        .await
    }

    /// Waits until `InForce` of a TenantHold has a reason.
    pub async fn hold_reason(&self, name: &str, reason: &'static str) -> TenantHold {
        let has_reason = move |hold: Option<&TenantHold>| {
            hold.and_then(|hold| hold.status.as_ref()).is_some_and(|status| {
                find_condition(&status.conditions, IN_FORCE).is_some_and(|found| found.reason == reason)
            })
        };
        let what = format!("hold {name} is {reason}");
        self.until(what).object(&self.holds, name, has_reason).await.unwrap()
    }

    /// Waits until a Tenant is Ready with this access, verified.
    pub async fn access(&self, name: &str, access: Access) -> Tenant {
        let ready = is_ready();
        self.wait(name, access.as_str(), move |tenant: Option<&Tenant>| {
            ready.matches_object(tenant)
                && tenant.and_then(|t| t.status.as_ref()).is_some_and(|status| status.access == Some(access))
        })
        .await
    }

    /// Deletes a TenantHold and waits until it does not exist.
    pub async fn delete_hold(&self, name: &str) {
        let uid = self.holds.get(name).await.unwrap().metadata.uid.unwrap();
        self.holds.delete(name, &DeleteParams::default()).await.unwrap();
        self.until(format!("hold {name} is deleted")).object(&self.holds, name, is_deleted(&uid)).await;
    }

    /// Deletes a Tenant and waits until it does not exist.
    pub async fn delete(&self, name: &str) {
        let tenant = self.tenants.get(name).await.unwrap();
        self.tenants.delete(name, &DeleteParams::default()).await.unwrap();
        self.deleted(name, &tenant).await;
    }

    /// Waits until this Tenant does not exist.
    pub async fn deleted(&self, name: &str, tenant: &Tenant) {
        let uid = tenant.metadata.uid.clone().unwrap();
        self.until(format!("{name} is deleted")).object(&self.tenants, name, is_deleted(&uid)).await;
    }

    /// The last lines of the operator's log, for a test that fails.
    pub fn operator_log(&self) -> String {
        tail(&self.log)
    }

    /// The operator's log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// An entry of a Secret.
    pub async fn secret(&self, name: &str, key: &str) -> String {
        let secret = self.secrets.get(name).await.unwrap();
        String::from_utf8(secret.data.unwrap()[key].0.clone()).unwrap()
    }

    /// Logs in as the tenant, with the `uri` of its connection Secret.
    pub async fn login(&self, name: &str) -> sqlx::Result<PgConnection> {
        crate::login(&self.secret(&format!("{name}-db"), "uri").await).await
    }
}

/// `Ready` is True for the current generation.
pub fn is_ready() -> impl Condition<Tenant> {
    |tenant: Option<&Tenant>| {
        tenant.is_some_and(|tenant| {
            let Some(status) = &tenant.status else { return false };
            status.observed_generation == tenant.metadata.generation
                && find_condition(&status.conditions, READY).is_some_and(|ready| ready.status == "True")
        })
    }
}
