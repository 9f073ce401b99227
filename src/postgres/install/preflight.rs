//! The preflight: compares the rights of the operator's login on a server with those that it needs, before any tenant is
//! changed.

use sqlx::FromRow;
use uuid::Uuid;

use super::{rights::MissingRight, templates::open_template};
use crate::postgres::{
    catalog::ownership,
    error::{Error, Result},
    server::Server,
    session::connect::{
        ANSWER_LIMIT, ConnectAs, MAINTENANCE_DATABASE, identifier_of, timeline_of, with_timeout,
    },
};

/// The versions that are supported and tested, as `server_version_num`.
const SUPPORTED: std::ops::Range<i32> = 150_000..190_000;

/// The result of a preflight.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// `server_version`.
    pub version: String,
    /// The missing rights.
    pub missing: Vec<MissingRight>,
    /// The other installation that the server belongs to, if any.
    pub in_use_by: Option<String>,
    /// The system identifier: it distinguishes this server from every other, and is the same after a failover or a
    /// restore. None if the login may not read it.
    pub identifier: Option<String>,
    /// The timeline: another one after a failover, and after a restore to a point in time. None if the login may not read
    /// it.
    pub timeline: Option<i64>,
    /// How many connections the server reserves for logins like the operator's (`reserved_connections`); 15 has no such
    /// setting.
    pub reserved_connections: i32,
    /// Tenants' databases whose indexes were built with another version of their collation than the server has now.
    pub stale_collations: Option<StaleCollations>,
}

/// Databases with indexes of another collation version: text may be sorted wrongly there, and not be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleCollations {
    /// One of them.
    pub example: String,
    /// How many there are.
    pub count: i64,
}

#[derive(FromRow)]
struct OperatorRights {
    version: String,
    version_num: i32,
    superuser: bool,
    admin: bool,
    create_db: bool,
    create_role: bool,
    member: bool,
    marks: bool,
    standby: bool,
    identifiable: bool,
    has_timeline: bool,
    signal: bool,
    stats: bool,
    reserved: bool,
    reserved_connections: i32,
    temp_file_limit: bool,
    comment: Option<String>,
    /// The databases to which PUBLIC may connect, without those of tenants.
    open: Vec<String>,
    stale: i64,
    stale_example: Option<String>,
}

/// Databases of `tenantry_dba` are the tenants' and the templates. The versions of a collation are the same in all of them,
/// since all are clones: one database for each recorded version is compared.
const QUERY: &str = "\
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_num,
       l.rolsuper OR coalesce(a.rolsuper, false) AS superuser,
       a.oid IS NOT NULL AS admin,
       coalesce(a.rolcreatedb, false) AS create_db,
       coalesce(a.rolcreaterole, false) AS create_role,
       coalesce(pg_has_role(l.oid, a.oid, 'USAGE') AND CASE
           WHEN current_setting('server_version_num')::int >= 160000 THEN pg_has_role(l.oid, a.oid, 'SET')
           ELSE true END, false) AS member,
       l.rolcreaterole AND CASE
           WHEN current_setting('server_version_num')::int >= 160000
           THEN coalesce(pg_has_role(l.oid, a.oid, 'MEMBER WITH ADMIN OPTION'), false)
           ELSE true END AS marks,
       pg_is_in_recovery() AS standby,
       has_function_privilege('pg_control_system()', 'EXECUTE') AS identifiable,
       has_function_privilege('pg_control_checkpoint()', 'EXECUTE') AS has_timeline,
       coalesce(pg_has_role(a.oid, 'pg_signal_backend', 'USAGE'), false) AS signal,
       coalesce(pg_has_role(a.oid, 'pg_read_all_stats', 'USAGE'), false) AS stats,
       coalesce((SELECT pg_has_role(a.oid, r.oid, 'USAGE') FROM pg_roles AS r
                 WHERE r.rolname = 'pg_use_reserved_connections'), true) AS reserved,
       coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved_connections,
       coalesce(has_parameter_privilege(a.oid, 'temp_file_limit', 'SET'), false) AS temp_file_limit,
       shobj_description(a.oid, 'pg_authid') AS comment,
       ARRAY(
           SELECT d.datname::text FROM pg_database AS d
           WHERE d.datallowconn AND d.datdba IS DISTINCT FROM dba.oid AND EXISTS (
               SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS x
               WHERE x.grantee = 0 AND x.privilege_type = 'CONNECT')
           ORDER BY d.datname) AS open,
       coalesce(c.stale, 0)::bigint AS stale, c.stale_example
FROM pg_roles AS l
LEFT JOIN pg_roles AS a ON a.rolname = 'tenantry_admin'
LEFT JOIN pg_roles AS dba ON dba.rolname = 'tenantry_dba'
LEFT JOIN LATERAL (
    SELECT sum(g.databases) AS stale, min(g.example) AS stale_example FROM (
        SELECT d.datcollversion, min(d.oid) AS oid, min(d.datname)::text AS example, count(*) AS databases
        FROM pg_database AS d
        WHERE d.datdba = dba.oid AND d.datcollversion IS NOT NULL
          AND NOT starts_with(d.datname, 'tenantry_template_') AND NOT starts_with(d.datname, 'tenantry_scratch_')
        GROUP BY d.datlocprovider, d.datcollate, d.datcollversion) AS g
    WHERE g.datcollversion IS DISTINCT FROM pg_database_collation_actual_version(g.oid)) AS c ON true
WHERE l.rolname = session_user";

impl Server {
    /// Compares the rights of the operator's login with those that it needs. It changes nothing.
    pub async fn preflight(&self, installation: Uuid) -> Result<Preflight> {
        let doing = "check the operator's rights";
        let connect_as = ConnectAs::Login(MAINTENANCE_DATABASE);
        let mut session = self.inner.sessions.single_even_when_full(&connect_as, "connect").await?;
        session.learn_pid().await;
        let query = sqlx::query_as(QUERY).fetch_one(&mut *session);
        let found: OperatorRights = with_timeout(ANSWER_LIMIT, doing, query).await?;
        let identifier = match found.identifiable {
            true => Some(identifier_of(&mut session).await?),
            false => None,
        };
        let timeline = match found.has_timeline {
            true => Some(timeline_of(&mut session).await?),
            false => None,
        };
        let open_template = open_template(&mut session).await?;
        session.close().await;
        if !SUPPORTED.contains(&found.version_num) {
            return Err(Error::UnsupportedVersion(found.version));
        }
        if found.standby {
            return Err(Error::Standby);
        }
        let ours = ownership::installation(installation);
        let in_use_by =
            found.comment.as_deref().filter(|comment| *comment != ours).map(ownership::installation_of);
        let mut missing = found.missing();
        missing.extend(open_template);
        let stale_collations = found
            .stale_example
            .filter(|_| found.stale > 0)
            .map(|example| StaleCollations { example, count: found.stale });
        Ok(Preflight {
            missing,
            version: found.version,
            in_use_by,
            identifier,
            timeline,
            reserved_connections: found.reserved_connections,
            stale_collations,
        })
    }
}

impl OperatorRights {
    fn missing(&self) -> Vec<MissingRight> {
        let is_open = |name: &str| self.open.iter().any(|open| open == name);
        let others: Vec<String> = self
            .open
            .iter()
            .filter(|name| !["postgres", "template1"].contains(&name.as_str()))
            .cloned()
            .collect();
        let checks = [
            (self.superuser, MissingRight::Superuser),
            (!self.admin, MissingRight::AdminRole),
            (self.admin && !self.create_db, MissingRight::AdminCreateDb),
            (self.admin && !self.create_role, MissingRight::AdminCreateRole),
            (self.admin && !self.member, MissingRight::Membership),
            (self.member && self.comment.is_none() && !self.marks, MissingRight::AdminOption),
            (self.admin && !self.signal, MissingRight::SignalBackend),
            (self.admin && !self.stats, MissingRight::ReadAllStats),
            (self.admin && !self.reserved, MissingRight::ReservedConnections),
            (self.admin && !self.temp_file_limit, MissingRight::TempFileLimit),
            (is_open("postgres"), MissingRight::PostgresOpen),
            (is_open("template1"), MissingRight::Template1Open),
            (!others.is_empty(), MissingRight::DatabasesOpen(others)),
        ];
        checks.into_iter().filter(|(missing, _)| *missing).map(|(_, right)| right).collect()
    }
}
