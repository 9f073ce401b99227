//! What modules created in a database, read from its catalogs.

use sqlx::{PgConnection, types::Json};

use crate::{
    domain::structure::{SchemaPart, has_meters},
    postgres::{
        error::Result,
        session::connect::{STATEMENT_LIMIT, with_timeout},
    },
};

/// Objects of PostgreSQL and of extensions are left out. Definitions are those of the schema `tenantry`, and of the triggers
/// that call its functions. NOT NULL constraints, which have entries of their own since PostgreSQL 18, are left out.
const QUERY: &str = "\
WITH spaces AS (
  SELECT n.oid, n.nspname, n.nspname = 'tenantry' AS internal FROM pg_namespace AS n
  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
), members AS (
  SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), relations AS (
  SELECT c.oid, c.relkind, format('%I.%I', s.nspname, c.relname) AS name, c.relowner, s.internal
  FROM pg_class AS c JOIN spaces AS s ON s.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S', 'i', 'I')
    AND NOT EXISTS (SELECT FROM members AS m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)
), parts (kind, name, \"table\", owner, definition) AS (
  SELECT CASE WHEN r.relkind IN ('v', 'm') THEN 'View' WHEN r.relkind = 'S' THEN 'Sequence'
              WHEN r.relkind IN ('i', 'I') THEN 'Index' ELSE 'Table' END,
         r.name, NULL, CASE WHEN r.relkind NOT IN ('i', 'I') THEN pg_get_userbyid(r.relowner) END,
         CASE WHEN r.internal AND r.relkind IN ('v', 'm') THEN pg_get_viewdef(r.oid) END
  FROM relations AS r
  UNION ALL
  SELECT 'Column', format('%I', a.attname), r.name, NULL,
         CASE WHEN r.internal THEN format_type(a.atttypid, a.atttypmod) END
  FROM pg_attribute AS a JOIN relations AS r ON r.oid = a.attrelid
  WHERE a.attnum > 0 AND NOT a.attisdropped AND r.relkind IN ('r', 'p', 'f', 'v', 'm')
  UNION ALL
  SELECT 'Constraint', format('%I', c.conname), r.name, NULL,
         CASE WHEN r.internal THEN pg_get_constraintdef(c.oid) END
  FROM pg_constraint AS c JOIN relations AS r ON r.oid = c.conrelid WHERE c.contype <> 'n'
  UNION ALL
  SELECT 'Function', format('%I.%I(%s)', s.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), NULL,
         pg_get_userbyid(p.proowner),
         CASE WHEN s.internal AND p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) END
  FROM pg_proc AS p JOIN spaces AS s ON s.oid = p.pronamespace
  WHERE NOT EXISTS (SELECT FROM members AS m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
  UNION ALL
  SELECT 'Trigger', format('%I', t.tgname), r.name, NULL,
         CASE WHEN s.internal AND t.tgenabled IN ('O', 'A') THEN pg_get_triggerdef(t.oid) END
  FROM pg_trigger AS t JOIN relations AS r ON r.oid = t.tgrelid JOIN pg_proc AS p ON p.oid = t.tgfoid
  JOIN spaces AS s ON s.oid = p.pronamespace
  WHERE NOT t.tgisinternal
)
SELECT coalesce(jsonb_agg(p ORDER BY p.kind, p.name, p.\"table\"), '[]') FROM parts AS p";

const METERS: &str = "\
SELECT coalesce(jsonb_agg(jsonb_build_object(
    'kind', 'Meter', 'name', m.name, 'table', format('%I.%I', n.nspname, c.relname), 'definition', m.counted)
  ORDER BY m.name, n.nspname, c.relname), '[]')
FROM tenantry.meters AS m JOIN pg_class AS c ON c.oid = m.metered JOIN pg_namespace AS n ON n.oid = c.relnamespace";

const DOING: &str = "read what the modules created";

/// Reads what the catalogs of the session's database have. No table of the database is read: it may be anybody's.
pub(in crate::postgres) async fn read_parts(session: &mut PgConnection) -> Result<Vec<SchemaPart>> {
    let query = sqlx::query_scalar(QUERY).fetch_one(session);
    let Json(parts) = with_timeout(STATEMENT_LIMIT, DOING, query).await?;
    Ok(parts)
}

/// Reads what modules created in the session's database.
pub(in crate::postgres) async fn read_structure(session: &mut PgConnection) -> Result<Vec<SchemaPart>> {
    let mut parts = read_parts(session).await?;
    if has_meters(&parts) {
        let query = sqlx::query_scalar(METERS).fetch_one(session);
        let Json(meters): Json<Vec<SchemaPart>> = with_timeout(STATEMENT_LIMIT, DOING, query).await?;
        parts.extend(meters);
    }
    Ok(parts)
}
