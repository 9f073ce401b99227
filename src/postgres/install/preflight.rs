//! The preflight: compares the rights of the operator's login on a server with those that it needs, before any tenant is
//! changed.

use std::fmt;

use sqlx::FromRow;
use uuid::Uuid;

use crate::postgres::{
    catalog::ownership,
    error::{Error, Result},
    server::Server,
    session::connect::{ANSWER_LIMIT, ConnectAs, MAINTENANCE_DATABASE, identifier_of, with_timeout},
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
}

/// A right that the operator's login lacks, or that it or PUBLIC should not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingRight {
    /// There is no role `tenantry_admin`.
    AdminRole,
    /// `tenantry_admin` lacks CREATEDB.
    AdminCreateDb,
    /// `tenantry_admin` lacks CREATEROLE.
    AdminCreateRole,
    /// The login is not a member of `tenantry_admin`, or lacks the INHERIT or the SET option.
    Membership,
    /// The login cannot write the installation's id into the comment of `tenantry_admin`, which has none yet.
    AdminOption,
    /// The login or `tenantry_admin` is a superuser.
    Superuser,
    /// `tenantry_admin` may not end other roles' sessions.
    SignalBackend,
    /// `tenantry_admin` may not read when other roles' sessions began.
    ReadAllStats,
    /// PUBLIC may connect to `postgres`.
    PostgresOpen,
    /// PUBLIC may connect to `template1`.
    Template1Open,
}

impl MissingRight {
    /// Whether it is required. Without the two predefined roles, which some managed services do not grant, the operator
    /// becomes a member of a tenant's login for the transaction that ends its sessions.
    pub fn is_required(self) -> bool {
        match self {
            Self::SignalBackend | Self::ReadAllStats => false,
            Self::AdminRole
            | Self::AdminCreateDb
            | Self::AdminCreateRole
            | Self::Membership
            | Self::AdminOption
            | Self::Superuser
            | Self::PostgresOpen
            | Self::Template1Open => true,
        }
    }
}

impl fmt::Display for MissingRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminRole => "role tenantry_admin does not exist",
            Self::AdminCreateDb => "tenantry_admin lacks CREATEDB",
            Self::AdminCreateRole => "tenantry_admin lacks CREATEROLE",
            Self::Membership => {
                "the operator's login is not a member of tenantry_admin (from 16 on, WITH INHERIT TRUE, SET TRUE)"
            }
            Self::AdminOption => {
                "the operator's login lacks CREATEROLE, or from 16 on ADMIN OPTION on tenantry_admin, to write the \
                 installation's id onto it"
            }
            Self::Superuser => {
                "the operator's login or tenantry_admin is a SUPERUSER, which is never needed: NOSUPERUSER"
            }
            Self::SignalBackend => "tenantry_admin lacks pg_signal_backend, to end tenants' sessions",
            Self::ReadAllStats => {
                "tenantry_admin lacks pg_read_all_stats, to prove that tenants' sessions have ended"
            }
            Self::PostgresOpen => "PUBLIC may CONNECT to database postgres",
            Self::Template1Open => "PUBLIC may CONNECT to database template1",
        })
    }
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
    signal: bool,
    stats: bool,
    comment: Option<String>,
    postgres_open: bool,
    template1_open: bool,
}

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
       coalesce(pg_has_role(a.oid, 'pg_signal_backend', 'USAGE'), false) AS signal,
       coalesce(pg_has_role(a.oid, 'pg_read_all_stats', 'USAGE'), false) AS stats,
       shobj_description(a.oid, 'pg_authid') AS comment,
       o.postgres_open, o.template1_open
FROM pg_roles l LEFT JOIN pg_roles a ON a.rolname = 'tenantry_admin',
     LATERAL (
         SELECT coalesce(bool_or(d.datname = 'postgres'), false) AS postgres_open,
                coalesce(bool_or(d.datname = 'template1'), false) AS template1_open
         FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS x
         WHERE d.datname IN ('postgres', 'template1') AND x.grantee = 0 AND x.privilege_type = 'CONNECT') AS o
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
        Ok(Preflight { missing: found.missing(), version: found.version, in_use_by, identifier })
    }
}

impl OperatorRights {
    fn missing(&self) -> Vec<MissingRight> {
        let checks = [
            (self.superuser, MissingRight::Superuser),
            (!self.admin, MissingRight::AdminRole),
            (self.admin && !self.create_db, MissingRight::AdminCreateDb),
            (self.admin && !self.create_role, MissingRight::AdminCreateRole),
            (self.admin && !self.member, MissingRight::Membership),
            (self.member && self.comment.is_none() && !self.marks, MissingRight::AdminOption),
            (self.admin && !self.signal, MissingRight::SignalBackend),
            (self.admin && !self.stats, MissingRight::ReadAllStats),
            (self.postgres_open, MissingRight::PostgresOpen),
            (self.template1_open, MissingRight::Template1Open),
        ];
        checks.into_iter().filter(|(missing, _)| *missing).map(|(_, right)| right).collect()
    }
}
