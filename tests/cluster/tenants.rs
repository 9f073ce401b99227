//! Tenants as the tests make and watch them.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
    runtime::wait::{Condition, await_condition},
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tenantry::api::{
    conditions::{READY, find_condition},
    tenant::Tenant,
};

use crate::world::{self, ENVIRONMENT};

/// Longer than anything should take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A namespace, and what is done in it.
pub struct Fleet {
    pub client: Client,
    pub tenants: Api<Tenant>,
    pub secrets: Api<Secret>,
}

impl Fleet {
    /// A namespace of its own for one test.
    pub async fn new(namespace: &str) -> Self {
        let client = ENVIRONMENT.control_plane().client().await.unwrap();
        let namespace = world::namespace(&client, namespace).await;
        Self {
            tenants: Api::namespaced(client.clone(), &namespace),
            secrets: Api::namespaced(client.clone(), &namespace),
            client,
        }
    }

    /// Applies a Tenant whose slug is its name, with more spec over the least that is accepted.
    pub async fn apply(&self, name: &str, more: Value) -> Tenant {
        self.try_apply(name, more).await.unwrap()
    }

    pub async fn try_apply(&self, name: &str, more: Value) -> kube::Result<Tenant> {
        let mut spec = json!({
            "slug": name, "displayName": name, "plan": "starter", "offboarding": {"gracePeriodSeconds": 0},
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
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
                panic!("{name} is not {what}: {}\n{}", now.unwrap_or_else(|e| e.to_string()), operator_log())
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
            panic!("{name} is not gone: {now:?}\n{}", operator_log());
        }
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

/// The last lines of the operator's log, for a test that failed.
pub fn operator_log() -> String {
    let log = std::fs::read_to_string(ENVIRONMENT.installation().operator().log()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// A superuser's session on the run's PostgreSQL.
pub async fn superuser(database: &str) -> PgConnection {
    ENVIRONMENT.installation().postgres().connect(database).await.unwrap()
}

/// One value, as the superuser.
pub async fn ask<T>(database: &str, query: &'static str, name: &str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(query).bind(name).fetch_one(&mut superuser(database).await).await.unwrap()
}

pub async fn database_exists(name: &str) -> bool {
    ask("postgres", "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).await
}

pub async fn role_exists(name: &str) -> bool {
    ask("postgres", "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name).await
}

/// The registry's status of the newest tenant with a slug.
pub async fn registry_status(slug: &str) -> Option<String> {
    sqlx::query_scalar("SELECT status FROM tenants WHERE slug = $1 ORDER BY created_at DESC LIMIT 1")
        .bind(slug)
        .fetch_optional(&mut superuser("tenantry_system").await)
        .await
        .unwrap()
}
