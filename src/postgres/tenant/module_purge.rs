//! Drops a module from a tenant's database, with its entry in the ledger, its meters and its registered functions: in one
//! transaction, which is rolled back if anything else would be lost or changed.

use sqlx::{Connection, PgConnection, Postgres, Transaction};

use super::migrate::{OpenDatabase, ledger, run_as_dba};
use crate::{
    domain::{
        module_purge::{
            PurgeRefusal,
            losses::{ModuleObjects, losses, made},
        },
        placement::Placement,
        rehearsal::catalog::{CatalogObject, CatalogSnapshot},
    },
    modules::{ModuleKind, ModuleSet},
    postgres::{
        catalog::snapshot::read_snapshot,
        error::{Error, Result},
        identifier::{Ident, Keyword, Literal, OWNER, Quoted, Script},
        server::Server,
    },
};

const DOING: &str = "drop a module";

/// Which module is dropped.
#[derive(Clone, Copy, Debug)]
pub struct ModulePurge<'a> {
    /// Its name.
    pub module: &'a str,
    /// The schema that is its own, which is dropped too; none where it shares one.
    pub own_schema: Option<&'a str>,
    /// The schema that it shares, for messages.
    pub schema: &'a str,
    /// The tenant's modules whose files are known: its own objects are those that a database without it lacks.
    pub modules: &'a ModuleSet,
    /// The extensions that the other modules of the tenant need.
    pub kept_extensions: &'a [String],
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgedModule {
    /// It is not in the database.
    Absent,
    /// It was dropped.
    Dropped {
        /// The version that was in force.
        version: i32,
        /// What it had.
        objects: Vec<String>,
        /// The limits of which no table is counted any more.
        limits: Vec<String>,
    },
    /// Nothing was dropped.
    Refused {
        /// The version that is in force.
        version: i32,
        /// Why.
        why: PurgeRefusal,
    },
}

/// What the database keeps of modules beside the ledger. A database of an earlier release lacks some of these tables.
const RECORDS: [&str; 4] = ["migrations", "migration_progress", "registered_functions", "reported_versions"];

impl Server {
    /// The version of a module in a tenant's database, by the ledger.
    pub async fn module_version(&self, placement: &Placement, module: &str) -> Result<Option<i32>> {
        let mut migrator = self.open_migrator_session(placement, "connect to read the ledger").await?;
        let read = ledger(&mut migrator.session).await;
        let applied = self.close_unchecked(migrator, read).await?;
        Ok(version_in(&applied, module))
    }

    /// Drops a module, or finds why it must stay.
    pub async fn purge_module(&self, placement: &Placement, purge: &ModulePurge<'_>) -> Result<PurgedModule> {
        let objects = match purge.own_schema {
            Some(schema) => Ok(ModuleObjects::InSchema(schema.to_owned())),
            None => self.objects_of_module(placement, purge).await?,
        };
        let mut migrator = self.open_migrator_session(placement, "connect to drop a module").await?;
        let name = migrator.database().clone();
        let database = OpenDatabase { server: self, name: &name };
        let work = async {
            let session = &mut migrator.session;
            let purged = drop_objects(session, purge, objects).await?;
            if let (Some(schema), PurgedModule::Absent | PurgedModule::Dropped { .. }) =
                (purge.own_schema, &purged)
            {
                drop_schema(&database, session, schema, purge.kept_extensions).await?;
            }
            Ok(purged)
        };
        let result = work.await;
        self.close_migrator_session(migrator, placement, result).await
    }

    /// The objects of a module that shares its schema: those of a template with it, without those of one without it, both
    /// without what tools make. Refused if its files as they were applied are not known, or if another module cannot be
    /// without it.
    async fn objects_of_module(
        &self,
        placement: &Placement,
        purge: &ModulePurge<'_>,
    ) -> Result<Result<ModuleObjects, PurgeRefusal>> {
        let mut migrator = self.open_migrator_session(placement, "connect to read the ledger").await?;
        let read = ledger(&mut migrator.session).await;
        let applied = self.close_unchecked(migrator, read).await?;
        let version = version_in(&applied, purge.module);
        let schema = purge.schema.to_owned();
        if purge.modules.module(purge.module).is_some_and(|module| module.kind != ModuleKind::Files) {
            return Ok(Err(PurgeRefusal::MadeByTool { schema }));
        }
        let unknown = PurgeRefusal::Unknown { schema };
        let Some(with) = purge.modules.of_files().applied(&applied) else { return Ok(Err(unknown)) };
        let is_it = |module: &&crate::modules::Module| module.name == purge.module;
        if with.modules().iter().find(is_it).map(crate::modules::Module::target) != version {
            return Ok(Err(unknown));
        }
        let others = with.modules().iter().filter(|module| !is_it(module)).cloned().collect();
        let with = self.template_snapshot(&with).await?;
        match self.template_snapshot(&ModuleSet::new(others)).await {
            Ok(without) => Ok(Ok(ModuleObjects::Labelled(made(&with, &without)))),
            Err(Error::Migration(error)) if !error.transient => Ok(Err(PurgeRefusal::Needed(error.module))),
            Err(error) => Err(error),
        }
    }
}

fn version_in(ledger: &[(String, i32, Vec<u8>)], module: &str) -> Option<i32> {
    ledger.iter().filter(|(name, ..)| name == module).map(|(_, version, _)| *version).max()
}

async fn drop_objects(
    session: &mut PgConnection,
    purge: &ModulePurge<'_>,
    objects: Result<ModuleObjects, PurgeRefusal>,
) -> Result<PurgedModule> {
    let mut transaction = session.begin().await.map_err(Error::sql(DOING))?;
    let Some(version) = version_in(&ledger(&mut transaction).await?, purge.module) else {
        return Ok(PurgedModule::Absent);
    };
    let refused = |why| Ok(PurgedModule::Refused { version, why });
    let objects = match objects {
        Ok(objects) => objects,
        Err(why) => return refused(why),
    };
    let before = read_snapshot(&mut transaction).await?;
    let own = objects.of(&before);
    let script = match drop_script(&own) {
        Ok(script) => script,
        Err(objects) => return refused(PurgeRefusal::Undroppable(objects)),
    };
    run(&mut transaction, &script).await?;
    let after: CatalogSnapshot = read_snapshot(&mut transaction).await?;
    let lost = losses(&before, &after, &own);
    if !lost.is_empty() {
        transaction.rollback().await.map_err(Error::sql(DOING))?;
        return refused(PurgeRefusal::Dependents(lost));
    }
    let limits = forget(&mut transaction, purge.module).await?;
    transaction.commit().await.map_err(Error::sql(DOING))?;
    let mut objects: Vec<String> = own.iter().map(|object| object.label()).collect();
    objects.sort_unstable();
    Ok(PurgedModule::Dropped { version, objects, limits })
}

async fn run(transaction: &mut Transaction<'_, Postgres>, script: &Script) -> Result<()> {
    if script.is_empty() {
        return Ok(());
    }
    sqlx::raw_sql(script.sql()).execute(&mut **transaction).await.map(drop).map_err(Error::sql(DOING))
}

/// The statements that drop these objects; or those that cannot be dropped: of another owner, of a kind that is not a module's,
/// or a part of an object that stays. What depends on them is dropped with them, so that it is found.
fn drop_script(objects: &[&CatalogObject]) -> Result<Script, Vec<String>> {
    let mut script = Script::new();
    let mut stuck = Vec::new();
    for object in objects {
        let is_foreign = !object.owner.is_empty() && object.owner != OWNER.as_str();
        match keyword(&object.kind).filter(|_| !is_foreign) {
            Some(kind) => script.add(
                "DROP {} IF EXISTS {} CASCADE",
                &[&Keyword(kind), &Quoted::by_postgres(&object.address)],
            ),
            None => stuck.push(object.label()),
        }
    }
    if stuck.is_empty() { Ok(script) } else { Err(stuck) }
}

/// The kind of an object in `DROP`.
fn keyword(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "table" => "TABLE",
        "foreign table" => "FOREIGN TABLE",
        "view" => "VIEW",
        "materialized view" => "MATERIALIZED VIEW",
        "sequence" => "SEQUENCE",
        "index" => "INDEX",
        "statistics" => "STATISTICS",
        "function" => "ROUTINE",
        "type" => "TYPE",
        "operator" => "OPERATOR",
        "operator class" => "OPERATOR CLASS",
        "operator family" => "OPERATOR FAMILY",
        "collation" => "COLLATION",
        "conversion" => "CONVERSION",
        "text search configuration" => "TEXT SEARCH CONFIGURATION",
        "text search dictionary" => "TEXT SEARCH DICTIONARY",
        _ => return None,
    })
}

/// Removes what the database keeps of a module. Returns the limits of which no table is counted any more.
async fn forget(transaction: &mut Transaction<'_, Postgres>, module: &str) -> Result<Vec<String>> {
    let module = Literal::new(module)?;
    let find = "SELECT c.relname::text FROM pg_catalog.pg_class AS c
                WHERE c.relnamespace = 'tenantry'::regnamespace AND c.relname = ANY ($1)";
    let query = sqlx::query_scalar::<_, String>(find).bind(&RECORDS[..]).fetch_all(&mut **transaction);
    let mut script = Script::new();
    for table in query.await.map_err(Error::sql(DOING))? {
        script.add("DELETE FROM tenantry.{} WHERE module = {}", &[&Ident::new(&table)?, &module]);
    }
    run(transaction, &script).await?;
    let uncounted = "WITH gone AS (
                         DELETE FROM tenantry.meters AS m
                         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class AS r WHERE r.oid = m.metered) RETURNING m.name, m.metered)
                     SELECT DISTINCT g.name, EXISTS (
                         SELECT FROM tenantry.meters AS m
                         WHERE m.name = g.name AND m.metered NOT IN (SELECT metered FROM gone)) FROM gone AS g";
    let query = sqlx::query_as::<_, (String, bool)>(uncounted).fetch_all(&mut **transaction);
    let mut limits = Vec::new();
    for (limit, is_counted) in query.await.map_err(Error::sql(DOING))? {
        let statement = if is_counted {
            "SELECT tenantry.recount($1)"
        } else {
            "DELETE FROM tenantry.counters WHERE name = $1"
        };
        let query = sqlx::query(statement).bind(&limit).execute(&mut **transaction);
        query.await.map_err(Error::sql(DOING))?;
        if !is_counted {
            limits.push(limit);
        }
    }
    Ok(limits)
}

/// Drops the schema that was the module's own, and the extensions in it that no other module needs. What
/// another role put there keeps it: an extension on which something depends, for example.
async fn drop_schema(
    database: &OpenDatabase<'_>,
    session: &mut PgConnection,
    schema: &str,
    kept_extensions: &[String],
) -> Result<()> {
    let find = "SELECT e.extname::text FROM pg_catalog.pg_extension AS e
                WHERE e.extnamespace = to_regnamespace(quote_ident($1)) AND e.extname <> ALL ($2) ORDER BY 1";
    let query = sqlx::query_scalar::<_, String>(find).bind(schema).bind(kept_extensions).fetch_all(session);
    let mut scripts = Vec::new();
    for extension in query.await.map_err(Error::sql(DOING))? {
        scripts.push(Script::of("DROP EXTENSION IF EXISTS {}", &[&Ident::new(&extension)?]));
    }
    scripts.push(Script::of("DROP SCHEMA IF EXISTS {}", &[&Ident::new(schema)?]));
    for script in scripts {
        match run_as_dba(database, "drop the module's schema", &script).await {
            // Something depends on it; or a superuser made it.
            Err(error) if matches!(error.sql_state().as_deref(), Some("2BP01" | "42501")) => {
                tracing::info!(database = %database.name, %error, "something of a module's schema stays");
            }
            other => other?,
        }
    }
    Ok(())
}
