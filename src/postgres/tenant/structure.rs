//! Whether a tenant's database has what its modules created: compared with the template when a database may have been
//! restored, or its owner may have changed it. What enforces limits is created and counted again; what is lost beside it is
//! reported.

use sqlx::{Connection, PgConnection};

use crate::{
    domain::{
        placement::Placement,
        structure::{PartKind, SchemaMismatch, SchemaReport, has_meters, schema_mismatches},
    },
    modules::ModuleSet,
    postgres::{
        catalog::structure::read_structure,
        error::{Error, Result, code},
        identifier::{Literal, Quoted, Script},
        server::{Server, run_on},
        session::connect::{STATEMENT_LIMIT, with_timeout},
        tenant::migrate::ledger,
    },
};

const DOING: &str = "check what the modules created";

/// The limits whose counters are not the number of the rows: read in one snapshot, which has both. A limit with a table that
/// was dropped since is left out.
const MISCOUNTED: &str = "\
SELECT c.name FROM tenantry.counters AS c
WHERE CASE WHEN (SELECT bool_and(EXISTS (SELECT FROM pg_class AS r WHERE r.oid = m.metered))
                 FROM tenantry.meters AS m WHERE m.name = c.name)
           THEN c.used <> tenantry.count_rows(c.name) END
ORDER BY c.name";

/// Tables that take longer to count are not compared with their counter: a restored copy has both from one moment, and a
/// count must not hold up the verification.
const COUNTING: &str = "\
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = '5s'";

impl Server {
    /// Compares a tenant's database with the template of the modules that were applied to it, and repairs what needs no data.
    /// A database that has an older edition of a corrected file is not compared.
    pub async fn check_structure(&self, placement: &Placement, modules: &ModuleSet) -> Result<SchemaReport> {
        let mut migrator = self.open_looking_session(placement, "connect to check the modules").await?;
        let read = ledger(&mut migrator.session).await;
        let applied = self.close_unchecked(migrator, read).await?;
        let Some(modules) = modules.applied(&applied) else { return Ok(SchemaReport::default()) };
        let wanted = match self.template_structure(&modules).await {
            Ok(wanted) => wanted,
            // The tool of an earlier version cannot be had any more.
            Err(Error::TemplateNeedsRun { .. }) => return Ok(SchemaReport::default()),
            Err(error) => return Err(error),
        };

        let mut migrator = self.open_looking_session(placement, "connect to check the modules").await?;
        let session = &mut migrator.session;
        let check = async {
            let mut report = SchemaReport::default();
            let mut found = read_structure(session).await?;
            let before: Vec<SchemaMismatch<'_>> = schema_mismatches(&wanted, &found);
            if !before.is_empty() && before.iter().all(SchemaMismatch::is_repairable) {
                run_on(session, "create again what enforces the limits", &repair(&before)?).await?;
                report.repaired = before.iter().map(ToString::to_string).collect();
                found = read_structure(session).await?;
            }
            report.left = schema_mismatches(&wanted, &found).iter().map(ToString::to_string).collect();
            if report.left.is_empty() && has_meters(&found) {
                let miscounted = recount(session).await?;
                report
                    .repaired
                    .extend(miscounted.iter().map(|limit| format!("the counter of limit {limit} was wrong")));
            }
            Ok(report)
        };
        let result = check.await;
        self.close_unchecked(migrator, result).await
    }
}

/// Functions first, then what calls them, as the owner of the objects. A new meter counts.
fn repair(mismatches: &[SchemaMismatch<'_>]) -> Result<Script> {
    let mut script = Script::new();
    let of_kind = |kind| mismatches.iter().map(|found| found.wanted).filter(move |part| part.kind == kind);
    for part in of_kind(PartKind::Function) {
        script.add("{}", &[&Quoted::by_postgres(part.definition.as_deref().unwrap_or_default())]);
    }
    for part in of_kind(PartKind::Trigger) {
        let table = Quoted::by_postgres(part.table.as_deref().unwrap_or_default());
        script.add("DROP TRIGGER IF EXISTS {} ON {}", &[&Quoted::by_postgres(&part.name), &table]);
        script.add("{}", &[&Quoted::by_postgres(part.definition.as_deref().unwrap_or_default())]);
    }
    for part in of_kind(PartKind::Meter) {
        let (limit, table) = (Literal::new(&part.name)?, part.table.as_deref().unwrap_or_default());
        let (table, counted) =
            (Literal::new(table)?, Literal::new(part.definition.as_deref().unwrap_or_default())?);
        script.add("SELECT tenantry.meter({}, {}::regclass, {})", &[&limit, &table, &counted]);
    }
    Ok(script)
}

/// Corrects counters that are not the number of the rows, and returns their limits.
async fn recount(session: &mut PgConnection) -> Result<Vec<String>> {
    let compare = async {
        let mut transaction = session.begin().await?;
        sqlx::raw_sql(COUNTING).execute(&mut *transaction).await?;
        let found = sqlx::query_scalar::<_, String>(MISCOUNTED).fetch_all(&mut *transaction).await;
        transaction.rollback().await?;
        match found {
            Err(error) if code(&error) == Some("57014") => Ok(Vec::new()),
            found => found,
        }
    };
    let miscounted = compare.await.map_err(Error::sql(DOING))?;
    for limit in &miscounted {
        let recount = sqlx::query("SELECT tenantry.recount($1)").bind(limit).execute(&mut *session);
        with_timeout(STATEMENT_LIMIT, DOING, recount).await?;
    }
    Ok(miscounted)
}
