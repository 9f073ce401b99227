//! PostgreSQL servers and sessions of a test's own.

use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};
use tenantry::postgres::{
    install::setup::{SetupOptions, server_setup},
    tenant::credentials::SecretText,
};
use tenantry_dev::{Postgres, PostgresOptions};

/// The operator's login on a server of `prepared_postgres`.
pub(crate) const LOGIN: &str = "second_operator";
/// Its password.
pub(crate) const PASSWORD: &str = "second-password";

/// A PostgreSQL that is set up for an operator, and holds no registry.
pub async fn prepared_postgres(options: PostgresOptions) -> Postgres {
    let postgres = Postgres::start(options).await.unwrap();
    let setup =
        SetupOptions { operator: LOGIN.into(), password: SecretText::new(PASSWORD), system_database: None };
    server_setup(postgres.admin_url("postgres").parse().unwrap(), &setup).await.unwrap();
    postgres
}

/// Logs in with a URI that was read from a Secret before.
pub async fn login(uri: &str) -> sqlx::Result<PgConnection> {
    uri.parse::<PgConnectOptions>()?.connect().await
}
