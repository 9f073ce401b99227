//! What is on a server: databases, roles, memberships, marks and rights, read from the shared catalogues with one
//! query, for one tenant or for all.

use std::collections::HashMap;

use serde::Deserialize;
use sqlx::{PgConnection, types::Json};

use crate::domain::{access::AccessLevel, identity::TenantId, names::building_name};

use super::{
    connect::{ANSWER_LIMIT, within},
    error::Result,
    identifier::{DBA, GROUPS, MIGRATOR},
    mark::{self, Mark},
};

/// What a server has of one tenant.
#[derive(Clone, Debug)]
pub struct TenantFacts {
    /// The database of the final name, whosever it is.
    pub database: Option<DatabaseFacts>,
    /// The database of the building name.
    pub building: Option<DatabaseFacts>,
    /// The role of the login's name, whosever it is.
    pub login: Option<LoginFacts>,
}

/// A database.
#[derive(Clone, Debug)]
pub struct DatabaseFacts {
    /// Its name.
    pub name: String,
    /// What tells it from another of the same name.
    pub oid: i64,
    /// Whose it is.
    pub mark: Mark,
    /// Whether `tenantry_dba` owns it.
    pub owned: bool,
    /// `ALLOW_CONNECTIONS`.
    pub allow_connections: bool,
    /// A DROP DATABASE was interrupted (`datconnlimit` is -2): nothing but another one is possible.
    pub drop_interrupted: bool,
    /// The most sessions in it; -1 for no limit.
    pub connection_limit: i32,
    /// The digest of the template it was made from.
    pub template_digest: Option<String>,
    /// Whether the tenant's login has the CONNECT right itself.
    pub login_may_connect: bool,
    /// Whether `tenantry_migrator` has it: only while it is needed.
    pub migrator_may_connect: bool,
    /// Whether PUBLIC has any right, which it never should.
    pub open_to_public: bool,
}

/// A tenant's login.
#[derive(Clone, Debug)]
pub struct LoginFacts {
    /// What tells it from another of the same name.
    pub oid: i64,
    /// Whose it is.
    pub mark: Mark,
    /// LOGIN.
    pub can_login: bool,
    /// Those of the three groups that it is a member of.
    pub groups: Vec<String>,
    /// Other roles that it is a member of: there should be none.
    pub foreign_memberships: Vec<String>,
    /// Roles that are members of it: there should be none (only an administrator can make one).
    pub foreign_members: Vec<String>,
    /// It has CREATEDB or CREATEROLE, which no tenant's login has.
    pub privileged: bool,
    /// It has SUPERUSER, REPLICATION or BYPASSRLS, which no tenant's login has and only a superuser can take.
    pub beyond_us: bool,
    /// The most sessions of it; -1 for no limit.
    pub connection_limit: i32,
    /// Rights were taken, and it is not proven yet that no session from before still has them.
    pub narrowing: bool,
}

impl TenantFacts {
    /// The level that is in force, if the catalogues show exactly one; `None` for something in between, for rights
    /// from elsewhere, or while a narrowing is not proven.
    pub fn access(&self) -> Option<AccessLevel> {
        let may_connect = self.database.as_ref().is_some_and(|database| database.login_may_connect);
        let Some(login) = &self.login else { return Some(AccessLevel::Blocked) };
        let clean = login.foreign_memberships.is_empty()
            && login.foreign_members.is_empty()
            && !login.privileged
            && !login.beyond_us
            && !login.narrowing
            && self.database.as_ref().is_none_or(|database| {
                !database.open_to_public && database.connection_limit == -1 && database.allow_connections
            });
        if !clean {
            return None;
        }
        let owned = self.database.as_ref().is_some_and(|database| database.owned);
        match (login.groups.as_slice(), may_connect, login.can_login) {
            ([], false, false) => Some(AccessLevel::Blocked),
            // An owner may do more than any level says.
            ([group], true, _) if owned => {
                AccessLevel::ALL.into_iter().find(|level| level.group() == Some(group.as_str()))
            }
            _ => None,
        }
    }
}

/// What a whole server has.
#[derive(Clone, Debug)]
pub struct Inventory {
    databases: HashMap<String, DatabaseRow>,
    roles: HashMap<String, RoleRow>,
    rights: Rights,
    last_transaction: i64,
}

impl Inventory {
    /// The next transaction id (64 bits, never reused) when this was read: a server on which it is lower than before
    /// was restored to an older state.
    pub fn last_transaction(&self) -> i64 {
        self.last_transaction
    }

    /// What there is of one tenant.
    pub fn facts(&self, id: TenantId, database: &str, login: &str) -> TenantFacts {
        let database_facts = |name: &str| {
            let row = self.databases.get(name)?;
            let may_connect = |role: &str| row.connect.iter().flatten().any(|grantee| grantee == role);
            Some(DatabaseFacts {
                name: name.to_owned(),
                oid: row.oid,
                mark: Mark::of(row.comment.as_deref(), id),
                owned: row.owner == DBA.as_str(),
                allow_connections: row.open,
                drop_interrupted: row.connection_limit == -2,
                connection_limit: row.connection_limit,
                template_digest: row.comment.as_deref().and_then(mark::template_digest),
                login_may_connect: may_connect(login),
                migrator_may_connect: may_connect(MIGRATOR.as_str()),
                open_to_public: row.public,
            })
        };
        TenantFacts {
            database: database_facts(database),
            building: database_facts(&building_name(id)),
            login: self.roles.get(login).map(|row| {
                let (groups, foreign) =
                    row.member_of.iter().cloned().partition(|name| GROUPS.iter().any(|g| g.as_str() == name));
                LoginFacts {
                    oid: row.oid,
                    mark: Mark::of(row.comment.as_deref(), id),
                    can_login: row.can_login,
                    groups,
                    foreign_memberships: foreign,
                    foreign_members: row.members.clone(),
                    privileged: row.privileged,
                    beyond_us: row.beyond_us,
                    connection_limit: row.connection_limit,
                    narrowing: row.comment.as_deref().is_some_and(mark::is_narrowing),
                }
            }),
        }
    }

    /// A template, if there is a database of that name.
    pub(super) fn template(&self, name: &str) -> Option<TemplateFacts<'_>> {
        self.databases.get(name).map(|row| TemplateFacts {
            comment: row.comment.as_deref(),
            owned: row.owner == DBA.as_str(),
            drop_interrupted: row.connection_limit == -2,
        })
    }

    /// The databases with a tenant's mark, and that tenant: whatever is ours, wherever a registry believes it to be.
    pub fn marked_databases(&self) -> impl Iterator<Item = (&str, TenantId)> {
        self.databases.iter().filter_map(|(name, row)| match Mark::of(row.comment.as_deref(), NOBODY) {
            Mark::Tenant(id) => Some((name.as_str(), id)),
            _ => None,
        })
    }

    /// The published databases that `tenantry_migrator` may enter, and their tenants.
    pub fn open_to_the_migrator(&self) -> Vec<(String, TenantId)> {
        let is_open = |(name, id): &(&str, TenantId)| {
            let connect = self.databases.get(*name).map_or(&[][..], |row| &row.connect);
            *name != building_name(*id)
                && connect.iter().flatten().any(|grantee| grantee == MIGRATOR.as_str())
        };
        self.marked_databases().filter(is_open).map(|(name, id)| (name.to_owned(), id)).collect()
    }

    /// Whether sessions of tenants can be ended and seen.
    pub(super) fn rights(&self) -> Rights {
        self.rights
    }
}

/// What is known of a template.
pub(super) struct TemplateFacts<'a> {
    pub comment: Option<&'a str>,
    pub owned: bool,
    pub drop_interrupted: bool,
}

/// No tenant has it: ids are random.
const NOBODY: TenantId = TenantId(uuid::Uuid::nil());

/// What `tenantry_admin` may do with other roles' sessions.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Rights {
    /// `pg_signal_backend`.
    pub signal: bool,
    /// `pg_read_all_stats`.
    pub stats: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct DatabaseRow {
    name: String,
    oid: i64,
    comment: Option<String>,
    owner: String,
    open: bool,
    connection_limit: i32,
    /// Who has CONNECT by name; PUBLIC is null.
    connect: Vec<Option<String>>,
    public: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct RoleRow {
    name: String,
    oid: i64,
    comment: Option<String>,
    can_login: bool,
    privileged: bool,
    beyond_us: bool,
    connection_limit: i32,
    member_of: Vec<String>,
    members: Vec<String>,
}

/// The sub-selects are per row and go by index; with `$1` and `$2` null they are for the whole server.
const QUERY: &str = "\
SELECT
  coalesce((
    SELECT jsonb_agg(jsonb_build_object(
      'name', d.datname,
      'oid', d.oid::bigint,
      'comment', shobj_description(d.oid, 'pg_database'),
      'owner', pg_get_userbyid(d.datdba),
      'open', d.datallowconn,
      'connection_limit', d.datconnlimit,
      'connect', (
        SELECT coalesce(jsonb_agg(CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END), '[]')
        FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
        WHERE a.privilege_type = 'CONNECT'),
      'public', EXISTS (
        SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a WHERE a.grantee = 0)))
    FROM pg_database AS d
    WHERE $1::text[] IS NULL OR d.datname = ANY ($1)), '[]') AS databases,
  coalesce((
    SELECT jsonb_agg(jsonb_build_object(
      'name', r.rolname,
      'oid', r.oid::bigint,
      'comment', shobj_description(r.oid, 'pg_authid'),
      'can_login', r.rolcanlogin,
      'privileged', r.rolcreatedb OR r.rolcreaterole,
      'beyond_us', r.rolsuper OR r.rolreplication OR r.rolbypassrls,
      'connection_limit', r.rolconnlimit,
      'member_of', (
        SELECT coalesce(jsonb_agg(DISTINCT pg_get_userbyid(m.roleid)), '[]')
        FROM pg_auth_members AS m WHERE m.member = r.oid),
      'members', (
        SELECT coalesce(jsonb_agg(DISTINCT pg_get_userbyid(m.member)), '[]')
        FROM pg_auth_members AS m
        WHERE m.roleid = r.oid AND pg_get_userbyid(m.member) <> 'tenantry_admin')))
    FROM pg_roles AS r
    WHERE r.rolname !~ '^pg_' AND ($2::text[] IS NULL OR r.rolname = ANY ($2))), '[]') AS roles,
  jsonb_build_object(
    'signal', pg_has_role('pg_signal_backend', 'USAGE'),
    'stats', pg_has_role('pg_read_all_stats', 'USAGE')) AS rights,
  pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS last_transaction";

/// Reads the given databases and roles, or everything.
pub(super) async fn read(session: &mut PgConnection, only: Option<(&[&str], &[&str])>) -> Result<Inventory> {
    let (databases, roles) = only.unzip();
    let query = sqlx::query_as::<_, (Json<Vec<DatabaseRow>>, Json<Vec<RoleRow>>, Json<Rights>, i64)>(QUERY)
        .bind(databases)
        .bind(roles)
        .fetch_one(session);
    let (Json(databases), Json(roles), Json(rights), last_transaction) =
        within(ANSWER_LIMIT, "read the catalogues", query).await?;
    Ok(Inventory {
        databases: databases.into_iter().map(|row| (row.name.clone(), row)).collect(),
        roles: roles.into_iter().map(|row| (row.name.clone(), row)).collect(),
        rights,
        last_transaction,
    })
}
