//! Applies modules' SQL in one database.
//!
//! The ledger is not sqlx's: it is one table for all modules, so that the tenant's login reads all versions with one
//! query; a failure names module, file, line and column; a file that ends its own transaction is detected. No lock is
//! taken in the database, since a tenant could hold it for any time: the registry allows one workflow per tenant.

use sqlx::{Acquire, PgConnection, Row, postgres::PgErrorPosition};

use crate::{
    domain::placement::Placement,
    modules::{Migration, Module, ModuleSet, ModuleVersion, hexadecimal},
    postgres::{
        error::{Error, Result, bounded, code, describe, is_transient, reported},
        identifier::module_sql,
        migration_error::MigrationError,
        server::Server,
    },
};

/// The versions in a database, from the ledger.
pub(super) const VERSIONS: &str = "SELECT module, max(version) AS version, pg_backend_pid() AS pid FROM tenantry.migrations GROUP BY module ORDER BY min(applied_at), module";

impl Server {
    /// Brings a tenant's database to the target versions, and returns the versions that are then in force.
    pub async fn migrate(&self, placement: &Placement, modules: &ModuleSet) -> Result<Vec<ModuleVersion>> {
        let mut migrator = self.open_migrator_session(placement, "connect to migrate").await?;
        let result = apply(&mut migrator.session, modules).await;
        self.close_migrator_session(migrator, placement, result).await
    }
}

/// Applies the files that are not applied yet, each in a transaction of its own together with its ledger entry, and
/// returns the versions that are then in force. The session is `tenantry_migrator`'s.
pub(in crate::postgres) async fn apply(
    session: &mut PgConnection,
    modules: &ModuleSet,
) -> Result<Vec<ModuleVersion>> {
    let applied = sqlx::query("SELECT module, version, checksum FROM tenantry.migrations")
        .fetch_all(&mut *session)
        .await
        .map_err(Error::sql("read the migration ledger"))?;
    let applied: Vec<(String, i32, Vec<u8>)> = applied
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
        .collect::<Result<_, sqlx::Error>>()
        .map_err(Error::sql("read the migration ledger"))?;
    for module in modules.modules() {
        for migration in module.migrations.iter() {
            match applied
                .iter()
                .find(|(name, version, _)| *name == module.name && *version == migration.version)
            {
                Some((.., checksum)) if migration.is_applied_by(checksum) => {}
                Some((.., checksum)) => {
                    let message = format!(
                        "was changed after it had been applied; put it back, or, if it is a correction for the tenants \
                         that do not have it yet, begin the file with `-- replaces: {}`",
                        hexadecimal(checksum)
                    );
                    return Err(failed(module, migration, &message, false));
                }
                None => run(session, module, migration).await?,
            }
        }
    }
    versions(session).await
}

/// The versions in force.
pub(super) async fn versions(session: &mut PgConnection) -> Result<Vec<ModuleVersion>> {
    let rows =
        sqlx::query(VERSIONS).fetch_all(session).await.map_err(Error::sql("read the migration ledger"))?;
    rows.iter()
        .map(|row| Ok(ModuleVersion { name: row.try_get("module")?, version: row.try_get("version")? }))
        .collect::<Result<_, sqlx::Error>>()
        .map_err(Error::sql("read the migration ledger"))
}

async fn run(session: &mut PgConnection, module: &Module, migration: &Migration) -> Result<()> {
    let broken = |error: sqlx::Error| located(module, migration, &error);
    let mut transaction = session.begin().await.map_err(broken)?;
    // A file that commits or rolls back destroys the savepoint.
    sqlx::raw_sql("SAVEPOINT tenantry_file").execute(&mut *transaction).await.map_err(broken)?;
    // A function that the file registers is the module's, which messages name.
    let module_name =
        sqlx::query("SELECT set_config('tenantry.module', $1, true)").bind(module.name.as_ref());
    module_name.execute(&mut *transaction).await.map_err(broken)?;
    sqlx::raw_sql(module_sql(migration)).execute(&mut *transaction).await.map_err(broken)?;
    if let Err(error) = sqlx::raw_sql("RELEASE SAVEPOINT tenantry_file").execute(&mut *transaction).await {
        return Err(match code(&error) {
            Some("3B001" | "25P01") => failed(
                module,
                migration,
                "ends its own transaction: remove COMMIT or ROLLBACK. Its statements before that may be in the database",
                false,
            ),
            _ => broken(error),
        });
    }
    // The file may have changed the role, the search_path or a timeout; the next one starts without that.
    sqlx::raw_sql("RESET ALL; RESET ROLE").execute(&mut *transaction).await.map_err(broken)?;
    sqlx::query("INSERT INTO tenantry.migrations (module, version, file, checksum) VALUES ($1, $2, $3, $4)")
        .bind(module.name.as_ref())
        .bind(migration.version)
        .bind(migration.file.as_ref())
        .bind(migration.checksum())
        .execute(&mut *transaction)
        .await
        .map_err(broken)?;
    transaction.commit().await.map_err(broken)
}

fn failed(module: &Module, migration: &Migration, message: &str, transient: bool) -> Error {
    Error::Migration(Box::new(MigrationError {
        module: module.name.to_string(),
        version: migration.version,
        file: migration.file.to_string(),
        line: None,
        column: None,
        message: message.to_owned(),
        sql_state: None,
        transient,
    }))
}

fn located(module: &Module, migration: &Migration, error: &sqlx::Error) -> Error {
    let position = reported(error).and_then(|error| match error.position() {
        Some(PgErrorPosition::Original(position)) => Some(position),
        _ => None,
    });
    let (line, column) = position.map(|position| line_and_column(&migration.sql, position)).unzip();
    Error::Migration(Box::new(MigrationError {
        module: module.name.to_string(),
        version: migration.version,
        file: migration.file.to_string(),
        line,
        column,
        message: bounded(describe(error)),
        sql_state: code(error).map(str::to_owned),
        transient: is_transient(error),
    }))
}

/// PostgreSQL counts characters from 1.
fn line_and_column(sql: &str, position: usize) -> (usize, usize) {
    let before = sql.chars().take(position.saturating_sub(1));
    before.fold((1, 1), |(line, column), c| if c == '\n' { (line + 1, 1) } else { (line, column + 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_become_lines_and_columns() {
        let sql = "SELECT 1;\nSELECT ü, x;\n";
        assert_eq!(line_and_column(sql, 1), (1, 1));
        assert_eq!(line_and_column(sql, 11), (2, 1));
        assert_eq!(line_and_column(sql, 21), (2, 11));
    }
}
