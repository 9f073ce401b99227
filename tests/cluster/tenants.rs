//! What the tests of this run look at: the shared operator's tenants and its PostgreSQL.

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use sqlx::PgConnection;
use tenantry::api::plan::TenantPlan;

pub use crate::fleet::Fleet;
use crate::world::{self, ENVIRONMENT};

impl Fleet {
    /// A namespace of its own for one test.
    pub async fn new(namespace: &str) -> Self {
        let client = ENVIRONMENT.control_plane().client().await.unwrap();
        let namespace = world::namespace(&client, namespace).await;
        Self::of(client, &namespace, ENVIRONMENT.installation().operator().log())
    }

    /// Applies a TenantPlan, which is everybody's: each test has names of its own.
    pub async fn plan(&self, name: &str, spec: Value) -> TenantPlan {
        let plan = json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantPlan", "metadata": {"name": name}, "spec": spec,
        });
        let plans = Api::<TenantPlan>::all(self.client.clone());
        plans.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(plan)).await.unwrap()
    }
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
