//! The rights in a tenant's database, read from its catalogs with one query.

use sqlx::{PgConnection, types::Json};

use super::ownership;
use crate::{
    domain::{identity::TenantId, support::rights::ReadRights},
    postgres::{
        error::Result,
        identifier::{GROUPS, Ident},
        session::connect::{STATEMENT_LIMIT, with_timeout},
    },
};

/// Objects of PostgreSQL and of extensions are left out: those that a superuser owns, since an extension's owner can make what
/// is its own a member. A missing ACL is the kind's default. An aggregate calls its functions with the rights of its own owner
/// to call them: if one of them runs with its owner's rights, so does the aggregate.
///
/// Columns without rights of their own, and what must be hidden from support logins, are read only while the tenant `$2` has
/// such a login. Hidden is a column that a comment marks, and what shows it under another name: the column of that name in the
/// tables that inherit from its table or to it, partitions included; a column whose type is its table's row, an array or a domain
/// of that, or has such a field; a generated column that is computed from it; and every column of a view that reads its table with the rights of the view's owner. (Of a whole row in a view, `pg_depend` has the
/// table only.) What is computed from it in other ways has to be marked itself.
const QUERY: &str = "\
WITH RECURSIVE grantees AS (
  SELECT oid FROM pg_roles WHERE rolname = ANY ($1)
), support AS (
  SELECT r.oid, r.rolname, r.rolcanlogin FROM pg_roles AS r JOIN pg_shdescription AS d ON d.objoid = r.oid
  WHERE d.classoid = 'pg_authid'::regclass AND starts_with(d.description, $2)
), marked AS (
  SELECT a.attrelid, a.attname FROM pg_attribute AS a JOIN pg_description AS d ON d.objoid = a.attrelid
  WHERE EXISTS (SELECT FROM support) AND d.classoid = 'pg_class'::regclass AND d.objsubid IN (0, a.attnum) AND a.attnum > 0
    AND d.description ~* '\\mtenantry\\s*:\\s*secret\\M'
  UNION
  SELECT a.attrelid, a.attname FROM pg_attribute AS a
  WHERE EXISTS (SELECT FROM support) AND a.attrelid = to_regclass('tenantry.admins') AND a.attname = 'token_hash'
), unwrapped (relation, name, type) AS (
  SELECT attrelid, attname, atttypid FROM pg_attribute WHERE atttypid >= 16384 AND attnum > 0 AND EXISTS (SELECT FROM support)
  UNION
  SELECT u.relation, u.name, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END FROM unwrapped AS u JOIN pg_type AS t ON t.oid = u.type
), rows_in_columns (relation, name, row_of) AS MATERIALIZED (
  SELECT u.relation, u.name, t.typrelid FROM unwrapped AS u JOIN pg_type AS t ON t.oid = u.type WHERE t.typrelid <> 0
), secret (relation, name) AS (
  SELECT attrelid, attname FROM marked
  UNION
  SELECT more.attrelid, more.attname FROM secret AS s CROSS JOIN LATERAL (
    SELECT a.attrelid, a.attname FROM pg_inherits AS i JOIN pg_attribute AS a
      ON a.attrelid = CASE s.relation WHEN i.inhrelid THEN i.inhparent ELSE i.inhrelid END AND a.attname = s.name
    WHERE s.relation IN (i.inhrelid, i.inhparent)
    UNION ALL
    SELECT c.relation, c.name FROM rows_in_columns AS c WHERE c.row_of = s.relation
    UNION ALL
    SELECT g.attrelid, g.attname FROM pg_attribute AS g JOIN pg_attrdef AS e ON e.adrelid = g.attrelid AND e.adnum = g.attnum
      JOIN pg_depend AS d ON (d.classid, d.objid) = ('pg_attrdef'::regclass, e.oid)
        OR (d.classid, d.objid, d.objsubid) = ('pg_class'::regclass, g.attrelid, g.attnum)
      JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE g.attgenerated <> '' AND g.attrelid = s.relation AND d.refclassid = 'pg_class'::regclass
      AND d.refobjid = s.relation AND a.attname = s.name) AS more
), readers (relation) AS (
  SELECT relation FROM secret
  UNION
  SELECT v.ev_class FROM readers AS r
    JOIN pg_depend AS d ON d.refobjid = r.relation AND d.refclassid = 'pg_class'::regclass AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite AS v ON v.oid = d.objid
), hidden_views AS (
  SELECT c.oid FROM pg_class AS c JOIN readers AS r ON r.relation = c.oid
  WHERE c.relkind = 'm' OR c.relkind = 'v' AND NOT EXISTS (
    SELECT FROM pg_options_to_table(c.reloptions) AS o
    WHERE o.option_name = 'security_invoker' AND o.option_value::boolean)
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
), objects (kind, schema, schema_owner, address, field, owner, acl, hidden) AS (
  SELECT CASE c.relkind WHEN 'S' THEN 'Sequence' ELSE 'Table' END, s.nspname, pg_get_userbyid(s.nspowner), format('%I.%I', s.nspname, c.relname),
         NULL, c.relowner, coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner)), true
  FROM pg_class AS c JOIN spaces AS s ON s.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    AND NOT (c.relowner IN (TABLE superusers)
      AND EXISTS (SELECT FROM members AS m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid))
  UNION ALL
  SELECT 'Column', s.nspname, pg_get_userbyid(s.nspowner), format('%I.%I', s.nspname, c.relname), format('%I', a.attname), c.relowner, a.attacl,
         c.relkind NOT IN ('r', 'p', 'v', 'm') OR a.attnum < 0 OR c.oid IN (TABLE hidden_views)
           OR (c.oid, a.attname) IN (SELECT relation, name FROM secret)
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN spaces AS s ON s.oid = c.relnamespace
  WHERE NOT a.attisdropped AND (a.attacl IS NOT NULL
    OR a.attnum > 0 AND c.relkind IN ('r', 'p', 'v', 'm') AND EXISTS (SELECT FROM support))
  UNION ALL
  SELECT CASE WHEN p.oid IN (TABLE definers) THEN 'Definer' ELSE 'Function' END, s.nspname, pg_get_userbyid(s.nspowner),
         format('%I.%I(%s)', s.nspname, p.proname,
           CASE p.prokind WHEN 'a' THEN oidvectortypes(p.proargtypes) ELSE pg_get_function_identity_arguments(p.oid) END), NULL, p.proowner,
         coalesce(p.proacl, acldefault('f', p.proowner)), true
  FROM pg_proc AS p JOIN spaces AS s ON s.oid = p.pronamespace
  WHERE NOT (p.proowner IN (TABLE superusers)
    AND EXISTS (SELECT FROM members AS m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid))
  UNION ALL
  SELECT 'Schema', s.nspname, pg_get_userbyid(s.nspowner), format('%I', s.nspname), NULL, s.nspowner, coalesce(s.nspacl, acldefault('n', s.nspowner)), true
  FROM spaces AS s
  WHERE NOT (s.nspowner IN (TABLE superusers)
    AND EXISTS (SELECT FROM members AS m WHERE m.classid = 'pg_namespace'::regclass AND m.objid = s.oid))
  UNION ALL
  SELECT k.kind, s.nspname, s.owner, format('%I', s.nspname), NULL, o.oid,
         coalesce(d.defaclacl, CASE WHEN s.oid = 0 THEN acldefault(k.initial, o.oid) END), true
  FROM (VALUES ('DefaultTables', 'r'::\"char\", 'r'::\"char\"), ('DefaultSequences', 'S', 's'), ('DefaultFunctions', 'f', 'f'))
       AS k (kind, type, initial)
  CROSS JOIN (SELECT 0::oid AS oid, '' AS nspname, ''::name AS owner
              UNION ALL SELECT oid, nspname, pg_get_userbyid(nspowner) FROM spaces) AS s
  JOIN pg_roles AS o ON o.rolname = 'tenantry_owner'
  LEFT JOIN pg_default_acl AS d ON d.defaclrole = o.oid AND d.defaclnamespace = s.oid AND d.defaclobjtype = k.type
)
SELECT jsonb_build_object('support', (SELECT coalesce(jsonb_agg(rolname ORDER BY rolname) FILTER (WHERE rolcanlogin), '[]') FROM support),
 'objects', coalesce(jsonb_agg(jsonb_build_object(
  'hidden', o.hidden,
  'object', jsonb_build_object(
    'kind', o.kind, 'schema', o.schema, 'schema_owner', o.schema_owner, 'address', o.address, 'column', o.field, 'owner', pg_get_userbyid(o.owner)),
  'granted', (
    SELECT coalesce(jsonb_agg(g), '[]') FROM (
      SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END AS grantee,
             jsonb_agg(a.privilege_type) AS privileges, bool_or(a.is_grantable) AS grantable
      FROM aclexplode(o.acl) AS a WHERE a.grantee = 0 OR a.grantee IN (SELECT oid FROM grantees)
      GROUP BY a.grantee) AS g),
  'support', (
    SELECT coalesce(jsonb_agg(g), '[]') FROM (
      SELECT pg_get_userbyid(a.grantee) AS grantee, jsonb_agg(a.privilege_type) AS privileges, bool_or(a.is_grantable) AS grantable
      FROM aclexplode(o.acl) AS a WHERE a.grantee IN (SELECT oid FROM support)
      GROUP BY a.grantee) AS g))
  ORDER BY o.kind, o.address, o.field), '[]'))
FROM objects AS o";

/// Reads who of the tenant's roles and of everybody has which rights on each object of the session's database, and which
/// support logins `tenant` has.
pub(in crate::postgres) async fn read_rights(
    session: &mut PgConnection,
    tenant: Option<TenantId>,
    logins: &[&str],
) -> Result<ReadRights> {
    let groups = GROUPS;
    let roles: Vec<&str> = groups.iter().map(Ident::as_str).chain(logins.iter().copied()).collect();
    let support = tenant.map(ownership::support_logins_of);
    let query = sqlx::query_scalar(QUERY).bind(roles).bind(support).fetch_one(session);
    let Json(rights) = with_timeout(STATEMENT_LIMIT, "read the rights in the database", query).await?;
    Ok(rights)
}
