//! `tenantry server-setup`: what only an administrator can do, once per server. It may be run again: it brings what is
//! there to what should be.

use sqlx::{Connection, PgConnection, Row, postgres::PgConnectOptions};

use super::{
    credentials::{SecretText, scram_verifier},
    error::{Error, Result},
    identifier::{ADMIN, Ident, Literal, Part, Script, Word},
    roles::GRANT_OPTIONS_SINCE,
};

/// The functions by which a login writes large objects, which belong to nobody's schema. `lo_import` and `lo_export`
/// are the superuser's already.
const LARGE_OBJECT_WRITERS: [&str; 8] = [
    "lo_creat(integer)",
    "lo_create(oid)",
    "lo_from_bytea(oid, bytea)",
    "lo_put(oid, bigint, bytea)",
    "lowrite(integer, bytea)",
    "lo_truncate(integer, integer)",
    "lo_truncate64(integer, bigint)",
    "lo_unlink(oid)",
];

/// What to set up.
pub struct SetupOptions {
    /// The operator's login.
    pub operator: String,
    /// Its password. The server gets a verifier.
    pub password: SecretText,
    /// The registry's database, if it is to be on this server.
    pub system_database: Option<String>,
}

/// What was done, line by line, for the administrator who ran it.
#[derive(Debug, Default)]
pub struct SetupReport {
    /// What is in place now.
    pub done: Vec<String>,
    /// What this administrator was not allowed to do, and what it means.
    pub refused: Vec<String>,
}

/// Sets a server up, as the administrator whose options are given, in the database `postgres`.
pub async fn server_setup(admin: PgConnectOptions, options: &SetupOptions) -> Result<SetupReport> {
    let doing = "connect as the administrator";
    let pinned = |database: &str| {
        admin
            .clone()
            .database(database)
            .application_name("tenantry server-setup")
            .options([("search_path", "pg_catalog,pg_temp"), ("client_min_messages", "error")])
    };
    let mut session = PgConnection::connect_with(&pinned("postgres")).await.map_err(Error::sql(doing))?;
    let mut report = SetupReport::default();
    let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
        .fetch_one(&mut session)
        .await
        .map_err(Error::sql(doing))?;
    let with_options = u32::try_from(version).is_ok_and(|version| version >= GRANT_OPTIONS_SINCE);
    roles(&mut session, options, with_options, &mut report).await?;
    predefined_roles(&mut session, &mut report).await;
    if let Some(name) = &options.system_database {
        system_database(&mut session, &Ident::new(name)?, &mut report).await?;
    }
    doors(&mut session, &mut report).await;
    session.close().await.map_err(Error::sql(doing))?;
    large_objects(&pinned("template1"), &mut report).await;
    Ok(report)
}

async fn run(session: &mut PgConnection, doing: &'static str, script: &Script) -> Result<()> {
    sqlx::raw_sql(script.sql()).execute(session).await.map(|_| ()).map_err(Error::sql(doing))
}

async fn roles(
    session: &mut PgConnection,
    options: &SetupOptions,
    with_options: bool,
    report: &mut SetupReport,
) -> Result<()> {
    let operator = Ident::new(&options.operator)?;
    let found: Vec<String> =
        sqlx::query_scalar("SELECT rolname::text FROM pg_roles WHERE rolname = ANY ($1)")
            .bind([ADMIN.as_str(), operator.as_str()])
            .fetch_all(&mut *session)
            .await
            .map_err(Error::sql("read the roles"))?;
    let verb = |name: &Ident| Word(if found.iter().any(|f| f == name.as_str()) { "ALTER" } else { "CREATE" });
    let verifier = scram_verifier(&options.password);
    let login: &[&dyn Part] = &[&verb(&operator), &operator, &Literal(&verifier)];
    let granted = Word(if with_options { "ADMIN TRUE, INHERIT TRUE, SET TRUE" } else { "ADMIN OPTION" });
    let script = Script::of("{} ROLE {} NOLOGIN NOSUPERUSER CREATEDB CREATEROLE", &[&verb(&ADMIN), &ADMIN])
        .then("{} ROLE {} LOGIN NOSUPERUSER CREATEDB CREATEROLE PASSWORD {}", login)
        .then("GRANT {} TO {} WITH {}", &[&ADMIN, &operator, &granted]);
    run(session, "make tenantry_admin and the operator's login", &script).await?;
    report.done.push(format!("role tenantry_admin, and login {operator} as its member"));
    Ok(())
}

async fn predefined_roles(session: &mut PgConnection, report: &mut SetupReport) {
    for (role, why) in [
        ("pg_signal_backend", "tenants' sessions can be ended"),
        ("pg_read_all_stats", "it can be proven that tenants' sessions are gone"),
    ] {
        let outcome = match Ident::new(role) {
            Ok(name) => run(session, "grant", &Script::of("GRANT {} TO {}", &[&name, &ADMIN])).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => report.done.push(format!("{role} for tenantry_admin: {why}")),
            Err(error) => report.refused.push(format!("GRANT {role} TO tenantry_admin: {error}")),
        }
    }
}

async fn system_database(session: &mut PgConnection, name: &Ident, report: &mut SetupReport) -> Result<()> {
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name.as_str())
        .fetch_one(&mut *session)
        .await
        .map_err(Error::sql("look for the system database"))?;
    if !exists {
        let create = Script::of("CREATE DATABASE {} OWNER {}", &[name, &ADMIN]);
        run(session, "create the system database", &create).await?;
    }
    let close = Script::of("REVOKE ALL ON DATABASE {} FROM PUBLIC", &[name]);
    run(session, "close the system database to PUBLIC", &close).await?;
    report.done.push(format!("database {name} for the registry, owned by tenantry_admin, closed to PUBLIC"));
    Ok(())
}

/// Nobody but the operator has business in the maintenance databases.
async fn doors(session: &mut PgConnection, report: &mut SetupReport) {
    let script = Script::of("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC", &[])
        .then("GRANT CONNECT ON DATABASE postgres TO {}", &[&ADMIN]);
    match run(session, "close postgres and template1 to PUBLIC", &script).await {
        Ok(()) => report.done.push("CONNECT on postgres and template1 taken from PUBLIC".to_owned()),
        Err(error) => report.refused.push(error.to_string()),
    }
}

/// What is taken in `template1` is taken in every database that is made from it: function rights are cloned.
async fn large_objects(options: &PgConnectOptions, report: &mut SetupReport) {
    let outcome = async {
        let doing = "take the large-object writers from PUBLIC in template1";
        let mut session = PgConnection::connect_with(options).await.map_err(Error::sql(doing))?;
        for function in LARGE_OBJECT_WRITERS {
            run(
                &mut session,
                doing,
                &Script::of("REVOKE EXECUTE ON FUNCTION {} FROM PUBLIC", &[&Word(function)]),
            )
            .await?;
        }
        let left: i64 = sqlx::query(OPEN_WRITERS)
            .fetch_one(&mut session)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(Error::sql(doing))?;
        session.close().await.map_err(Error::sql(doing))?;
        if left == 0 { Ok(()) } else { Err(Error::MissingRight(LARGE_OBJECTS_OPEN.to_owned())) }
    }
    .await;
    match outcome {
        Ok(()) => {
            report.done.push("EXECUTE on the large-object writers taken from PUBLIC in template1".to_owned())
        }
        Err(error) => report.refused.push(error.to_string()),
    }
}

/// How many of the functions that write large objects PUBLIC may call, in the database that is asked.
pub(super) const OPEN_WRITERS: &str = "\
SELECT count(*) FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE' AND p.pronamespace = 'pg_catalog'::regnamespace
  AND p.proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite', 'lo_truncate', 'lo_truncate64',
                    'lo_unlink')";

/// What that means.
pub(super) const LARGE_OBJECTS_OPEN: &str = "PUBLIC may EXECUTE the large-object writers (lo_create and others) in template1, so that a tenant's login could own something";
