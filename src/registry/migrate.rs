//! The registry's own migrations.
//!
//! A release runs on a schema that is newer than it knows, as long as the schema allows it: a migration expands, and a
//! later release contracts. `schema_compatibility` has the last migration that a release must know. What a migration that
//! contracts does is in docs/upgrades.md.

use std::borrow::Cow;

use sqlx::{ConnectOptions, Connection, PgConnection, migrate::Migrator, postgres::PgConnectOptions};

use super::{Error, Result};

/// `migrations/system`, embedded.
static MIGRATIONS: Migrator = sqlx::migrate!("migrations/system");

/// The last migration of the releases that refuse a registry with any migration that they do not know. They read the first
/// ledger only, so that later migrations are recorded in the second one.
const LAST_IN_FIRST_LEDGER: i64 = 8;

/// Where migrations up to `LAST_IN_FIRST_LEDGER` are recorded: sqlx's own table.
const FIRST_LEDGER: &str = "_sqlx_migrations";

/// Where later ones are recorded.
const SECOND_LEDGER: &str = "schema_migrations";

/// Runs the pending migrations under sqlx's advisory lock. On its own connection, which is closed afterwards: after a
/// failure sqlx keeps the lock, and a pooled connection would block every later run.
pub(super) async fn run(options: &PgConnectOptions) -> Result<()> {
    // Long enough for another process to finish its migrations.
    let options = options.clone().options([("lock_timeout", "10min"), ("statement_timeout", "10min")]);
    let mut connection = options.connect().await?;
    let outcome = migrate(&mut connection).await;
    let closed = connection.close().await;
    outcome?;
    closed?;
    Ok(())
}

async fn migrate(connection: &mut PgConnection) -> Result<()> {
    check(connection).await?;
    for (ledger, is_first) in [(FIRST_LEDGER, true), (SECOND_LEDGER, false)] {
        let recorded = MIGRATIONS.iter().filter(|one| (one.version <= LAST_IN_FIRST_LEDGER) == is_first);
        let mut migrator = Migrator::with_migrations(recorded.cloned().collect());
        migrator.table_name = Cow::Borrowed(ledger);
        // Those of a newer release, which this one can do without.
        migrator.set_ignore_missing(true);
        let outcome = migrator.run_direct(None, &mut *connection, false).await;
        outcome.map_err(|error| Error::Migration(Box::new(error)))?;
    }
    // Another process may have migrated while this one waited for the lock.
    check(connection).await
}

/// Refuses a schema that this release cannot use.
pub(super) async fn check(connection: &mut PgConnection) -> Result<()> {
    let recorded: bool = sqlx::query_scalar("SELECT to_regclass('public.schema_compatibility') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !recorded {
        return Ok(());
    }
    let needed: i64 =
        sqlx::query_scalar("SELECT oldest FROM schema_compatibility").fetch_one(connection).await?;
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    if needed > known { Err(Error::TooNew { needed, known }) } else { Ok(()) }
}
