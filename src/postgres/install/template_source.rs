//! What a template is built from: template1, which an administrator may have adapted, or else template0.

use sqlx::PgConnection;

use crate::postgres::{
    error::Result,
    session::connect::{ANSWER_LIMIT, with_timeout},
};

/// A database to build templates from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TemplateSource {
    /// It has the rights that `tenantry server-setup` revoked there, and what an administrator installed.
    Template1,
    /// As initdb made it. No role can connect to it, so that no login can put anything there, and its encoding can be
    /// replaced.
    Template0,
}

/// What decides whether template1 can be used.
#[derive(sqlx::FromRow)]
struct Template1 {
    /// A tenant's login could put objects there, which every later tenant would get, and its sessions block clones.
    open: bool,
    utf8: bool,
    /// PostgreSQL refuses to clone it: the server's collation has another version than the one recorded there.
    stale: bool,
}

const QUERY: &str = "\
SELECT EXISTS (
           SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
           WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT') AS open,
       pg_encoding_to_char(d.encoding) = 'UTF8' AS utf8,
       d.datcollversion IS NOT NULL
           AND d.datcollversion IS DISTINCT FROM pg_database_collation_actual_version(d.oid) AS stale
FROM pg_database AS d WHERE d.datname = 'template1'";

impl TemplateSource {
    /// The database to try first on the server of a session.
    pub(super) async fn choose(session: &mut PgConnection) -> Result<Self> {
        let doing = "choose the source of the template";
        let query = sqlx::query_as::<_, Template1>(QUERY).fetch_optional(session);
        let found = with_timeout(ANSWER_LIMIT, doing, query).await?;
        let usable = found.is_some_and(|found| !found.open && found.utf8 && !found.stale);
        Ok(if usable { Self::Template1 } else { Self::Template0 })
    }

    /// The statement that copies it, with places for the name and the owner.
    pub(super) fn create_database(self) -> &'static str {
        match self {
            Self::Template1 => {
                "CREATE DATABASE {} OWNER {} TEMPLATE template1 STRATEGY wal_log ALLOW_CONNECTIONS false"
            }
            Self::Template0 => {
                "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8' STRATEGY wal_log ALLOW_CONNECTIONS false"
            }
        }
    }
}
