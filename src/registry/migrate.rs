//! The registry's own migrations.

use sqlx::{ConnectOptions, Connection, migrate::Migrator, postgres::PgConnectOptions};

use super::{Error, Result};

/// `migrations/system`, embedded.
static MIGRATIONS: Migrator = sqlx::migrate!("migrations/system");

/// Runs what has not run yet, under sqlx's advisory lock. On a connection of its own, closed afterwards: after a
/// failure sqlx keeps the lock, and a pooled connection would hold it against every later run.
pub(super) async fn run(options: &PgConnectOptions) -> Result<()> {
    // The lock is waited for as long as another process's migrations may take.
    let options = options.clone().options([("lock_timeout", "10min"), ("statement_timeout", "10min")]);
    let mut connection = options.connect().await?;
    let outcome = MIGRATIONS.run_direct(None, &mut connection, false).await;
    let closed = connection.close().await;
    outcome.map_err(|error| Error::Migration(Box::new(error)))?;
    closed?;
    Ok(())
}
