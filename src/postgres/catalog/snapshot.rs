//! Everything that a module can change in a database, read from its catalogs with one query.

use sqlx::{PgConnection, types::Json};

use crate::{
    domain::rehearsal::catalog::{CatalogObject, CatalogSnapshot},
    postgres::{
        error::Result,
        session::connect::{STATEMENT_LIMIT, with_timeout},
    },
};

/// The schema of the rehearsal itself, which is left out.
pub(in crate::postgres) const OWN_SCHEMA: &str = "tenantry_rehearsal";
/// The name of its triggers; no meter's trigger has a hyphen.
pub(in crate::postgres) const OWN_TRIGGER: &str = "tenantry-rehearsal";

/// Objects of PostgreSQL and of extensions are left out, and what PostgreSQL makes together with another object: row types,
/// array types, TOAST tables, internal triggers.
const QUERY: &str = "\
WITH spaces AS MATERIALIZED (
  SELECT n.oid, n.nspname, n.nspowner, n.nspacl FROM pg_namespace AS n
  WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', $1)
), members AS MATERIALIZED (
  SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), relations AS MATERIALIZED (
  SELECT c.*, s.nspname, format('%I.%I', s.nspname, c.relname) AS address,
         CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
             WHEN 'f' THEN 'foreign table' WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' ELSE 'table' END AS kind
  FROM pg_class AS c JOIN spaces AS s ON s.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I')
), objects (class, oid, sub, kind, parent, schema, name, address, owner, acl, definition, more) AS (
  SELECT 'pg_namespace'::regclass, s.oid, 0, 'schema', 0::oid, NULL::name, s.nspname::text, format('%I', s.nspname), s.nspowner, s.nspacl,
         '', '{}'::jsonb
  FROM spaces AS s
  UNION ALL
  SELECT 'pg_class'::regclass, c.oid, 0, c.kind,
         coalesce(CASE c.kind WHEN 'index' THEN (SELECT i.indrelid FROM pg_index AS i WHERE i.indexrelid = c.oid)
             WHEN 'sequence' THEN (SELECT d.refobjid FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                 AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') LIMIT 1) END, 0),
         c.nspname, c.relname, c.address, c.relowner, c.relacl,
         concat_ws('|', c.relkind, c.relpersistence, c.relrowsecurity, c.relforcerowsecurity, c.reloptions::text,
             CASE c.kind WHEN 'view' THEN pg_get_viewdef(c.oid) WHEN 'materialized view' THEN pg_get_viewdef(c.oid)
                 WHEN 'index' THEN pg_get_indexdef(c.oid)
                 WHEN 'sequence' THEN (SELECT (q.seqtypid, q.seqincrement, q.seqmax, q.seqmin, q.seqcycle)::text
                     FROM pg_sequence AS q WHERE q.seqrelid = c.oid) END),
         jsonb_build_object('file', pg_relation_filenode(c.oid)::bigint, 'bytes', pg_relation_size(c.oid),
             'unlogged', c.relpersistence = 'u',
             'parents', ARRAY(SELECT h.inhparent::regclass::text FROM pg_inherits AS h
                              WHERE h.inhrelid = c.oid AND c.kind IN ('table', 'foreign table') AND NOT h.inhdetachpending))
  FROM relations AS c
  UNION ALL
  SELECT 'pg_class'::regclass, c.oid, a.attnum, 'column', c.oid, c.nspname, a.attname, c.address || '.' || format('%I', a.attname),
         0::oid, a.attacl,
         concat_ws('|', a.attnotnull, a.attidentity, a.attgenerated, a.attcollation,
             (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef AS d WHERE d.adrelid = c.oid AND d.adnum = a.attnum)),
         jsonb_build_object('column_type', format_type(a.atttypid, a.atttypmod))
  FROM relations AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
  WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  UNION ALL
  SELECT 'pg_type'::regclass, t.oid, 0, 'type', 0::oid, s.nspname, t.typname, format('%I.%I', s.nspname, t.typname), t.typowner, t.typacl,
         concat_ws('|', t.typtype, t.typnotnull, t.typdefault, format_type(nullif(t.typbasetype, 0), t.typtypmod),
             (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ',' ORDER BY a.attnum)
              FROM pg_attribute AS a WHERE a.attrelid = t.typrelid AND NOT a.attisdropped),
             (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum AS e WHERE e.enumtypid = t.oid)),
         jsonb_build_object('labels', ARRAY(SELECT e.enumlabel::text FROM pg_enum AS e WHERE e.enumtypid = t.oid))
  FROM pg_type AS t JOIN spaces AS s ON s.oid = t.typnamespace
  WHERE t.typtype <> 'm' AND (t.typtype = 'd' OR t.typcategory <> 'A')
    AND (t.typtype <> 'c' OR EXISTS (SELECT FROM pg_class AS c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
  UNION ALL
  SELECT 'pg_proc'::regclass, p.oid, 0, 'function', 0::oid, s.nspname, p.proname,
         format('%I.%I(%s)', s.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), p.proowner, p.proacl,
         md5(concat_ws('|', p.prosrc, p.probin, p.prosqlbody::text, p.prosecdef, p.proconfig::text, p.prolang, p.prorettype,
             p.provolatile, p.proleakproof, p.proisstrict)),
         jsonb_build_object(
             'is_unsafe_definer', p.prosecdef AND NOT EXISTS (
                 SELECT FROM unnest(p.proconfig) AS c (setting) WHERE starts_with(c.setting, 'search_path=')),
             'is_of_a_meter', s.nspname = 'tenantry' AND p.proname ~ '^metered_[0-9a-f]{16}$')
  FROM pg_proc AS p JOIN spaces AS s ON s.oid = p.pronamespace
  UNION ALL
  SELECT 'pg_constraint'::regclass, k.oid, 0, 'constraint', c.oid, c.nspname, k.conname, format('%I on %s', k.conname, c.address), 0::oid,
         NULL, pg_get_constraintdef(k.oid), '{}'
  FROM pg_constraint AS k JOIN relations AS c ON c.oid = k.conrelid WHERE k.contype <> 't'
  UNION ALL
  SELECT 'pg_trigger'::regclass, t.oid, 0, 'trigger', c.oid, c.nspname, t.tgname, format('%I on %s', t.tgname, c.address), 0::oid, NULL,
         concat_ws('|', pg_get_triggerdef(t.oid), t.tgenabled),
         jsonb_build_object('is_of_a_meter', EXISTS (
             SELECT FROM pg_proc AS p WHERE p.oid = t.tgfoid AND p.pronamespace = 'tenantry'::regnamespace
                 AND p.proname ~ '^metered_[0-9a-f]{16}$'))
  FROM pg_trigger AS t JOIN relations AS c ON c.oid = t.tgrelid
  WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgname <> $2
  UNION ALL
  SELECT 'pg_policy'::regclass, p.oid, 0, 'policy', c.oid, c.nspname, p.polname, format('%I on %s', p.polname, c.address), 0::oid, NULL,
         concat_ws('|', p.polcmd, p.polpermissive, p.polroles, pg_get_expr(p.polqual, c.oid), pg_get_expr(p.polwithcheck, c.oid)), '{}'
  FROM pg_policy AS p JOIN relations AS c ON c.oid = p.polrelid
  UNION ALL
  SELECT 'pg_rewrite'::regclass, r.oid, 0, 'rule', c.oid, c.nspname, r.rulename, format('%I on %s', r.rulename, c.address), 0::oid, NULL,
         concat_ws('|', pg_get_ruledef(r.oid), r.ev_enabled), '{}'
  FROM pg_rewrite AS r JOIN relations AS c ON c.oid = r.ev_class WHERE r.rulename <> '_RETURN'
  UNION ALL
  SELECT 'pg_statistic_ext'::regclass, x.oid, 0, 'statistics', x.stxrelid, s.nspname, x.stxname,
         format('%I.%I', s.nspname, x.stxname), x.stxowner, NULL, pg_get_statisticsobjdef(x.oid), '{}'
  FROM pg_statistic_ext AS x JOIN spaces AS s ON s.oid = x.stxnamespace
  UNION ALL
  SELECT o.class, o.oid, 0, coalesce(i.type, 'object'), 0::oid, s.nspname, coalesce(i.name, i.identity, ''), coalesce(i.identity, ''),
         o.owner, NULL, '', '{}'
  FROM (
    SELECT 'pg_operator'::regclass, oid, oprnamespace, oprowner FROM pg_operator
    UNION ALL SELECT 'pg_opclass'::regclass, oid, opcnamespace, opcowner FROM pg_opclass
    UNION ALL SELECT 'pg_opfamily'::regclass, oid, opfnamespace, opfowner FROM pg_opfamily
    UNION ALL SELECT 'pg_collation'::regclass, oid, collnamespace, collowner FROM pg_collation
    UNION ALL SELECT 'pg_conversion'::regclass, oid, connamespace, conowner FROM pg_conversion
    UNION ALL SELECT 'pg_ts_config'::regclass, oid, cfgnamespace, cfgowner FROM pg_ts_config
    UNION ALL SELECT 'pg_ts_dict'::regclass, oid, dictnamespace, dictowner FROM pg_ts_dict
    UNION ALL SELECT 'pg_ts_parser'::regclass, oid, prsnamespace, 0 FROM pg_ts_parser
    UNION ALL SELECT 'pg_ts_template'::regclass, oid, tmplnamespace, 0 FROM pg_ts_template
  ) AS o (class, oid, namespace, owner)
  JOIN spaces AS s ON s.oid = o.namespace, pg_identify_object(o.class, o.oid, 0) AS i
  UNION ALL
  SELECT o.class, o.oid, 0, coalesce(i.type, 'object'), 0::oid, NULL, coalesce(i.name, i.identity, ''), coalesce(i.identity, ''),
         o.owner, NULL, o.definition, '{}'
  FROM (
    SELECT 'pg_extension'::regclass, oid, 0::oid, extversion FROM pg_extension
    UNION ALL SELECT 'pg_language'::regclass, oid, 0, '' FROM pg_language
    UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, fdwowner, '' FROM pg_foreign_data_wrapper
    UNION ALL SELECT 'pg_foreign_server'::regclass, oid, srvowner, '' FROM pg_foreign_server
    UNION ALL SELECT 'pg_publication'::regclass, oid, pubowner, '' FROM pg_publication
    UNION ALL SELECT 'pg_event_trigger'::regclass, oid, evtowner, evtenabled::text FROM pg_event_trigger
    UNION ALL SELECT 'pg_cast'::regclass, oid, 0, castcontext::text FROM pg_cast WHERE oid >= 16384
    UNION ALL SELECT 'pg_transform'::regclass, oid, 0, '' FROM pg_transform
    UNION ALL SELECT 'pg_largeobject'::regclass, oid, lomowner, '' FROM pg_largeobject_metadata
  ) AS o (class, oid, owner, definition), pg_identify_object(o.class, o.oid, 0) AS i
  UNION ALL
  SELECT 'pg_default_acl'::regclass, d.oid, 0, 'default privileges', 0::oid, NULL, pg_get_userbyid(d.defaclrole)::text,
         format('of %s in %s', pg_get_userbyid(d.defaclrole), coalesce(nullif(d.defaclnamespace, 0)::regnamespace::text, 'every schema')),
         0::oid, NULL, d.defaclacl::text, '{}'
  FROM pg_default_acl AS d WHERE d.defaclnamespace IS DISTINCT FROM to_regnamespace($1)
  UNION ALL
  SELECT 'pg_db_role_setting'::regclass, (1000000000::bigint * (t.setdatabase <> 0)::int + t.setrole::bigint)::oid, 0, 'setting', 0::oid,
         NULL, coalesce(pg_get_userbyid(nullif(t.setrole, 0))::text, 'every role'),
         coalesce(pg_get_userbyid(nullif(t.setrole, 0))::text, 'every role'), 0::oid, NULL, t.setconfig::text, '{}'
  FROM pg_db_role_setting AS t
  WHERE t.setdatabase = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
     OR t.setdatabase = 0 AND pg_get_userbyid(t.setrole) IN ('tenantry_owner', 'tenantry_migrator', 'tenantry_dba')
)
SELECT coalesce(jsonb_agg(jsonb_build_object(
    'class', o.class::oid::bigint, 'oid', o.oid::bigint, 'sub', o.sub, 'kind', o.kind, 'parent', o.parent::bigint,
    'schema', o.schema, 'name', o.name, 'address', o.address,
    'owner', CASE WHEN o.owner <> 0 THEN pg_get_userbyid(o.owner)::text ELSE '' END,
    'grantees', ARRAY(SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END
                      FROM aclexplode(o.acl) AS a WHERE a.grantee <> o.owner ORDER BY 1),
    'definition', coalesce(o.definition, '')) || o.more), '[]')
FROM objects AS o
WHERE NOT EXISTS (SELECT FROM members AS m WHERE m.classid = o.class AND m.objid = o.oid)";

/// Reads the objects of the session's database. The session is not one of the module's.
pub(in crate::postgres) async fn read_snapshot(session: &mut PgConnection) -> Result<CatalogSnapshot> {
    let query = sqlx::query_scalar(QUERY).bind(OWN_SCHEMA).bind(OWN_TRIGGER).fetch_one(session);
    let Json(objects) =
        with_timeout::<Json<Vec<CatalogObject>>>(STATEMENT_LIMIT, "read the catalogs", query).await?;
    Ok(CatalogSnapshot::new(objects))
}
