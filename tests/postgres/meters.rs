//! Limits in the tenant's database, tested with the tenant's login.

mod connections;
mod declared;
mod mixture;
mod overlap;
mod reach;
mod snapshots;
mod statements;

use sqlx::{AssertSqlSafe, Executor, PgConnection, postgres::PgDatabaseError};
use tenantry::{
    domain::{
        record::ModuleVersion,
        usage::entitlements::{Amounts, Entitlements},
    },
    modules::{Migration, Module, ModuleSet},
    postgres::{Result, server::Server},
};
use tenantry_dev::Postgres;
use uuid::Uuid;

use crate::servers::{Tenant, ready};

/// A tenant with limits.
pub struct Limited {
    pub postgres: &'static Postgres,
    pub server: Server,
    pub tenant: Tenant,
}

impl Limited {
    pub async fn new(postgres: &'static Postgres, database: &str, limits: &[(&str, Option<i64>)]) -> Self {
        let server = ready(postgres).await;
        let tenant = Tenant::new(database);
        tenant.provision(&server, 1).await;
        let limited = Self { postgres, server, tenant };
        limited.apply(limits).await;
        limited
    }

    pub async fn apply(&self, limits: &[(&str, Option<i64>)]) -> Amounts {
        self.server.apply_limits(&self.tenant.placement, &entitlements(limits)).await.unwrap()
    }

    /// Runs SQL as a module.
    pub async fn migrate(&self, sql: &str) -> Result<Vec<ModuleVersion>> {
        let file = Migration { version: 1, file: "0001_test.sql".into(), sql: sql.to_owned().into() };
        let module = Module::new(format!("test_{}", Uuid::new_v4()), vec![file]);
        let mut modules = ModuleSet::built_in().modules().to_vec();
        modules.push(module);
        self.server.migrate(&self.tenant.placement, &ModuleSet::new(modules)).await?.into_result()
    }

    pub async fn session(&self) -> PgConnection {
        self.tenant.session(self.postgres).await.unwrap()
    }

    /// The counter of a limit, as the operator reads it.
    pub async fn used(&self, limit: &str) -> i64 {
        self.server.read_counters(&self.tenant.placement).await.unwrap()[limit]
    }
}

/// Checks the number of rows and the counter, as the tenant reads them.
pub async fn check(session: &mut PgConnection, table: &str, limit: &str, expected: i64) {
    let both = format!("SELECT (SELECT count(*) FROM {table}), used FROM tenantry.counters WHERE name = $1");
    let both: (i64, i64) = sqlx::query_as(AssertSqlSafe(both)).bind(limit).fetch_one(session).await.unwrap();
    assert_eq!(both, (expected, expected), "{table}, {limit}");
}

pub fn entitlements(limits: &[(&str, Option<i64>)]) -> Entitlements {
    Entitlements {
        plan: "test".into(),
        limits: limits.iter().map(|(name, maximum)| ((*name).to_owned(), *maximum)).collect(),
        ..Entitlements::default()
    }
}

/// The SQLSTATE of a result; empty if there was no error.
pub fn state<T>(outcome: sqlx::Result<T>) -> String {
    match outcome {
        Ok(_) => String::new(),
        Err(error) => reported(&error).code().to_owned(),
    }
}

pub fn reported(error: &sqlx::Error) -> &PgDatabaseError {
    let database = error.as_database_error().unwrap_or_else(|| panic!("{error}"));
    database.downcast_ref::<PgDatabaseError>()
}

/// Runs one or several statements.
pub async fn run(session: &mut PgConnection, statements: impl Into<String>) -> sqlx::Result<()> {
    session.execute(AssertSqlSafe(statements.into())).await.map(drop)
}
