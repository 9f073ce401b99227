//! A database that could be taken over, read from the catalogs: whose it is, what it has, and what `tenantry_admin` may do
//! with it. Nothing in the database is called: only catalogs are read.

use sqlx::{PgConnection, types::Json};

use crate::{
    domain::{
        identity::TenantId,
        takeover::{DatabaseContent, FoundDatabase, FoundRole},
    },
    postgres::{
        catalog::ownership,
        error::Result,
        session::connect::{STATEMENT_LIMIT, with_timeout},
    },
};

/// A role `r` as JSON. Before 16, CREATEROLE makes itself a member of any role but a superuser. (`pg_has_role` knows SET from
/// 16 on.)
macro_rules! role {
    () => {
        "jsonb_build_object('name', r.rolname, 'sql', quote_ident(r.rolname), 'reach', CASE
            WHEN r.rolname IN ('tenantry_dba', 'tenantry_owner', 'pg_database_owner') THEN 'Ours'
            WHEN r.rolsuper THEN 'Superuser'
            WHEN current_setting('server_version_num')::int < 160000 THEN
                CASE WHEN pg_has_role(r.oid, 'USAGE') THEN 'Member' WHEN r.rolname ~ '^pg_' THEN 'OutOfReach' ELSE 'Grantable' END
            WHEN pg_has_role(r.oid, 'USAGE') AND pg_has_role(r.oid, 'SET') THEN 'Member'
            WHEN pg_has_role(r.oid, 'USAGE WITH ADMIN OPTION') THEN 'Grantable'
            ELSE 'OutOfReach' END)"
    };
}

const DATABASE: &str = concat!(
    "SELECT jsonb_build_object(
  'oid', d.oid::bigint,
  'name', d.datname,
  'sql', quote_ident(d.datname),
  'owner', (SELECT ",
    role!(),
    " FROM pg_roles AS r WHERE r.oid = d.datdba),
  'comment', c.comment,
  'is_marked', coalesce(starts_with(c.comment, 'tenantry:'), false),
  'encoding', pg_encoding_to_char(d.encoding),
  'locale', format('collation %s, character type %s', d.datcollate, d.datctype),
  'is_template', d.datistemplate,
  'allows_connections', d.datallowconn,
  'connection_limit', d.datconnlimit,
  'has_login_trigger', coalesce((to_jsonb(d) ->> 'dathasloginevt')::boolean, false),
  'may_connect', has_database_privilege(session_user, d.oid, 'CONNECT'),
  'rights', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'role', g.role, 'sql', coalesce(quote_ident(g.role), 'PUBLIC'), 'privileges', g.privileges) ORDER BY g.role), '[]')
    FROM (SELECT CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee)::text END AS role,
                 jsonb_agg(DISTINCT a.privilege_type ORDER BY a.privilege_type) AS privileges
          FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a WHERE a.grantee <> d.datdba GROUP BY 1) AS g),
  'settings', (
    SELECT coalesce(jsonb_agg(DISTINCT split_part(s.entry, '=', 1)), '[]') FROM (
      SELECT unnest(setconfig) AS entry FROM pg_db_role_setting WHERE setdatabase = d.oid AND setrole = 0) AS s),
  'prepared', (SELECT coalesce(jsonb_agg(quote_literal(gid) ORDER BY gid), '[]') FROM pg_prepared_xacts WHERE database = d.datname),
  'sessions', (
    SELECT coalesce(jsonb_agg(DISTINCT usename), '[]') FROM pg_stat_activity
    WHERE datname = d.datname AND usename IS NOT NULL AND pid <> pg_backend_pid()),
  'is_login_taken', EXISTS (
    SELECT FROM pg_roles AS r WHERE r.rolname = $2 AND NOT coalesce(starts_with(shobj_description(r.oid, 'pg_authid'), $3), false)),
  'login', (
    SELECT jsonb_build_object(
      'oid', r.oid::bigint, 'name', r.rolname, 'sql', quote_ident(r.rolname), 'comment', rc.comment,
      'is_marked', r.rolname ~ '^(pg|tenantry)_' OR r.rolname = session_user OR coalesce(starts_with(rc.comment, 'tenantry:'), false),
      'attributes', array_remove(ARRAY[
        CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
        CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END,
        CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN NOT r.rolinherit THEN 'NOINHERIT' END,
        CASE WHEN NOT r.rolcanlogin THEN 'NOLOGIN' END], NULL),
      'valid_until', CASE WHEN isfinite(r.rolvaliduntil) THEN r.rolvaliduntil::text END,
      'connection_limit', r.rolconnlimit,
      'settings', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'what', (SELECT string_agg(split_part(entry, '=', 1), ', ') FROM unnest(s.setconfig) AS entry),
            'statement', format('ALTER ROLE %I %sRESET ALL;', r.rolname,
              CASE WHEN o.oid IS NOT NULL THEN format('IN DATABASE %I ', o.datname) END)) ORDER BY s.setdatabase), '[]')
        FROM pg_db_role_setting AS s LEFT JOIN pg_database AS o ON o.oid = s.setdatabase WHERE s.setrole = r.oid),
      'is_changeable', r.rolsuper OR current_setting('server_version_num')::int < 160000 OR pg_has_role(r.oid, 'USAGE WITH ADMIN OPTION'),
      'member_of', (
        SELECT coalesce(jsonb_agg(DISTINCT quote_ident(pg_get_userbyid(m.roleid))), '[]')
        FROM pg_auth_members AS m WHERE m.member = r.oid),
      'members', (
        SELECT coalesce(jsonb_agg(DISTINCT quote_ident(pg_get_userbyid(m.member))), '[]')
        FROM pg_auth_members AS m WHERE m.roleid = r.oid AND pg_get_userbyid(m.member) <> 'tenantry_admin'),
      'elsewhere', (
        SELECT coalesce(jsonb_agg(DISTINCT jsonb_build_object('what', e.what, 'statement', e.statement)), '[]')
        FROM (
          SELECT CASE
              WHEN s.dbid <> 0 AND s.deptype = 'o' THEN format('objects in database %I', o.datname)
              WHEN s.dbid <> 0 THEN format('rights on objects in database %I', o.datname)
              WHEN s.deptype = 'o' THEN pg_describe_object(s.classid, s.objid, s.objsubid)
              ELSE 'rights on ' || pg_describe_object(s.classid, s.objid, s.objsubid) END AS what,
            CASE
              WHEN s.dbid <> 0 AND s.deptype = 'o' THEN format('REASSIGN OWNED BY %I TO …; there', r.rolname)
              WHEN s.dbid <> 0 THEN format('REVOKE ALL ON … FROM %I; there', r.rolname)
              WHEN s.classid = 'pg_database'::regclass AND s.deptype = 'o' THEN format('ALTER DATABASE %I OWNER TO …;', t.datname)
              WHEN s.classid = 'pg_database'::regclass THEN format('REVOKE ALL ON DATABASE %I FROM %I;', t.datname, r.rolname)
              ELSE format('REVOKE … FROM %I;', r.rolname) END AS statement
          FROM pg_shdepend AS s
          LEFT JOIN pg_database AS o ON o.oid = s.dbid
          LEFT JOIN pg_database AS t ON s.classid = 'pg_database'::regclass AND t.oid = s.objid
          WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid AND s.dbid <> d.oid
            AND NOT (s.classid = 'pg_database'::regclass AND s.objid = d.oid)) AS e))
    FROM pg_roles AS r CROSS JOIN LATERAL (SELECT shobj_description(r.oid, 'pg_authid') AS comment) AS rc
    WHERE r.rolname = $4))
FROM pg_database AS d CROSS JOIN LATERAL (SELECT shobj_description(d.oid, 'pg_database') AS comment) AS c
WHERE d.datname = $1"
);

/// Objects of PostgreSQL and of extensions are left out, as are those that follow another one: the sequence of a column, the
/// row type of a table, the array of a type.
const CONTENT: &str = concat!(
    "WITH members AS (
  SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), spaces AS (
  SELECT n.oid, n.nspowner, n.nspacl FROM pg_namespace AS n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
), every (classid, objid, owner, acl) AS (
  SELECT 'pg_namespace'::regclass::oid, oid, nspowner, nspacl FROM spaces
  UNION ALL
  SELECT 'pg_class'::regclass, c.oid, c.relowner, c.relacl FROM pg_class AS c JOIN spaces AS s ON s.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') OR c.relkind = 'S' AND NOT EXISTS (
      SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
          AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid <> 0 AND d.deptype IN ('a', 'i'))
  UNION ALL
  SELECT 'pg_proc'::regclass, p.oid, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)) FROM pg_proc AS p JOIN spaces AS s ON s.oid = p.pronamespace
  UNION ALL
  SELECT 'pg_type'::regclass, t.oid, t.typowner, t.typacl FROM pg_type AS t JOIN spaces AS s ON s.oid = t.typnamespace
  WHERE CASE t.typtype
      WHEN 'c' THEN EXISTS (SELECT FROM pg_class AS c WHERE c.oid = t.typrelid AND c.relkind = 'c')
      WHEN 'b' THEN NOT EXISTS (SELECT FROM pg_type AS e WHERE e.typarray = t.oid)
      ELSE t.typtype IN ('d', 'e', 'r') END
  UNION ALL SELECT 'pg_collation'::regclass, o.oid, o.collowner, NULL FROM pg_collation AS o JOIN spaces AS s ON s.oid = o.collnamespace
  UNION ALL SELECT 'pg_conversion'::regclass, o.oid, o.conowner, NULL FROM pg_conversion AS o JOIN spaces AS s ON s.oid = o.connamespace
  UNION ALL SELECT 'pg_operator'::regclass, o.oid, o.oprowner, NULL FROM pg_operator AS o JOIN spaces AS s ON s.oid = o.oprnamespace
  UNION ALL SELECT 'pg_opclass'::regclass, o.oid, o.opcowner, NULL FROM pg_opclass AS o JOIN spaces AS s ON s.oid = o.opcnamespace
  UNION ALL SELECT 'pg_opfamily'::regclass, o.oid, o.opfowner, NULL FROM pg_opfamily AS o JOIN spaces AS s ON s.oid = o.opfnamespace
  UNION ALL SELECT 'pg_ts_config'::regclass, o.oid, o.cfgowner, NULL FROM pg_ts_config AS o JOIN spaces AS s ON s.oid = o.cfgnamespace
  UNION ALL SELECT 'pg_ts_dict'::regclass, o.oid, o.dictowner, NULL FROM pg_ts_dict AS o JOIN spaces AS s ON s.oid = o.dictnamespace
  UNION ALL SELECT 'pg_statistic_ext'::regclass, o.oid, o.stxowner, NULL FROM pg_statistic_ext AS o JOIN spaces AS s ON s.oid = o.stxnamespace
), own AS MATERIALIZED (
  SELECT e.*, i.type AS kind, i.identity FROM every AS e CROSS JOIN LATERAL pg_identify_object(e.classid, e.objid, 0) AS i
  WHERE NOT EXISTS (SELECT FROM members AS m WHERE m.classid = e.classid AND m.objid = e.objid)
), grants AS (
  SELECT o.identity, o.acl, a.grantee FROM own AS o CROSS JOIN LATERAL aclexplode(o.acl) AS a
  WHERE a.grantee <> o.owner AND (a.grantee = 0 OR pg_get_userbyid(a.grantee) !~ '^tenantry_')
    AND NOT (a.grantee = 0 AND o.classid = 'pg_proc'::regclass)
)
SELECT jsonb_build_object(
  'objects', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'catalog', o.classid::bigint, 'oid', o.objid::bigint, 'kind', o.kind, 'identity', o.identity,
        'owner', pg_get_userbyid(o.owner),
        'public', (SELECT coalesce(jsonb_agg(a.privilege_type ORDER BY a.privilege_type), '[]') FROM aclexplode(o.acl) AS a WHERE a.grantee = 0),
        'login', (SELECT coalesce(jsonb_agg(DISTINCT a.privilege_type ORDER BY a.privilege_type), '[]') FROM aclexplode(o.acl) AS a
                  WHERE a.grantee <> o.owner AND a.grantee <> 0 AND pg_get_userbyid(a.grantee) = $1)) ORDER BY o.kind <> 'schema', o.kind, o.identity), '[]') FROM own AS o),
  'owners', (
    SELECT coalesce(jsonb_agg(",
    role!(),
    " ORDER BY r.rolname), '[]') FROM pg_roles AS r WHERE r.oid IN (SELECT owner FROM own)),
  'grantees', (
    SELECT coalesce(jsonb_agg(jsonb_build_object('role', g.role, 'objects', g.objects) ORDER BY g.role), '[]')
    FROM (SELECT CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee)::text END AS role, count(DISTINCT identity) AS objects
          FROM grants GROUP BY 1) AS g),
  'rights', (SELECT coalesce(encode(sha256(convert_to(string_agg(DISTINCT identity || acl::text, ' ' ORDER BY identity || acl::text), 'UTF8')), 'hex'), '')
             FROM grants),
  'extensions', (
    SELECT coalesce(jsonb_agg(jsonb_build_object('name', e.extname, 'version', e.extversion, 'owner', pg_get_userbyid(e.extowner))
        ORDER BY e.extname), '[]')
    FROM pg_extension AS e WHERE e.extname <> 'plpgsql'),
  'obstructions', (
    SELECT coalesce(jsonb_agg(jsonb_build_object('what', x.what, 'statement', x.statement) ORDER BY x.what), '[]') FROM (
      SELECT format('event trigger %I', t.evtname) AS what, format('DROP EVENT TRIGGER %I;', t.evtname) AS statement
      FROM pg_event_trigger AS t
      WHERE t.evtenabled <> 'D' AND NOT EXISTS (
          SELECT FROM members AS m WHERE m.classid = 'pg_event_trigger'::regclass AND m.objid = t.oid)
      UNION ALL
      SELECT format('publication %I', pubname), format('DROP PUBLICATION %I;', pubname) FROM pg_publication
      UNION ALL
      SELECT format('subscription %I', s.subname), format('DROP SUBSCRIPTION %I;', s.subname)
      FROM pg_subscription AS s JOIN pg_database AS d ON d.oid = s.subdbid WHERE d.datname = current_database()
      UNION ALL
      SELECT format('replication slot %I', slot_name), format('SELECT pg_drop_replication_slot(%L);', slot_name)
      FROM pg_replication_slots WHERE database = current_database() AND NOT temporary
      UNION ALL
      SELECT format('foreign server %I', srvname), format('DROP SERVER %I CASCADE;', srvname) FROM pg_foreign_server) AS x),
  'large_objects', (SELECT count(*) FROM pg_largeobject_metadata))"
);

/// Reads a database in the shared catalogs; none if there is no such database. A role with the name `login` is taken unless
/// its comment names the tenant. The role `kept` should stay usable.
pub(in crate::postgres) async fn read_database(
    session: &mut PgConnection,
    database: &str,
    login: &str,
    kept: Option<&str>,
    tenant: Option<TenantId>,
) -> Result<Option<FoundDatabase>> {
    let own = tenant.map_or_else(|| "tenantry:tenant:none".to_owned(), ownership::login);
    let query = sqlx::query_scalar(DATABASE).bind(database).bind(login).bind(own).bind(kept);
    let query = query.fetch_optional(session);
    let found = with_timeout(STATEMENT_LIMIT, "read the database in spec.adopt", query).await?;
    Ok(found.map(|Json(found)| found))
}

/// Reads what is in the session's database, with the rights of a login that should be kept.
pub(in crate::postgres) async fn read_content(
    session: &mut PgConnection,
    kept: Option<&str>,
) -> Result<DatabaseContent> {
    let query = sqlx::query_scalar(CONTENT).bind(kept).fetch_one(session);
    let Json(content) = with_timeout(STATEMENT_LIMIT, "read what the database has", query).await?;
    Ok(content)
}

/// The roles of these names that exist.
pub(in crate::postgres) async fn read_roles(
    session: &mut PgConnection,
    names: &[String],
) -> Result<Vec<FoundRole>> {
    let query = concat!(
        "SELECT coalesce(jsonb_agg(",
        role!(),
        " ORDER BY r.rolname), '[]') FROM pg_roles AS r WHERE r.rolname = ANY ($1)"
    );
    let query = sqlx::query_scalar(query).bind(names).fetch_one(session);
    let Json(roles) = with_timeout(STATEMENT_LIMIT, "read the former owners", query).await?;
    Ok(roles)
}

/// The schemas of the session's database, in SQL, in which these roles cannot create anything, with the role.
pub(in crate::postgres) async fn read_closed_schemas(
    session: &mut PgConnection,
    names: &[String],
) -> Result<Vec<(String, String)>> {
    let query = "\
        SELECT quote_ident(n.nspname), r.rolname::text FROM pg_namespace AS n CROSS JOIN pg_roles AS r
        WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'tenantry') AND r.rolname = ANY ($1)
          AND pg_get_userbyid(n.nspowner) IN ('tenantry_dba', 'pg_database_owner')
          AND NOT has_schema_privilege(r.oid, n.oid, 'CREATE')
        ORDER BY 1, 2";
    let query = sqlx::query_as(query).bind(names).fetch_all(session);
    with_timeout(STATEMENT_LIMIT, "read who can create objects", query).await
}
