//! The registry's own migrations.

use sqlx::{ConnectOptions, Connection, migrate::Migrator, postgres::PgConnectOptions};

use super::{Error, Result};

/// `migrations/system`, embedded.
static MIGRATIONS: Migrator = sqlx::migrate!("migrations/system");

/// Runs the pending migrations under sqlx's advisory lock. On its own connection, which is closed afterwards: after a
/// failure sqlx keeps the lock, and a pooled connection would block every later run.
pub(super) async fn run(options: &PgConnectOptions) -> Result<()> {
    // Long enough for another process to finish its migrations.
    let options = options.clone().options([("lock_timeout", "10min"), ("statement_timeout", "10min")]);
    let mut connection = options.connect().await?;
    let outcome = MIGRATIONS.run_direct(None, &mut connection, false).await;
    let closed = connection.close().await;
    outcome.map_err(|error| Error::Migration(Box::new(error)))?;
    closed?;
    Ok(())
}
