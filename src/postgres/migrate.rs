//! Modules' SQL in one database.
//!
//! The ledger is our own and not sqlx's: it is one table for all modules, so that the tenant's own login reads all
//! versions with one query; a failure names module, file, line and column; a file that ends its own transaction is
//! found out. No lock is taken in the database: a tenant could hold it for ever. The registry lets one workflow at
//! a tenant at a time.

use sqlx::{Acquire, PgConnection, Row, postgres::PgErrorPosition};

use super::{
    connect::{ANSWER_LIMIT, within},
    error::{Error, Result, bounded, code, describe, is_transient, reported},
    identifier::{Ident, module_sql},
    modules::{Migration, Module, ModuleSet, ModuleVersion},
};

/// What `tenantry_owner` prepares in a new database before any module: who may do what with the objects it makes.
/// Nobody gets TRUNCATE. (EXECUTE is taken from PUBLIC in the global form: `IN SCHEMA` has no effect.)
pub(super) const BOOTSTRAP: &str = "\
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO tenantry_rw;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA public GRANT SELECT, DELETE ON TABLES TO tenantry_shrink;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA public GRANT SELECT ON TABLES TO tenantry_ro;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA public
    GRANT SELECT, USAGE, UPDATE ON SEQUENCES TO tenantry_rw;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA public
    GRANT SELECT ON SEQUENCES TO tenantry_shrink, tenantry_ro;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO tenantry_rw;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA tenantry
    GRANT SELECT ON TABLES TO tenantry_rw, tenantry_shrink, tenantry_ro;
CREATE TABLE tenantry.migrations (
    module     text        NOT NULL,
    version    integer     NOT NULL,
    file       text        NOT NULL,
    checksum   bytea       NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (module, version)
)";

/// The versions in a database, as everybody who may read the ledger sees them.
pub(super) const VERSIONS: &str = "SELECT module, max(version) AS version, pg_backend_pid() AS pid FROM tenantry.migrations GROUP BY module ORDER BY min(applied_at), module";

/// Where and why a module's SQL failed.
#[derive(Debug, thiserror::Error)]
#[error("module {module}, version {version}, {file}{}: {message}", place(*.line, *.column))]
pub struct MigrationError {
    /// The module.
    pub module: String,
    /// The version that failed; those before it are applied.
    pub version: i32,
    /// The file.
    pub file: String,
    /// The line in it, from 1, if the server said.
    pub line: Option<usize>,
    /// The column, from 1.
    pub column: Option<usize>,
    /// What the server said.
    pub message: String,
    /// The SQLSTATE.
    pub sql_state: Option<String>,
    /// Whether the same file may work a moment later (a lock, a full disk, a lost connection).
    pub transient: bool,
}

fn place(line: Option<usize>, column: Option<usize>) -> String {
    match (line, column) {
        (Some(line), Some(column)) => format!(" line {line} column {column}"),
        _ => String::new(),
    }
}

/// Applies what is not applied yet, each file in a transaction of its own together with its ledger entry, and
/// returns the versions that are then in force. The session is `tenantry_migrator`'s.
pub(super) async fn apply(session: &mut PgConnection, modules: &ModuleSet) -> Result<Vec<ModuleVersion>> {
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
                Some((.., checksum)) if *checksum == migration.checksum() => {}
                Some(_) => {
                    return Err(failed(module, migration, "was changed after it had been applied", false));
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
    // A file that commits or rolls back takes the savepoint with it.
    sqlx::raw_sql("SAVEPOINT tenantry_file").execute(&mut *transaction).await.map_err(broken)?;
    sqlx::raw_sql(module_sql(migration)).execute(&mut *transaction).await.map_err(broken)?;
    if let Err(error) = sqlx::raw_sql("RELEASE SAVEPOINT tenantry_file").execute(&mut *transaction).await {
        return Err(match code(&error) {
            Some("3B001" | "25P01") => failed(
                module,
                migration,
                "ends its own transaction: remove COMMIT or ROLLBACK. What it did before may be in the database",
                false,
            ),
            _ => broken(error),
        });
    }
    // The file may have left a role, a search_path or a timeout behind; the next one starts as this one did.
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

/// The process that serves a session.
pub(super) async fn pid(session: &mut PgConnection) -> Option<i32> {
    let query = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(session);
    within(ANSWER_LIMIT, "ask for the process", query).await.ok()
}

/// Says which database is missing.
pub(super) fn missing(error: Error, database: &Ident) -> Error {
    if error.sql_state().as_deref() == Some("3D000") {
        return Error::DatabaseMissing(database.to_string());
    }
    error
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
