//! Applies modules' SQL in one database.
//!
//! The ledger is not sqlx's: it is one table for all modules, so that the tenant's login reads all versions with one
//! query; a failure names module, file, line and column; a file that ends its own transaction is detected. No lock is
//! taken in the database, since a tenant could hold it for any time: the registry allows one workflow per tenant.

mod awaited;
mod extensions;
pub(in crate::postgres) mod file;
pub(in crate::postgres) mod named;
mod prepare;
pub(in crate::postgres) mod stepwise;

use std::collections::HashMap;

use sqlx::{PgConnection, Row};

pub use self::awaited::Awaited;
pub(super) use self::prepare::run_as_dba;
pub(in crate::postgres) use self::prepare::{OpenDatabase, prepare};
use self::{
    awaited::Applied,
    file::{ModuleFile, reset},
};
use crate::{
    domain::placement::Placement,
    modules::{INTERNAL, Module, ModuleKind, ModuleSet, ModuleVersion, hexadecimal},
    postgres::{
        error::{Error, Result},
        server::Server,
    },
};

/// The versions in a database, from the ledger.
pub(super) const VERSIONS: &str = "SELECT module, max(version) AS version, pg_backend_pid() AS pid FROM tenantry.migrations GROUP BY module ORDER BY min(applied_at), module";

/// What a migration came to: a result for each module, in order.
#[derive(Debug)]
pub struct Migrated {
    /// The modules of the set.
    pub modules: Vec<ModuleOutcome>,
    /// The versions that are in force in the database.
    pub versions: Vec<ModuleVersion>,
}

/// What a migration came to for one module.
#[derive(Debug)]
pub struct ModuleOutcome {
    /// The module.
    pub name: String,
    /// The version that is in force.
    pub version: i32,
    /// The version that it should have.
    pub target: i32,
    /// Why it does not have it: its SQL failed, or it depends on a module that failed.
    pub failure: Option<Error>,
    /// What it waits for, if nothing failed.
    pub awaits: Option<Awaited>,
}

impl Migrated {
    /// The versions in force, if every module is at its target; else the first failure.
    pub fn into_result(self) -> Result<Vec<ModuleVersion>> {
        match self.modules.into_iter().find_map(|module| module.failure) {
            None => Ok(self.versions),
            Some(failure) => Err(failure),
        }
    }
}

impl Server {
    /// Brings a tenant's database to the target versions. A module that fails stops those that depend on it, and no other.
    pub async fn migrate(&self, placement: &Placement, modules: &ModuleSet) -> Result<Migrated> {
        let mut migrator = self.open_migrator_session(placement, "connect to migrate").await?;
        let name = migrator.database().clone();
        let database = OpenDatabase { server: self, name: &name };
        let result = apply(&database, &mut migrator.session, modules).await;
        self.close_migrator_session(migrator, placement, result).await
    }
}

/// Applies the files that are not applied yet, each in a transaction of its own together with its ledger entry, unless it says
/// otherwise. The session is `tenantry_migrator`'s.
pub(in crate::postgres) async fn apply(
    database: &OpenDatabase<'_>,
    session: &mut PgConnection,
    modules: &ModuleSet,
) -> Result<Migrated> {
    let ledger = ledger(session).await?;
    let mut failures: Vec<(&str, Error)> = Vec::new();
    let mut awaited: Vec<(&str, Awaited)> = Vec::new();
    for module in modules.modules() {
        let needs = |failed: &str| failed == INTERNAL || module.depends_on.iter().any(|name| name == failed);
        let blocker = failures.iter().find(|(failed, _)| needs(failed));
        let result = match blocker {
            Some((on, _)) => {
                Err(Error::ModuleBlocked { module: module.name.to_string(), on: (*on).to_owned() })
            }
            None => match awaited.iter().find(|(name, _)| module.depends_on.iter().any(|on| on == name)) {
                Some((on, _)) => Ok(Some(Awaited::Module((*on).to_owned()))),
                None => apply_module(database, session, module, &ledger).await,
            },
        };
        match result {
            Ok(None) => {}
            Ok(Some(what)) => awaited.push((module.name.as_ref(), what)),
            Err(error) if is_of_module(&error) => {
                failures.push((module.name.as_ref(), error));
                reset(session).await?;
            }
            Err(error) => return Err(error),
        }
    }
    let versions = versions(session).await?;
    let mut failures: HashMap<&str, Error> = failures.into_iter().collect();
    let outcome = |module: &Module| ModuleOutcome {
        name: module.name.to_string(),
        version: versions.iter().find(|found| found.name == module.name).map_or(0, |found| found.version),
        target: module.target(),
        failure: failures.remove(module.name.as_ref()),
        awaits: awaited.iter().find(|(name, _)| *name == module.name).map(|(_, what)| what.clone()),
    };
    Ok(Migrated { modules: modules.modules().iter().map(outcome).collect(), versions })
}

/// Whether other modules can go on after it: the server answered.
fn is_of_module(error: &Error) -> bool {
    match error {
        Error::Migration(error) => match error.sql_state.as_deref() {
            Some(code) => !code.starts_with("57P"),
            None => !error.transient,
        },
        Error::ModuleBlocked { .. } | Error::Extension(_) | Error::ModuleSchema(_) => true,
        _ => false,
    }
}

/// What was applied in the session's database.
pub(super) async fn ledger(session: &mut PgConnection) -> Result<Vec<Applied>> {
    let query = "SELECT module, version, checksum FROM tenantry.migrations";
    sqlx::query_as(query).fetch_all(session).await.map_err(Error::sql("read the migration ledger"))
}

async fn apply_module(
    database: &OpenDatabase<'_>,
    session: &mut PgConnection,
    module: &Module,
    ledger: &[Applied],
) -> Result<Option<Awaited>> {
    let search_path = prepare(database, session, module).await?;
    if module.kind != ModuleKind::Files {
        return named::bring(session, module, ledger).await;
    }
    for migration in module.migrations.iter() {
        let found =
            ledger.iter().find(|(name, version, _)| *name == module.name && *version == migration.version);
        let file = ModuleFile::new(module, migration, &search_path)?;
        match found {
            Some((.., checksum)) if migration.is_applied_by(checksum) => {}
            Some((.., checksum)) => {
                return Err(file.failed(format!(
                    "was changed after it had been applied; put it back, or, if it is a correction for the tenants \
                     that do not have it yet, begin the file with `-- tenantry: replaces {}`",
                    hexadecimal(checksum)
                )));
            }
            None if file.is_stepwise() => drop(stepwise::run(session, &file, None).await?),
            None => {
                let (mut transaction, _) = file.execute(session).await?;
                file.record(&mut transaction).await?;
                file.commit(transaction).await?;
            }
        }
    }
    Ok(None)
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
