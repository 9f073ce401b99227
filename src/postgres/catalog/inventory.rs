//! The databases, roles, memberships, ownership comments and rights on a server, read from the shared catalogs with one
//! query, for one tenant or for all.

use std::collections::HashMap;

use serde::Deserialize;
use sqlx::{PgConnection, types::Json};

use crate::{
    domain::{
        identity::TenantId,
        names::building_name,
        placement::Placement,
        tenant_facts::{DatabaseProperties, LoginProperties, Ownership, TenantFacts},
    },
    postgres::{
        error::Result,
        identifier::{DBA, GROUPS, MIGRATOR},
        session::connect::{ANSWER_LIMIT, with_timeout},
    },
};

use super::ownership;

/// The databases and roles of a whole server.
#[derive(Clone, Debug)]
pub struct Inventory {
    databases: HashMap<String, DatabaseRow>,
    roles: HashMap<String, RoleRow>,
    rights: Rights,
    last_transaction: i64,
}

impl Inventory {
    /// The next transaction id (64 bits, never reused) at the time of reading. A server on which it is lower than before
    /// was restored to an older state.
    pub fn last_transaction(&self) -> i64 {
        self.last_transaction
    }

    /// The facts of one tenant.
    pub fn facts(&self, placement: &Placement) -> TenantFacts {
        let Placement { tenant: id, database, login, .. } = placement;
        let database_facts = |name: &str| {
            let row = self.databases.get(name)?;
            let may_connect = |role: &str| row.connect.iter().flatten().any(|grantee| grantee == role);
            Some(DatabaseProperties {
                name: name.to_owned(),
                oid: row.oid,
                ownership: ownership::of(row.comment.as_deref(), *id),
                owned_by_dba: row.owner == DBA.as_str(),
                allow_connections: row.open,
                drop_interrupted: row.connection_limit == -2,
                connection_limit: row.connection_limit,
                template_digest: row.comment.as_deref().and_then(ownership::template_digest),
                login_may_connect: may_connect(login),
                migrator_may_connect: may_connect(MIGRATOR.as_str()),
                open_to_public: row.public,
            })
        };
        TenantFacts {
            database: database_facts(database),
            building: database_facts(&building_name(*id)),
            login: self.roles.get(login).map(|row| {
                let (groups, foreign) =
                    row.member_of.iter().cloned().partition(|name| GROUPS.iter().any(|g| g.as_str() == name));
                LoginProperties {
                    name: login.clone(),
                    oid: row.oid,
                    ownership: ownership::of(row.comment.as_deref(), *id),
                    can_login: row.can_login,
                    groups,
                    foreign_memberships: foreign,
                    foreign_members: row.members.clone(),
                    may_create: row.privileged,
                    has_superuser_attributes: row.beyond_us,
                    connection_limit: row.connection_limit,
                    is_revocation_unproven: row
                        .comment
                        .as_deref()
                        .is_some_and(ownership::is_revocation_unproven),
                }
            }),
        }
    }

    /// The databases whose comment names a tenant, and that tenant, whatever the registry has recorded.
    pub fn owned_databases(&self) -> impl Iterator<Item = (&str, TenantId)> {
        self.databases.iter().filter_map(|(name, row)| {
            match ownership::of(row.comment.as_deref(), NO_TENANT) {
                Ownership::OtherTenant(id) => Some((name.as_str(), id)),
                _ => None,
            }
        })
    }

    /// The published databases on which `tenantry_migrator` has CONNECT, and their tenants.
    pub fn migrator_grants(&self) -> Vec<(String, TenantId)> {
        let is_open = |(name, id): &(&str, TenantId)| {
            let connect = self.databases.get(*name).map_or(&[][..], |row| &row.connect);
            *name != building_name(*id)
                && connect.iter().flatten().any(|grantee| grantee == MIGRATOR.as_str())
        };
        self.owned_databases().filter(is_open).map(|(name, id)| (name.to_owned(), id)).collect()
    }

    /// Which rights on other roles' sessions `tenantry_admin` has.
    pub(in crate::postgres) fn rights(&self) -> Rights {
        self.rights
    }
}

/// An id that no tenant has: ids are random.
const NO_TENANT: TenantId = TenantId(uuid::Uuid::nil());

/// The rights of `tenantry_admin` on other roles' sessions.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(in crate::postgres) struct Rights {
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
    /// The roles with CONNECT; PUBLIC is null.
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

/// The sub-selects run per row and use an index. With `$1` and `$2` null, it reads the whole server.
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
pub(in crate::postgres) async fn read(
    session: &mut PgConnection,
    only: Option<(&[&str], &[&str])>,
) -> Result<Inventory> {
    let (databases, roles) = only.unzip();
    let query = sqlx::query_as::<_, (Json<Vec<DatabaseRow>>, Json<Vec<RoleRow>>, Json<Rights>, i64)>(QUERY)
        .bind(databases)
        .bind(roles)
        .fetch_one(session);
    let (Json(databases), Json(roles), Json(rights), last_transaction) =
        with_timeout(ANSWER_LIMIT, "read the catalogues", query).await?;
    Ok(Inventory {
        databases: databases.into_iter().map(|row| (row.name.clone(), row)).collect(),
        roles: roles.into_iter().map(|row| (row.name.clone(), row)).collect(),
        rights,
        last_transaction,
    })
}
