//! The databases, roles, memberships, ownership comments and rights on a server, read from the shared catalogs with one
//! query, for one tenant or for all.

mod marked;

use std::{collections::HashMap, ops::Deref, sync::Arc};

use serde::Deserialize;
use sqlx::{PgConnection, types::Json};

use crate::{
    domain::{
        identity::TenantId,
        names::building_name,
        placement::Placement,
        tenant_facts::{
            DatabaseProperties, ForeignGrant, LoginProperties, OtherKind, OtherLogin, RecordedOids,
            SessionSetting, StrayRole, TenantFacts,
        },
    },
    postgres::{
        error::Result,
        identifier::{DBA, GROUPS},
        session::connect::{ANSWER_LIMIT, with_timeout},
    },
};

use super::ownership;

/// The databases and roles of a whole server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inventory {
    content: Arc<Content>,
    last_transaction: i64,
}

impl Deref for Inventory {
    type Target = Content;

    fn deref(&self) -> &Content {
        &self.content
    }
}

/// What was read of a server, until something changes there.
#[derive(Debug)]
pub struct Content {
    /// Of all of the following, as the server computed it.
    digest: String,
    databases: HashMap<String, DatabaseRow>,
    roles: HashMap<String, RoleRow>,
    /// The names of the roles whose comment names a tenant.
    roles_of: HashMap<TenantId, Vec<String>>,
    role_names: HashMap<i64, String>,
    rights: Rights,
}

impl Inventory {
    /// The next transaction id (64 bits, never reused) at the time of reading. A server on which it is lower than before
    /// was restored to an older state.
    pub fn last_transaction(&self) -> i64 {
        self.last_transaction
    }

    /// The facts of one tenant, by its names and the comments.
    pub fn facts(&self, placement: &Placement) -> TenantFacts {
        self.facts_recorded(placement, RecordedOids::default())
    }

    /// The facts of one tenant. A role with the recorded oid is the tenant's too, if it lost its comment.
    pub fn facts_recorded(&self, placement: &Placement, recorded: RecordedOids) -> TenantFacts {
        let Placement { tenant: id, database, login, .. } = placement;
        let own = self.databases.get(database);
        let other = |kind, name: &Option<String>| {
            name.as_ref().map(|name| OtherLogin {
                kind,
                name: name.clone(),
                role: self.roles.get(name).map(|row| row.properties(*id, database)),
                may_connect: own.is_some_and(|row| row.may_connect(name)),
            })
        };
        TenantFacts {
            database: own.map(|row| row.properties(*id, login)),
            building: self.databases.get(&building_name(*id)).map(|row| row.properties(*id, login)),
            login: self.roles.get(login).map(|row| row.properties(*id, database)),
            previous: other(OtherKind::Previous, &placement.previous_login),
            reader: other(OtherKind::Reader, &placement.reader_login),
            strays: self.strays(placement, recorded),
        }
    }

    /// The roles that are a tenant's, and have not the name of one of its logins.
    fn strays(&self, placement: &Placement, recorded: RecordedOids) -> Vec<StrayRole> {
        let marked = self.roles_of.get(&placement.tenant).into_iter().flatten();
        let known = recorded.login.and_then(|oid| self.role_names.get(&oid));
        let mut strays = Vec::new();
        for row in marked.chain(known).filter_map(|name| self.roles.get(name)) {
            let ownership = ownership::of(row.comment.as_deref(), placement.tenant);
            let is_own = ownership.is_ours() || ownership.is_lost(row.oid, recorded.login);
            let is_listed = strays.iter().any(|stray: &StrayRole| stray.oid == row.oid);
            if placement.logins().any(|login| login == row.name) || !is_own || is_listed {
                continue;
            }
            let may_connect =
                self.databases.get(&placement.database).is_some_and(|found| found.may_connect(&row.name));
            strays.push(StrayRole {
                name: row.name.clone(),
                oid: row.oid,
                ownership,
                has_access: row.can_login || may_connect || !row.member_of.is_empty(),
            });
        }
        strays
    }

    /// The databases whose comment names a tenant, and that tenant, whatever the registry has recorded.
    pub fn owned_databases(&self) -> impl Iterator<Item = (&str, TenantId)> {
        self.databases
            .iter()
            .filter_map(|(name, row)| Some((name.as_str(), ownership::tenant_of(row.comment.as_deref()?)?)))
    }

    /// Which rights on other roles' sessions `tenantry_admin` has.
    pub(in crate::postgres) fn rights(&self) -> Rights {
        self.rights
    }
}

/// The rights of `tenantry_admin` on other roles' sessions.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(in crate::postgres) struct Rights {
    /// `pg_signal_backend`.
    pub signal: bool,
    /// `pg_read_all_stats`.
    pub stats: bool,
}

/// The databases and the roles, unless they are the same as before; the rights, the next transaction, the digest.
type Read = (Option<Json<Vec<DatabaseRow>>>, Option<Json<Vec<RoleRow>>>, Json<Rights>, i64, String);

#[derive(Clone, Debug, Deserialize)]
struct DatabaseRow {
    name: String,
    oid: i64,
    comment: Option<String>,
    owner: String,
    open: bool,
    template: bool,
    connection_limit: i32,
    /// The roles with CONNECT; PUBLIC is null.
    connect: Vec<Option<String>>,
    public: bool,
    settings: Vec<SettingRow>,
}

#[derive(Clone, Debug, Deserialize)]
struct RoleRow {
    name: String,
    oid: i64,
    comment: Option<String>,
    can_login: bool,
    inherits: bool,
    valid_until: Option<String>,
    privileged: bool,
    beyond_us: bool,
    out_of_reach: bool,
    connection_limit: i32,
    member_of: Vec<MembershipRow>,
    members: Vec<MembershipRow>,
    settings: Vec<SettingRow>,
}

/// A membership of a role: the other role, and how it was granted.
#[derive(Clone, Debug, Deserialize)]
struct MembershipRow {
    name: String,
    grantor: String,
    plain: bool,
    revocable: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct SettingRow {
    /// None: all that are stored there.
    name: Option<String>,
    /// The database in which it holds; none: in all.
    database: Option<String>,
    resettable: bool,
}

impl SettingRow {
    fn value(&self) -> SessionSetting {
        let Self { name, database, resettable } = self;
        SessionSetting { name: name.clone(), database: database.clone(), resettable: *resettable }
    }
}

impl DatabaseRow {
    fn may_connect(&self, role: &str) -> bool {
        self.connect.iter().flatten().any(|grantee| grantee == role)
    }

    /// As the database of a tenant, with a login of this name.
    fn properties(&self, tenant: TenantId, login: &str) -> DatabaseProperties {
        DatabaseProperties {
            name: self.name.clone(),
            oid: self.oid,
            ownership: ownership::of(self.comment.as_deref(), tenant),
            is_adopting: self.comment.as_deref().is_some_and(ownership::is_adopting),
            owned_by_dba: self.owner == DBA.as_str(),
            allow_connections: self.open,
            drop_interrupted: self.connection_limit == -2,
            connection_limit: self.connection_limit,
            template_digest: self.comment.as_deref().and_then(ownership::template_digest),
            login_may_connect: self.may_connect(login),
            open_to_public: self.public,
            is_template: self.template,
            settings: self.settings.iter().map(SettingRow::value).collect(),
        }
    }
}

impl RoleRow {
    /// As the login of a tenant with this database.
    fn properties(&self, tenant: TenantId, database: &str) -> LoginProperties {
        let is_group = |name: &str| GROUPS.iter().any(|group| group.as_str() == name);
        let revocable = |rows: &[MembershipRow], wanted: &dyn Fn(&MembershipRow) -> bool| {
            let found = rows.iter().filter(|row| row.revocable && wanted(row)).map(|row| row.name.clone());
            let mut names: Vec<String> = found.collect();
            names.sort_unstable();
            names.dedup();
            names
        };
        let foreign_grants = self.member_of.iter().map(|row| (row, &row.name, &self.name));
        let in_it = self.members.iter().map(|row| (row, &self.name, &row.name));
        let foreign_grants = foreign_grants.chain(in_it).filter(|(row, ..)| !row.revocable);
        // In other databases, the login has no session: what a superuser stored for those is the superuser's business.
        let counts =
            |row: &&SettingRow| row.resettable || row.database.as_ref().is_none_or(|place| place == database);
        LoginProperties {
            name: self.name.clone(),
            oid: self.oid,
            ownership: ownership::of(self.comment.as_deref(), tenant),
            can_login: self.can_login,
            inherits: self.inherits,
            valid_until: self.valid_until.clone(),
            settings: self.settings.iter().filter(counts).map(SettingRow::value).collect(),
            groups: revocable(&self.member_of, &|row| is_group(&row.name) && row.plain),
            flawed_groups: revocable(&self.member_of, &|row| is_group(&row.name) && !row.plain),
            foreign_memberships: revocable(&self.member_of, &|row| !is_group(&row.name)),
            foreign_members: revocable(&self.members, &|_| true),
            foreign_grants: foreign_grants
                .map(|(row, role, member)| ForeignGrant {
                    role: role.clone(),
                    member: member.clone(),
                    grantor: row.grantor.clone(),
                    plain: row.plain,
                })
                .collect(),
            may_create: self.privileged,
            has_superuser_attributes: self.beyond_us,
            is_out_of_reach: self.out_of_reach,
            connection_limit: self.connection_limit,
            is_revocation_unproven: self.comment.as_deref().is_some_and(ownership::is_revocation_unproven),
            is_kept: self.comment.as_deref().is_some_and(ownership::is_kept),
        }
    }
}

/// The sub-selects run per row and use an index. With `$1`, `$2` and `$4` null, it reads the whole server; else the databases
/// `$1`, and the roles that are named in `$2`, have the oid `$3`, or a comment that begins with `$4`.
///
/// Of the settings, those that only a superuser can make and that concern logs, statistics and resources are left out, as
/// are those of extensions: they are the administrator's, and keep no client out. (`pg_settings` does not show `role`, and hides
/// what only a superuser may read.) Values can have any size, since a login stores its own: only what is stored in the row
/// itself, and not compressed, is read. `pg_column_size` and `pg_column_compression` do not read it. Before 16,
/// `tenantry_admin` may revoke every membership.
///
/// Whether `tenantry_admin` may change a role is read only of those that it did not create, since each look-up reads all its
/// memberships.
///
/// If all of it has the digest `$5`, which was read before, the databases and the roles are left out.
const QUERY: &str = "\
SELECT
  CASE WHEN digest IS DISTINCT FROM $5 THEN databases END AS databases,
  CASE WHEN digest IS DISTINCT FROM $5 THEN roles END AS roles,
  rights, last_transaction, digest
FROM (SELECT *, encode(sha256(convert_to(concat_ws(' ', databases, roles, rights), 'UTF8')), 'hex') AS digest FROM (
WITH wanted AS (
  SELECT oid FROM pg_roles WHERE $2::text[] IS NULL
  UNION
  SELECT oid FROM pg_roles WHERE rolname = ANY ($2)
  UNION
  SELECT $3::bigint::oid
  UNION
  SELECT objoid FROM pg_shdescription
  WHERE $4::text IS NOT NULL AND classoid = 'pg_authid'::regclass AND starts_with(description, $4)
), parameters AS MATERIALIZED (
  SELECT name, context, category FROM pg_settings
), settings AS (
  SELECT s.setdatabase, s.setrole, jsonb_build_object(
      'name', p.name,
      'database', d.datname,
      'resettable', p.name IS NULL OR coalesce(g.context = 'user', p.name IN ('role', 'seed', 'session_authorization')) OR has_parameter_privilege(p.name, 'SET')) AS setting
  FROM pg_db_role_setting AS s
  LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
  CROSS JOIN LATERAL unnest(CASE
      WHEN pg_column_size(s.setconfig) < 2048 AND pg_column_compression(s.setconfig) IS NULL THEN s.setconfig
      ELSE '{NULL}' END) AS c
  CROSS JOIN LATERAL split_part(c, '=', 1) AS p (name)
  LEFT JOIN parameters AS g ON lower(g.name) = lower(p.name)
  WHERE ($2 IS NULL OR s.setrole = 0 OR s.setrole IN (SELECT oid FROM wanted))
    AND (s.setdatabase = 0 OR d.oid IS NOT NULL) AND CASE
      WHEN p.name IS NULL THEN true
      WHEN g.name IS NULL THEN strpos(p.name, '.') = 0
      ELSE g.context = 'user' OR g.category !~ '^(Reporting and Logging|Statistics|Resource Usage|Customized Options)'
    END
), of_databases AS (
  SELECT setdatabase AS oid, jsonb_agg(setting) AS settings FROM settings WHERE setrole = 0 GROUP BY setdatabase
), of_roles AS (
  SELECT setrole AS oid, jsonb_agg(setting) AS settings FROM settings GROUP BY setrole
)
SELECT
  coalesce((
    SELECT jsonb_agg(jsonb_build_object(
      'name', d.datname,
      'oid', d.oid::bigint,
      'comment', shobj_description(d.oid, 'pg_database'),
      'owner', pg_get_userbyid(d.datdba),
      'open', d.datallowconn,
      'template', d.datistemplate,
      'connection_limit', d.datconnlimit,
      'connect', (
        SELECT coalesce(jsonb_agg(CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END), '[]')
        FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
        WHERE a.privilege_type = 'CONNECT'),
      'public', EXISTS (
        SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a WHERE a.grantee = 0),
      'settings', coalesce(s.settings, '[]')) ORDER BY d.oid)
    FROM pg_database AS d LEFT JOIN of_databases AS s ON s.oid = d.oid
    WHERE $1::text[] IS NULL OR d.datname = ANY ($1)), '[]') AS databases,
  coalesce((
    SELECT jsonb_agg(jsonb_build_object(
      'name', r.rolname,
      'oid', r.oid::bigint,
      'comment', shobj_description(r.oid, 'pg_authid'),
      'can_login', r.rolcanlogin,
      'inherits', r.rolinherit,
      'valid_until', CASE WHEN isfinite(r.rolvaliduntil) THEN r.rolvaliduntil::text END,
      'privileged', r.rolcreatedb OR r.rolcreaterole,
      'beyond_us', r.rolsuper OR r.rolreplication OR r.rolbypassrls,
      'out_of_reach', CASE
        WHEN shobj_description(r.oid, 'pg_authid') ~ '^tenantry:tenant:.* kept' THEN
          current_setting('server_version_num')::int >= 160000 AND NOT pg_has_role(r.oid, 'USAGE WITH ADMIN OPTION')
        ELSE false END,
      'connection_limit', r.rolconnlimit,
      'member_of', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
          'name', pg_get_userbyid(m.roleid),
          'grantor', pg_get_userbyid(m.grantor),
          'plain', NOT m.admin_option AND coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true),
          'revocable', NOT to_jsonb(m) ? 'inherit_option' OR pg_get_userbyid(m.grantor) = 'tenantry_admin')), '[]')
        FROM pg_auth_members AS m WHERE m.member = r.oid),
      'members', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
          'name', pg_get_userbyid(m.member),
          'grantor', pg_get_userbyid(m.grantor),
          'plain', true,
          'revocable', NOT to_jsonb(m) ? 'inherit_option' OR pg_get_userbyid(m.grantor) = 'tenantry_admin')), '[]')
        FROM pg_auth_members AS m
        WHERE m.roleid = r.oid AND pg_get_userbyid(m.member) <> 'tenantry_admin'),
      'settings', coalesce(s.settings, '[]')) ORDER BY r.oid)
    FROM wanted AS w JOIN pg_roles AS r ON r.oid = w.oid LEFT JOIN of_roles AS s ON s.oid = r.oid
    WHERE r.rolname !~ '^pg_'), '[]') AS roles,
  jsonb_build_object(
    'signal', pg_has_role('pg_signal_backend', 'USAGE'),
    'stats', pg_has_role('pg_read_all_stats', 'USAGE')) AS rights,
  pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS last_transaction
) AS content) AS with_digest";

/// What to read of a server.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::postgres) struct Selection<'a> {
    /// The databases, by name.
    pub databases: &'a [&'a str],
    /// The roles, by name.
    pub roles: &'a [&'a str],
    /// A tenant whose roles are read under every name, and the recorded oid of its login.
    pub roles_of: Option<(TenantId, Option<i64>)>,
}

/// Reads the databases and the roles of these names, or everything.
pub(in crate::postgres) async fn read(
    session: &mut PgConnection,
    only: Option<(&[&str], &[&str])>,
) -> Result<Inventory> {
    let selection = only.map(|(databases, roles)| Selection { databases, roles, roles_of: None });
    read_selected(session, selection).await
}

/// Reads a selection, or everything.
pub(in crate::postgres) async fn read_selected(
    session: &mut PgConnection,
    only: Option<Selection<'_>>,
) -> Result<Inventory> {
    read_unless_same(session, only, None).await
}

/// Reads a selection, or everything; only its digest if it is the same as before.
pub(in crate::postgres) async fn read_unless_same(
    session: &mut PgConnection,
    only: Option<Selection<'_>>,
    before: Option<&Inventory>,
) -> Result<Inventory> {
    let tenant = only.and_then(|only| only.roles_of);
    let query = sqlx::query_as::<_, Read>(QUERY)
        .bind(only.map(|only| only.databases))
        .bind(only.map(|only| only.roles))
        .bind(tenant.and_then(|(_, oid)| oid))
        .bind(tenant.map(|(id, _)| ownership::login(id)))
        .bind(before.map(|before| before.digest.clone()))
        .fetch_one(session);
    let (databases, roles, Json(rights), last_transaction, digest) =
        with_timeout(ANSWER_LIMIT, "read the catalogues", query).await?;
    if let Some(before) = before.filter(|before| before.digest == digest) {
        return Ok(Inventory { last_transaction, ..before.clone() });
    }
    let databases = databases.map(|Json(databases)| databases).unwrap_or_default();
    let roles = roles.map(|Json(roles)| roles).unwrap_or_default();
    let mut roles_of: HashMap<TenantId, Vec<String>> = HashMap::new();
    for row in &roles {
        if let Some(id) = row.comment.as_deref().and_then(ownership::tenant_of) {
            roles_of.entry(id).or_default().push(row.name.clone());
        }
    }
    let content = Content {
        digest,
        databases: databases.into_iter().map(|row| (row.name.clone(), row)).collect(),
        roles_of,
        role_names: roles.iter().map(|row| (row.oid, row.name.clone())).collect(),
        roles: roles.into_iter().map(|row| (row.name.clone(), row)).collect(),
        rights,
    };
    Ok(Inventory { content: Arc::new(content), last_transaction })
}
