//! What a file does that the catalogs do not show afterwards: to rows, to locks, and to roles.
//!
//! The rows of every table are watched by a trigger, which writes to a table of the database's owner: the files' role may
//! not. A file that disables or drops the trigger leaves another version of it in the catalog.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use crate::{
    domain::rehearsal::{
        FindingClass, RehearsalFinding, RelationLock,
        catalog::{CatalogSnapshot, RowChange},
    },
    postgres::{
        catalog::snapshot::{OWN_SCHEMA, OWN_TRIGGER},
        error::{Error, Result},
        identifier::{DBA, Ident, OWNER, Quoted, Script},
    },
};

const DOING: &str = "watch a file of a module";

/// The modes of locks, weakest first. The first one is every reader's.
const MODES: [&str; 8] = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];

const TABLES: &str = "\
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relowner = 'tenantry_owner'::regrole AND n.nspname !~ '^pg_' ORDER BY c.oid";

const TRIGGERS: &str = "SELECT tgrelid::bigint, oid::bigint, xmin::text FROM pg_trigger WHERE tgname = $1";

/// Relations of this database, and those of all databases that a file has no business with.
const LOCKS: &str = "\
SELECT l.relation::bigint, l.mode, CASE WHEN l.database = 0 THEN c.relname::text END
FROM pg_locks AS l LEFT JOIN pg_class AS c ON c.oid = l.relation
WHERE l.pid = $1 AND l.locktype = 'relation' AND l.granted
  AND (l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
       OR c.relname IN ('pg_authid', 'pg_auth_members', 'pg_db_role_setting', 'pg_database', 'pg_parameter_acl'))";

/// The operator's own entry in the ledger is no change of the file, nor is its record of a file without a transaction.
const ROWS: &str = "\
WITH gone AS (DELETE FROM tenantry_rehearsal.marks RETURNING *)
SELECT g.relation::bigint, g.operation, g.by_tenantry FROM gone AS g
WHERE g.relation IS DISTINCT FROM to_regclass('tenantry.migration_progress')
GROUP BY 1, 2, 3
HAVING min(g.relation) IS DISTINCT FROM to_regclass('tenantry.migrations')::oid OR g.operation <> 'INSERT' OR count(*) > 1
ORDER BY 1, 2, 3";

/// What is known of the file that is applied now.
#[derive(Default)]
pub(super) struct Watch {
    triggers: BTreeSet<(i64, i64, String)>,
    locks: BTreeMap<String, usize>,
    shared: BTreeSet<String>,
}

/// What a file did.
pub(super) struct Seen {
    pub locks: Vec<RelationLock>,
    pub rows: Vec<RowChange>,
    pub unwatched: Vec<i64>,
    pub findings: Vec<RehearsalFinding>,
}

impl Watch {
    /// Creates the triggers on all tables that exist.
    pub(super) async fn begin(session: &mut PgConnection, observer: &mut PgConnection) -> Result<Self> {
        let schema = Ident::new(OWN_SCHEMA)?;
        let script = Script::of("SET LOCAL ROLE {}", &[&DBA])
            .then("CREATE SCHEMA {}", &[&schema])
            .then("GRANT USAGE ON SCHEMA {} TO {}", &[&schema, &OWNER])
            .then("CREATE TABLE {}.marks (relation oid, operation text, by_tenantry bool)", &[&schema])
            .then(
                "CREATE FUNCTION {}.mark() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
                 SET search_path = pg_catalog, pg_temp AS $$\n\
                 DECLARE stack text;\n\
                 BEGIN\n\
                 GET DIAGNOSTICS stack = PG_CONTEXT;\n\
                 INSERT INTO tenantry_rehearsal.marks VALUES\n\
                 (TG_RELID, TG_OP, position(E'\\nPL/pgSQL function tenantry.' IN stack) > 0);\n\
                 RETURN NULL;\n\
                 END $$",
                &[&schema],
            )
            .then("REVOKE ALL ON FUNCTION {}.mark() FROM PUBLIC", &[&schema])
            .then("GRANT EXECUTE ON FUNCTION {}.mark() TO {}", &[&schema, &OWNER]);
        sqlx::raw_sql(script.sql()).execute(&mut *observer).await.map_err(Error::sql(DOING))?;
        let tables: Vec<String> =
            sqlx::query_scalar(TABLES).fetch_all(&mut *observer).await.map_err(Error::sql(DOING))?;
        let mut script = Script::new();
        for table in &tables {
            script.add(
                "CREATE TRIGGER {} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {} \
                 FOR EACH STATEMENT EXECUTE FUNCTION {}.mark()",
                &[&Ident::new(OWN_TRIGGER)?, &Quoted::by_postgres(table), &schema],
            );
        }
        if !script.is_empty() {
            sqlx::raw_sql(script.sql()).execute(session).await.map_err(Error::sql(DOING))?;
        }
        Ok(Self { triggers: triggers(observer).await?, ..Self::default() })
    }

    /// Reads the locks of the module's session, before it commits.
    pub(super) async fn read_locks(
        &mut self,
        observer: &mut PgConnection,
        pid: Option<i32>,
        tenants: &CatalogSnapshot,
    ) -> Result<()> {
        let query = sqlx::query_as::<_, (i64, String, Option<String>)>(LOCKS).bind(pid).fetch_all(observer);
        for (relation, mode, shared) in query.await.map_err(Error::sql(DOING))? {
            let Some(strength) = MODES.iter().position(|known| *known == mode) else { continue };
            match (shared, tenants.relation(relation)) {
                (Some(shared), _) if strength >= 2 => drop(self.shared.insert(shared)),
                (None, Some(relation)) if strength > 0 => {
                    let strongest = self.locks.entry(relation.address.clone()).or_default();
                    *strongest = strength.max(*strongest);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends the file, and begins the next one.
    pub(super) async fn end_file(&mut self, observer: &mut PgConnection) -> Result<Seen> {
        let query = sqlx::query_as::<_, (i64, String, bool)>(ROWS).fetch_all(&mut *observer);
        let rows = query.await.map_err(Error::sql(DOING))?;
        let triggers = triggers(observer).await?;
        let unwatched: BTreeSet<i64> =
            self.triggers.difference(&triggers).map(|(relation, ..)| *relation).collect();
        let done = std::mem::take(self);
        self.triggers = triggers;
        let lock = |(relation, strength): (String, usize)| RelationLock {
            relation,
            mode: MODES[strength].to_owned(),
        };
        let row = |(table, operation, by_tenantry)| RowChange { table, operation, by_tenantry };
        Ok(Seen {
            locks: done.locks.into_iter().map(lock).collect(),
            rows: rows.into_iter().map(row).collect(),
            unwatched: unwatched.into_iter().collect(),
            findings: done.shared.iter().map(|catalog| of_roles(catalog)).collect(),
        })
    }
}

async fn triggers(observer: &mut PgConnection) -> Result<BTreeSet<(i64, i64, String)>> {
    let query = sqlx::query_as(TRIGGERS).bind(OWN_TRIGGER).fetch_all(observer);
    Ok(query.await.map_err(Error::sql(DOING))?.into_iter().collect())
}

fn of_roles(catalog: &str) -> RehearsalFinding {
    let what = match catalog {
        "pg_authid" => "changes a role",
        "pg_auth_members" => "changes who is a member of a role",
        "pg_db_role_setting" => "stores a setting of a role or of a database",
        "pg_database" => "changes a database",
        _ => "changes who may set a parameter",
    };
    RehearsalFinding {
        file: String::new(),
        line: None,
        column: None,
        class: FindingClass::Rights,
        object: String::new(),
        message: format!(
            "{what}, which is shared by all tenants of the server: a module changes objects in its schema only; remove it"
        ),
        refused: true,
        right: None,
    }
}

/// The functions of meters, by name, with what makes them what they are.
const METERS: &str = "\
SELECT p.oid::regprocedure::text, md5(concat_ws('|', p.prosrc, p.prosecdef, p.proconfig::text, p.prolang, p.proacl::text))
FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = 'tenantry'::regnamespace AND p.proname ~ '^metered_[0-9a-f]{16}$' ORDER BY 1";

/// Finds functions that are named as a meter's and were not made by `tenantry.meter`: that function makes those of every
/// meter again, and the transaction is rolled back.
pub(super) async fn forged_meters(session: &mut PgConnection) -> Result<Vec<RehearsalFinding>> {
    let mut transaction = sqlx::Acquire::begin(session).await.map_err(Error::sql(DOING))?;
    let read = |error| Error::sql(DOING)(error);
    let found: Vec<(String, String)> =
        sqlx::query_as(METERS).fetch_all(&mut *transaction).await.map_err(read)?;
    // What no meter uses is not made again, and is gone afterwards.
    let drop_all = "DO $$ DECLARE f regprocedure; BEGIN
        FOR f IN SELECT p.oid FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = 'tenantry'::regnamespace
            AND p.proname ~ '^metered_[0-9a-f]{16}$' LOOP EXECUTE format('DROP FUNCTION %s CASCADE', f); END LOOP; END $$";
    sqlx::raw_sql(drop_all).execute(&mut *transaction).await.map_err(read)?;
    let make = "SELECT tenantry.meter(m.name, m.metered, m.counted) FROM tenantry.meters AS m \
                WHERE EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = m.metered)";
    sqlx::raw_sql(make).execute(&mut *transaction).await.map_err(read)?;
    let made: BTreeSet<(String, String)> =
        sqlx::query_as(METERS).fetch_all(&mut *transaction).await.map_err(read)?.into_iter().collect();
    transaction.rollback().await.map_err(read)?;
    let finding = |(function, _): &(String, String)| RehearsalFinding {
        file: String::new(),
        line: None,
        column: None,
        class: FindingClass::OutsideSchema,
        object: function.clone(),
        message: format!(
            "function {function} is in Tenantry's schema, and was not created by tenantry.meter: remove it"
        ),
        refused: true,
        right: None,
    };
    Ok(found.iter().filter(|one| !made.contains(one)).map(finding).collect())
}
