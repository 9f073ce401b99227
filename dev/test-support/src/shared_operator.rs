//! One operator for all tests of a process, on one control plane and one PostgreSQL. Every test has a namespace of its own.

use std::sync::LazyLock;

use kube::Client;
use sqlx::PgConnection;
use tenantry_dev::{Environment, EnvironmentOptions};

use crate::{
    Fleet,
    audit::audited,
    world::{QUICK_DRIFT_CHECK, create_namespace},
};

/// The control plane, PostgreSQL and the operator, with the CRDs, the plans and the server `default`. All of it ends with
/// the process.
pub static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let mut options = EnvironmentOptions { tenantry: crate::tenantry(), ..EnvironmentOptions::default() };
    options.installation.arguments.push(QUICK_DRIFT_CHECK.to_owned());
    options.installation.records_users = true;
    options.control_plane = audited();
    Environment::start_blocking(options).unwrap()
});

/// A client of the cluster's administrator. It belongs to the runtime of its test.
pub async fn client() -> Client {
    ENVIRONMENT.control_plane().client().await.unwrap()
}

/// Creates a namespace; returns its name.
pub async fn namespace(client: &Client, name: &str) -> String {
    create_namespace(client, name).await;
    name.to_owned()
}

impl Fleet {
    /// The tenants of a new namespace, under the shared operator.
    pub async fn new(name: &str) -> Self {
        let client = client().await;
        let namespace = namespace(&client, name).await;
        Self::of(client, &namespace, ENVIRONMENT.installation().operator().log())
    }
}

/// A superuser's session on the shared PostgreSQL.
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

/// Whether a database exists.
pub async fn database_exists(name: &str) -> bool {
    ask("postgres", "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).await
}

/// Whether a role exists.
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
