//! What tenants' databases take on disk, and what was written to them: one query for a whole server, and no session in
//! any of them.

use std::collections::HashMap;

use sqlx::FromRow;

use super::{
    connect::{STATEMENT_LIMIT, within},
    error::{Error, Result},
    identifier::Ident,
    modules::ModuleSet,
    server::Server,
};

/// A tenant to take a sample of.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its database.
    pub database: &'a str,
    /// Its login.
    pub login: &'a str,
    /// What an empty tenant's database has.
    pub modules: &'a ModuleSet,
    /// What had been written at the last sample: while that stays the same, its size is not looked at.
    pub written: Option<i64>,
    /// Its size is looked at in any case.
    pub due: bool,
}

/// What one look at a tenant's database shows.
#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct Sample {
    /// Rows that were ever inserted, updated and deleted, since its statistics were last reset. A session reports what
    /// it did when its transaction ends, at most once a second, and when it falls idle within ten.
    pub written: i64,
    /// Of those, the deleted ones.
    pub deleted: i64,
    /// Sessions that were ever begun in the database, by whomever, since its statistics were last reset.
    pub sessions: i64,
    /// Sessions that the login has now. Without `pg_read_all_stats`, the workers of a parallel query count too.
    pub connections: i64,
    /// The bytes beyond those of an empty tenant's database, where they were looked at and could be.
    pub bytes: Option<i64>,
}

#[derive(FromRow)]
struct Row {
    database: String,
    #[sqlx(flatten)]
    sample: Sample,
}

/// How often a database that was dropped while its size was being looked at may spoil the answer.
const ATTEMPTS: u32 = 5;

/// `empty` is worked out once, and only when the first size is: a few databases, one for each set of modules. A size that
/// may not be looked at would fail the whole query. A template that is not there is replaced by the largest that is:
/// one of more modules, else template0; with none to compare with, the whole of a database counts.
const QUERY: &str = "\
WITH readable AS (
    SELECT d.oid, d.datname FROM pg_database AS d
    WHERE has_database_privilege(d.oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')
), empty AS MATERIALIZED (
    SELECT r.datname, pg_database_size(r.oid) AS bytes FROM readable AS r
    WHERE r.datname = ANY ($5) OR starts_with(r.datname, 'tenantry_template_') OR r.datname = 'template0'
), sessions AS (
    SELECT a.usename, count(*) AS number FROM pg_stat_activity AS a
    WHERE a.usename = ANY ($2) AND coalesce(a.backend_type, 'client backend') = 'client backend'
    GROUP BY a.usename
)
SELECT a.database, c.written, c.deleted, pg_stat_get_db_sessions(d.oid) AS sessions, coalesce(s.number, 0) AS connections,
       CASE WHEN (a.due OR a.written IS DISTINCT FROM c.written)
                 AND EXISTS (SELECT FROM readable AS r WHERE r.oid = d.oid)
            THEN greatest(pg_database_size(d.oid) - coalesce((
                     SELECT e.bytes FROM empty AS e
                     ORDER BY e.datname = a.template DESC, e.bytes DESC LIMIT 1), 0), 0)
       END AS bytes
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[], $5::text[])
    AS a (database, login, written, due, template)
JOIN pg_database AS d ON d.datname = a.database
CROSS JOIN LATERAL (
    SELECT i.inserted + i.updated + i.deleted AS written, i.deleted FROM (
        SELECT pg_stat_get_db_tuples_inserted(d.oid) AS inserted, pg_stat_get_db_tuples_updated(d.oid) AS updated,
               pg_stat_get_db_tuples_deleted(d.oid) AS deleted) AS i) AS c
LEFT JOIN sessions AS s ON s.usename = a.login";

impl Server {
    /// Takes samples of tenants, by database; one that is not there has none. What counts as an empty tenant's database
    /// is the template of its modules, or, where that was never built, the nearest there is.
    ///
    /// A size costs 0.3 to 0.5 ms, as PostgreSQL asks for that of each of the 300 files of a database: a batch of 500
    /// takes 4 ms without sizes, and 0.2 s with all of them. A transaction that is still open is not in `written`, though
    /// what it wrote takes room already: its size is seen when it is due.
    pub async fn sample(&self, asked: &[Asked<'_>]) -> Result<HashMap<String, Sample>> {
        let template = |one: &Asked<'_>| Ok(Ident::template(one.modules.digest())?.to_string());
        let templates: Vec<String> = asked.iter().map(template).collect::<Result<_>>()?;
        let mut session = self.admin().await?;
        let mut attempt = 1;
        let rows = loop {
            let query = sqlx::query_as::<_, Row>(QUERY)
                .bind(asked.iter().map(|one| one.database).collect::<Vec<_>>())
                .bind(asked.iter().map(|one| one.login).collect::<Vec<_>>())
                .bind(asked.iter().map(|one| one.written).collect::<Vec<_>>())
                .bind(asked.iter().map(|one| one.due).collect::<Vec<_>>())
                .bind(&templates)
                .fetch_all(&mut *session);
            match within(STATEMENT_LIMIT, "take samples of the tenants", query).await {
                Ok(rows) => break rows,
                // The query began before a database was dropped, and came to it afterwards.
                Err(error)
                    if matches!(error.sql_state().as_deref(), Some("3D000" | "42704"))
                        && attempt < ATTEMPTS =>
                {
                    attempt += 1
                }
                Err(error) => return Err(error),
            }
        };
        session.give_back();
        Ok(rows.into_iter().map(|row| (row.database, row.sample)).collect())
    }

    /// The bytes of one tenant's database beyond those of an empty one.
    pub(super) async fn bytes(&self, database: &str, modules: &ModuleSet) -> Result<i64> {
        let asked = Asked { database, login: "", modules, written: None, due: true };
        let sample = self.sample(&[asked]).await?.remove(database);
        let missing = || Error::DatabaseMissing(database.to_owned());
        let bytes = sample.ok_or_else(missing)?.bytes;
        bytes.ok_or_else(|| {
            Error::MissingRight(format!("the size of database {database} may not be looked at"))
        })
    }
}
