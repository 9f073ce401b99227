//! What a module needs before its files: its schema, with the rights that `public` has, and its extensions. Both need the
//! database's owner.

use sqlx::PgConnection;

use super::extensions::{self, ExtensionAction};
use crate::{
    modules::{INTERNAL, Module},
    postgres::{
        error::{Error, Result, is_transient},
        identifier::{DBA, GROUPS, Ident, Literal, OWNER, Script},
        migration_error::{ExtensionError, ModuleSchemaError},
        server::{Server, run_on},
        session::connect::{ConnectAs, STATEMENT_LIMIT, with_timeout},
    },
};

/// A database in which the migrator has a session.
pub(in crate::postgres) struct OpenDatabase<'a> {
    pub server: &'a Server,
    pub name: &'a Ident,
}

const DOING: &str = "prepare the module's schema";

/// The state of a schema.
#[derive(sqlx::FromRow)]
struct SchemaState {
    /// Who owns it, if that is another role than the database's owner.
    foreign_owner: Option<String>,
    /// The owner of objects and the groups have their rights there, and PUBLIC has none.
    is_open: bool,
    /// There are default privileges.
    has_defaults: bool,
}

const SCHEMA: &str = "\
SELECT CASE WHEN n.nspname <> 'public' AND pg_get_userbyid(n.nspowner) NOT IN ('tenantry_dba', 'pg_database_owner')
           THEN pg_get_userbyid(n.nspowner)::text END AS foreign_owner,
       has_schema_privilege('tenantry_owner', n.oid, 'USAGE') AND has_schema_privilege('tenantry_owner', n.oid, 'CREATE')
           AND has_schema_privilege('tenantry_rw', n.oid, 'USAGE') AND has_schema_privilege('tenantry_shrink', n.oid, 'USAGE')
           AND has_schema_privilege('tenantry_ro', n.oid, 'USAGE') AS is_open,
       EXISTS (SELECT FROM pg_catalog.pg_default_acl AS d
               WHERE d.defaclnamespace = n.oid AND d.defaclrole = 'tenantry_owner'::regrole) AS has_defaults
FROM pg_catalog.pg_namespace AS n WHERE n.nspname = $1";

/// Creates a module's schema and extensions where they are missing. Returns the schemas in which the names of its files are
/// looked up: its own, then those of its extensions. The session is `tenantry_migrator`'s.
pub(in crate::postgres) async fn prepare(
    database: &OpenDatabase<'_>,
    session: &mut PgConnection,
    module: &Module,
) -> Result<Vec<Ident>> {
    let unusable = |detail| {
        Error::ModuleSchema(Box::new(ModuleSchemaError {
            module: module.name.to_string(),
            schema: module.schema.to_string(),
            database: database.name.to_string(),
            detail,
        }))
    };
    // Every template has its schema.
    if module.name == INTERNAL {
        return Ok(vec![Ident::new(INTERNAL)?]);
    }
    Module::check_schema(&module.schema).map_err(|why| unusable(format!("cannot be used: {why}")))?;
    let schema = Ident::new(&module.schema)?;
    prepare_schema(database, session, module, &schema).await?;
    let mut search_path = vec![schema];
    if module.extensions.is_empty() {
        return Ok(search_path);
    }
    let found = extensions::read(session, &module.extensions).await?;
    for wanted in &module.extensions {
        let home = Ident::new(wanted.schema.as_deref().unwrap_or(&module.schema))?;
        let failed = |detail| {
            Error::Extension(Box::new(ExtensionError {
                module: module.name.to_string(),
                extension: wanted.name.clone(),
                database: database.name.to_string(),
                server: database.server.config().name.clone(),
                detail,
            }))
        };
        let state = found.iter().find(|state| state.name == wanted.name);
        let action = extensions::decide(wanted, state).map_err(failed)?;
        let script = extensions::script(action, wanted, &Ident::new(&wanted.name)?, &home)?;
        if action == ExtensionAction::Create && home.as_str() != module.schema {
            Module::check_schema(home.as_str()).map_err(failed)?;
            prepare_schema(database, session, module, &home).await?;
        }
        if !script.is_empty() {
            let result = run_as_dba(database, "create the module's extensions", &script).await;
            result.map_err(|error| match &error {
                Error::Sql { source, .. } if !is_transient(source) => {
                    failed(extensions::refused(&script, action, database.name.as_str(), &error))
                }
                _ => error,
            })?;
        }
    }
    for schema in extensions::schemas(session, &module.extensions).await? {
        let schema = Ident::new(&schema)?;
        if !search_path.contains(&schema) {
            search_path.push(schema);
        }
    }
    Ok(search_path)
}

async fn prepare_schema(
    database: &OpenDatabase<'_>,
    session: &mut PgConnection,
    module: &Module,
    schema: &Ident,
) -> Result<()> {
    let query = sqlx::query_as::<_, SchemaState>(SCHEMA).bind(schema.as_str()).fetch_optional(&mut *session);
    let state = with_timeout(STATEMENT_LIMIT, DOING, query).await?;
    if let Some(owner) = state.as_ref().and_then(|state| state.foreign_owner.as_ref()) {
        let statement = Script::of("ALTER SCHEMA {} OWNER TO {}", &[schema, &DBA]).sql().as_str().to_owned();
        return Err(Error::ModuleSchema(Box::new(ModuleSchemaError {
            module: module.name.to_string(),
            schema: schema.to_string(),
            database: database.name.to_string(),
            detail: format!(
                "exists, and role {owner} owns it: give the module another one, or run there, as {owner} or a \
                 superuser: {statement}"
            ),
        })));
    }
    if state.as_ref().is_none_or(|state| !state.is_open) {
        let [rw, shrink, ro] = &GROUPS;
        let script = Script::of("CREATE SCHEMA IF NOT EXISTS {}", &[schema])
            .then("REVOKE ALL ON SCHEMA {} FROM PUBLIC", &[schema])
            .then("GRANT USAGE, CREATE ON SCHEMA {} TO {}", &[schema, &OWNER])
            .then("GRANT USAGE ON SCHEMA {} TO {}, {}, {}", &[schema, rw, shrink, ro]);
        run_as_dba(database, DOING, &script).await?;
    }
    if state.is_none_or(|state| !state.has_defaults) {
        let script = default_privileges(schema);
        let query = sqlx::raw_sql(script.sql()).execute(&mut *session);
        with_timeout(STATEMENT_LIMIT, DOING, query).await?;
    }
    Ok(())
}

/// The default privileges that objects of `tenantry_owner` have in a schema: as in `public`.
fn default_privileges(schema: &Ident) -> Script {
    let [rw, shrink, ro] = &GROUPS;
    Script::of(
        "ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {}",
        &[schema, rw],
    )
    .then("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT SELECT, DELETE ON TABLES TO {}", &[schema, shrink])
    .then("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT SELECT ON TABLES TO {}", &[schema, ro])
    .then(
        "ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT SELECT, USAGE, UPDATE ON SEQUENCES TO {}",
        &[schema, rw],
    )
    .then("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT SELECT ON SEQUENCES TO {}, {}", &[schema, shrink, ro])
    .then("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT EXECUTE ON FUNCTIONS TO {}", &[schema, rw])
}

/// Runs a script as the owner of the database. It waits for no session, since its caller holds one.
pub(in crate::postgres::tenant) async fn run_as_dba(
    database: &OpenDatabase<'_>,
    doing: &'static str,
    script: &Script,
) -> Result<()> {
    let connect_as = ConnectAs::Admin(database.name.as_str());
    let mut session = database.server.inner.sessions.single_at_once(&connect_as, doing).await?;
    let mut all = Script::of("SET LOCAL ROLE {}", &[&DBA]);
    // Who has a lock on the database's objects is waited for as long as by a migration.
    all.add("SET LOCAL lock_timeout TO {}", &[&Literal::new("15s")?]);
    all.append(script.clone());
    let result = run_on(&mut session, doing, &all).await;
    session.close_and_wait().await;
    result
}
