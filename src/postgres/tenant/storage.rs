//! The disk usage of tenants' databases and the counts of their writes: one query for a whole server, and no session in
//! any of them.

use std::collections::HashMap;

use sqlx::FromRow;

use crate::{
    domain::placement::Placement,
    modules::ModuleSet,
    postgres::{
        error::{Error, Result},
        identifier::Ident,
        server::Server,
        session::connect::{STATEMENT_LIMIT, with_timeout},
    },
};

/// A tenant to sample.
#[derive(Clone, Copy, Debug)]
pub struct SampleRequest<'a> {
    /// Where its data is.
    pub placement: &'a Placement,
    /// The modules of the tenant, which determine the size of an empty database.
    pub modules: &'a ModuleSet,
    /// The write count of the last sample: while it is unchanged, the size is not read.
    pub written: Option<i64>,
    /// The size is read in any case.
    pub due: bool,
}

/// A sample of a tenant's database.
#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct Sample {
    /// The rows inserted, updated and deleted since its statistics were last reset. A session reports them when its
    /// transaction ends, at most once a second, and within ten seconds when it becomes idle.
    pub written: i64,
    /// The deleted rows of those.
    pub deleted: i64,
    /// The sessions opened in the database by any role, since its statistics were last reset.
    pub sessions: i64,
    /// The open sessions of the login. Without `pg_read_all_stats`, the workers of a parallel query count too.
    pub connections: i64,
    /// The previous login has an open session.
    pub is_previous_in_use: bool,
    /// The bytes beyond those of an empty tenant's database, if the size was read.
    pub bytes: Option<i64>,
}

#[derive(FromRow)]
struct SampleRow {
    database: String,
    #[sqlx(flatten)]
    sample: Sample,
}

/// How often the query is tried again after a database was dropped while its size was read.
const ATTEMPTS: u32 = 5;

/// `empty` is computed once, and only with the first size: a few databases, one for each set of modules. A size that may
/// not be read would fail the whole query. A missing template is replaced by the largest existing one: one of more
/// modules, else template0. Without any, the whole size of a database counts.
const QUERY: &str = "\
WITH readable AS (
    SELECT d.oid, d.datname FROM pg_database AS d
    WHERE has_database_privilege(d.oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')
), empty AS MATERIALIZED (
    SELECT r.datname, pg_database_size(r.oid) AS bytes FROM readable AS r
    WHERE r.datname = ANY ($5) OR starts_with(r.datname, 'tenantry_template_') OR r.datname = 'template0'
), sessions AS (
    SELECT a.usename, count(*) AS number FROM pg_stat_activity AS a
    WHERE (a.usename = ANY ($2) OR a.usename = ANY ($6)) AND coalesce(a.backend_type, 'client backend') = 'client backend'
    GROUP BY a.usename
)
SELECT a.database, c.written, c.deleted, pg_stat_get_db_sessions(d.oid) AS sessions, coalesce(s.number, 0) AS connections,
       p.number IS NOT NULL AS is_previous_in_use,
       CASE WHEN (a.due OR a.written IS DISTINCT FROM c.written)
                 AND EXISTS (SELECT FROM readable AS r WHERE r.oid = d.oid)
            THEN greatest(pg_database_size(d.oid) - coalesce((
                     SELECT e.bytes FROM empty AS e
                     ORDER BY e.datname = a.template DESC, e.bytes DESC LIMIT 1), 0), 0)
       END AS bytes
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[], $5::text[], $6::text[])
    AS a (database, login, written, due, template, previous)
JOIN pg_database AS d ON d.datname = a.database
CROSS JOIN LATERAL (
    SELECT i.inserted + i.updated + i.deleted AS written, i.deleted FROM (
        SELECT pg_stat_get_db_tuples_inserted(d.oid) AS inserted, pg_stat_get_db_tuples_updated(d.oid) AS updated,
               pg_stat_get_db_tuples_deleted(d.oid) AS deleted) AS i) AS c
LEFT JOIN sessions AS s ON s.usename = a.login
LEFT JOIN sessions AS p ON p.usename = a.previous";

impl Server {
    /// Samples tenants. The result is by database; a database that does not exist has no sample. The size of an empty
    /// tenant's database is that of the template of its modules, or of the nearest template if that was never built.
    ///
    /// A size costs 0.3 to 0.5 ms, as PostgreSQL reads that of each of the 300 files of a database: a batch of 500
    /// takes 4 ms without sizes, and 0.2 s with all of them. A transaction that is still open is not in `written`, though
    /// it takes space already: its size is read when it is due.
    pub async fn sample(&self, requests: &[SampleRequest<'_>]) -> Result<HashMap<String, Sample>> {
        let template =
            |request: &SampleRequest<'_>| Ok(Ident::template(request.modules.digest())?.to_string());
        let templates: Vec<String> = requests.iter().map(template).collect::<Result<_>>()?;
        let previous: Vec<Option<&str>> =
            requests.iter().map(|request| request.placement.previous_login.as_deref()).collect();
        let mut session = self.admin().await?;
        let mut attempt = 1;
        let rows = loop {
            let query = sqlx::query_as::<_, SampleRow>(QUERY)
                .bind(requests.iter().map(|request| request.placement.database.as_str()).collect::<Vec<_>>())
                .bind(requests.iter().map(|request| request.placement.login.as_str()).collect::<Vec<_>>())
                .bind(requests.iter().map(|request| request.written).collect::<Vec<_>>())
                .bind(requests.iter().map(|request| request.due).collect::<Vec<_>>())
                .bind(&templates)
                .bind(&previous)
                .fetch_all(&mut *session);
            match with_timeout(STATEMENT_LIMIT, "sample the tenants", query).await {
                Ok(rows) => break rows,
                // A database was dropped after the query began.
                Err(error)
                    if matches!(error.sql_state().as_deref(), Some("3D000" | "42704"))
                        && attempt < ATTEMPTS =>
                {
                    attempt += 1
                }
                Err(error) => return Err(error),
            }
        };
        session.release();
        Ok(rows.into_iter().map(|row| (row.database, row.sample)).collect())
    }

    /// The bytes of one tenant's database beyond those of an empty request.
    pub(super) async fn bytes(&self, placement: &Placement, modules: &ModuleSet) -> Result<i64> {
        let database = &placement.database;
        let requests = SampleRequest { placement, modules, written: None, due: true };
        let sample = self.sample(&[requests]).await?.remove(database);
        let missing = || Error::DatabaseMissing(database.to_owned());
        let bytes = sample.ok_or_else(missing)?.bytes;
        bytes.ok_or_else(|| {
            Error::MissingRight(format!("the operator's login may not read the size of database {database}"))
        })
    }
}
