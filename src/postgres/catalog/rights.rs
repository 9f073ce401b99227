//! The rights in a tenant's database, read from its catalogs with one query.

use sqlx::{PgConnection, types::Json};

use crate::{
    domain::rights::ObjectRights,
    postgres::{
        error::Result,
        identifier::{GROUPS, Ident},
        session::connect::{STATEMENT_LIMIT, with_timeout},
    },
};

/// Objects of PostgreSQL and of extensions are left out: those that a superuser owns, since an extension's owner can make what
/// is its own a member. A missing ACL is the kind's default. An aggregate calls its functions with the rights of its own owner
/// to call them: if one of them runs with its owner's rights, so does the aggregate.
const QUERY: &str = "\
WITH grantees AS (
  SELECT oid FROM pg_roles WHERE rolname = ANY ($1)
), spaces AS (
  SELECT n.oid, n.nspname, n.nspowner, n.nspacl FROM pg_namespace AS n
  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
), superusers AS (
  SELECT oid FROM pg_roles WHERE rolsuper
), members AS (
  SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), definers AS (
  SELECT oid FROM pg_proc WHERE prosecdef
  UNION ALL
  SELECT a.aggfnoid FROM pg_aggregate AS a WHERE EXISTS (
    SELECT FROM pg_proc AS p WHERE p.prosecdef AND p.oid IN (
      a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn))
), objects (kind, schema, schema_owner, address, field, owner, acl) AS (
  SELECT CASE c.relkind WHEN 'S' THEN 'Sequence' ELSE 'Table' END, s.nspname, pg_get_userbyid(s.nspowner), format('%I.%I', s.nspname, c.relname),
         NULL, c.relowner, coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))
  FROM pg_class AS c JOIN spaces AS s ON s.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    AND NOT (c.relowner IN (TABLE superusers)
      AND EXISTS (SELECT FROM members AS m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid))
  UNION ALL
  SELECT 'Column', s.nspname, pg_get_userbyid(s.nspowner), format('%I.%I', s.nspname, c.relname), format('%I', a.attname), c.relowner, a.attacl
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN spaces AS s ON s.oid = c.relnamespace
  WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
  UNION ALL
  SELECT CASE WHEN p.oid IN (TABLE definers) THEN 'Definer' ELSE 'Function' END, s.nspname, pg_get_userbyid(s.nspowner),
         format('%I.%I(%s)', s.nspname, p.proname,
           CASE p.prokind WHEN 'a' THEN oidvectortypes(p.proargtypes) ELSE pg_get_function_identity_arguments(p.oid) END), NULL, p.proowner,
         coalesce(p.proacl, acldefault('f', p.proowner))
  FROM pg_proc AS p JOIN spaces AS s ON s.oid = p.pronamespace
  WHERE NOT (p.proowner IN (TABLE superusers)
    AND EXISTS (SELECT FROM members AS m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid))
  UNION ALL
  SELECT 'Schema', s.nspname, pg_get_userbyid(s.nspowner), format('%I', s.nspname), NULL, s.nspowner, coalesce(s.nspacl, acldefault('n', s.nspowner))
  FROM spaces AS s
  WHERE NOT (s.nspowner IN (TABLE superusers)
    AND EXISTS (SELECT FROM members AS m WHERE m.classid = 'pg_namespace'::regclass AND m.objid = s.oid))
  UNION ALL
  SELECT k.kind, s.nspname, s.owner, format('%I', s.nspname), NULL, o.oid,
         coalesce(d.defaclacl, CASE WHEN s.oid = 0 THEN acldefault(k.initial, o.oid) END)
  FROM (VALUES ('DefaultTables', 'r'::\"char\", 'r'::\"char\"), ('DefaultSequences', 'S', 's'), ('DefaultFunctions', 'f', 'f'))
       AS k (kind, type, initial)
  CROSS JOIN (SELECT 0::oid AS oid, '' AS nspname, ''::name AS owner
              UNION ALL SELECT oid, nspname, pg_get_userbyid(nspowner) FROM spaces) AS s
  JOIN pg_roles AS o ON o.rolname = 'tenantry_owner'
  LEFT JOIN pg_default_acl AS d ON d.defaclrole = o.oid AND d.defaclnamespace = s.oid AND d.defaclobjtype = k.type
)
SELECT coalesce(jsonb_agg(jsonb_build_object(
  'object', jsonb_build_object(
    'kind', o.kind, 'schema', o.schema, 'schema_owner', o.schema_owner, 'address', o.address, 'column', o.field, 'owner', pg_get_userbyid(o.owner)),
  'granted', (
    SELECT coalesce(jsonb_agg(g), '[]') FROM (
      SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END AS grantee,
             jsonb_agg(a.privilege_type) AS privileges, bool_or(a.is_grantable) AS grantable
      FROM aclexplode(o.acl) AS a WHERE a.grantee = 0 OR a.grantee IN (SELECT oid FROM grantees)
      GROUP BY a.grantee) AS g))
  ORDER BY o.kind, o.address, o.field), '[]')
FROM objects AS o";

/// Reads who of the tenant's roles and of everybody has which rights on each object of the session's database.
pub(in crate::postgres) async fn read_rights(
    session: &mut PgConnection,
    logins: &[&str],
) -> Result<Vec<ObjectRights>> {
    let groups = GROUPS;
    let roles: Vec<&str> = groups.iter().map(Ident::as_str).chain(logins.iter().copied()).collect();
    let query = sqlx::query_scalar(QUERY).bind(roles).fetch_one(session);
    let Json(rights) = with_timeout(STATEMENT_LIMIT, "read the rights in the database", query).await?;
    Ok(rights)
}
