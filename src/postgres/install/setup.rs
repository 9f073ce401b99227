//! `tenantry server-setup`: the setup of a server by an administrator, once per server. It can be run again: it changes
//! only what differs.
//!
//! The administrator is a superuser, or the role with CREATEROLE and CREATEDB of a managed service. What such a role may
//! not do is listed and does not end the setup. PostgreSQL answers some statements with a mere warning (a REVOKE by a
//! role that did not grant), so every change is verified.

use std::fmt::Display;

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use crate::postgres::{
    error::{Error, Result},
    identifier::{ADMIN, Ident, Keyword, Literal, Script},
    session::{
        connect::{MAINTENANCE_DATABASE, connect},
        pool::GRANT_OPTIONS_SINCE,
    },
    tenant::credentials::{SecretText, scram_verifier},
};

/// What to set up.
pub struct SetupOptions {
    /// The operator's login.
    pub operator: String,
    /// Its password. Only a verifier is sent to the server.
    pub password: SecretText,
    /// The registry's database, if it should be on this server.
    pub system_database: Option<String>,
}

/// The result, line by line, for the administrator.
#[derive(Debug, Default)]
pub struct SetupReport {
    /// What is in place.
    pub done: Vec<String>,
    /// What this administrator was not allowed to do, and the consequence.
    pub refused: Vec<String>,
}

/// Sets a server up, with the administrator's connection options.
pub async fn server_setup(admin: PgConnectOptions, options: &SetupOptions) -> Result<SetupReport> {
    let admin = admin
        .application_name("tenantry server-setup")
        // sqlx would log statements, and slow ones as warnings; one contains a password verifier.
        .disable_statement_logging()
        .options([
            ("search_path", "pg_catalog,pg_temp"),
            ("client_min_messages", "error"),
            ("statement_timeout", "0"),
        ]);
    let doing = "connect as the administrator";
    let mut session = connect(&admin.clone().database(MAINTENANCE_DATABASE), doing).await?;
    let with_options = session.server_version_num().is_some_and(|version| version >= GRANT_OPTIONS_SINCE);
    let operator = Ident::new(&options.operator)?;
    let mut setup = Setup { session: &mut session, with_options, report: SetupReport::default() };
    setup.admin_role().await?;
    if !setup.report.refused.is_empty() {
        // Everything else depends on that role.
        return Ok(setup.report);
    }
    setup.operator(&operator, &options.password).await?;
    setup.membership(&operator).await?;
    setup.predefined_roles().await?;
    if let Some(name) = &options.system_database {
        setup.system_database(&Ident::new(name)?).await?;
    }
    setup.maintenance_databases().await?;
    let mut report = setup.report;
    session.close().await.map_err(Error::sql(doing))?;

    let mut session = match connect(&admin.database("template1"), "connect to template1").await {
        Ok(session) => session,
        Err(error) if error.sql_state().is_some() => {
            report.refused.push(format!("{LARGE_OBJECTS_OPEN}, or not: {error}"));
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let mut setup = Setup { session: &mut session, with_options, report };
    setup.large_objects().await?;
    setup.schema_public().await?;
    let report = setup.report;
    session.close().await.map_err(Error::sql("close the session in template1"))?;
    Ok(report)
}

struct Setup<'a> {
    session: &'a mut PgConnection,
    with_options: bool,
    report: SetupReport,
}

/// Queries that return whether the object of a name is as it should be.
const ADMIN_IS_RIGHT: &str = "\
SELECT rolcreatedb AND rolcreaterole AND rolinherit AND NOT rolcanlogin AND NOT rolsuper
FROM pg_roles WHERE rolname = $1";
const OPERATOR_IS_RIGHT: &str = "\
SELECT rolcanlogin AND rolcreatedb AND rolcreaterole AND rolinherit AND NOT rolsuper FROM pg_roles WHERE rolname = $1";
const IS_SUPERUSER: &str = "SELECT rolsuper FROM pg_roles WHERE rolname = $1";

/// From 16 on, a membership has three options, in one row per grantor.
const IS_MEMBER: &str = "\
SELECT coalesce(bool_or(m.admin_option), false) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
WHERE r.rolname = $1 AND m.roleid = 'tenantry_admin'::regrole";
const IS_FULL_MEMBER: &str = "\
SELECT coalesce(bool_or(m.inherit_option) AND bool_or(m.set_option), false)
FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
WHERE r.rolname = $1 AND m.roleid = 'tenantry_admin'::regrole";

/// PUBLIC does not have CONNECT.
const IS_CLOSED_TO_PUBLIC: &str = "\
SELECT NOT EXISTS (
    SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
    WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT')
FROM pg_database AS d WHERE d.datname = $1";
const IS_OPEN_TO_ADMIN: &str = "\
SELECT EXISTS (
    SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
    WHERE a.grantee = 'tenantry_admin'::regrole AND a.privilege_type = 'CONNECT')
FROM pg_database AS d WHERE d.datname = $1";
/// PUBLIC has no right, and `tenantry_admin` is the owner.
const SYSTEM_IS_RIGHT: &str = "\
SELECT pg_get_userbyid(d.datdba) = 'tenantry_admin' AND NOT EXISTS (
    SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a WHERE a.grantee = 0)
FROM pg_database AS d WHERE d.datname = $1";

/// On a server that was upgraded from an older version, a superuser may own the schema and PUBLIC may have CREATE.
const SCHEMA_IS_RIGHT: &str = "\
SELECT pg_get_userbyid(n.nspowner) = 'pg_database_owner' AND NOT EXISTS (
    SELECT FROM aclexplode(n.nspacl) AS a WHERE a.grantee = 0 AND a.privilege_type = 'CREATE')
FROM pg_namespace AS n WHERE n.nspname = $1";

impl Setup<'_> {
    async fn admin_role(&mut self) -> Result<()> {
        let what = "role tenantry_admin, NOLOGIN CREATEDB CREATEROLE";
        let script = match self.ask(ADMIN_IS_RIGHT, ADMIN.as_str()).await? {
            Some(true) => Script::new(),
            Some(false) => Script::of(
                "ALTER ROLE {} NOLOGIN CREATEDB CREATEROLE INHERIT {}",
                &[&ADMIN, &self.no_superuser(&ADMIN).await?],
            ),
            None => Script::of("CREATE ROLE {} NOLOGIN CREATEDB CREATEROLE", &[&ADMIN]),
        };
        self.apply_and_verify(what, &script, ADMIN_IS_RIGHT, &ADMIN).await
    }

    async fn operator(&mut self, operator: &Ident, password: &SecretText) -> Result<()> {
        // It needs CREATEROLE itself: from 16 on, COMMENT ON ROLE tenantry_admin requires it.
        let what = format!("login {operator}, NOSUPERUSER CREATEDB CREATEROLE");
        let script = match self.ask(OPERATOR_IS_RIGHT, operator.as_str()).await? {
            Some(true) => Script::new(),
            Some(false) => Script::of(
                "ALTER ROLE {} LOGIN CREATEDB CREATEROLE INHERIT {}",
                &[operator, &self.no_superuser(operator).await?],
            ),
            None => Script::of("CREATE ROLE {} LOGIN CREATEDB CREATEROLE", &[operator]),
        };
        self.apply_and_verify(what, &script, OPERATOR_IS_RIGHT, operator).await?;
        let verifier = scram_verifier(password);
        let script = Script::of("ALTER ROLE {} PASSWORD {}", &[operator, &Literal::new(&verifier)?]);
        match self.run(&script).await? {
            Ok(()) => self.report.done.push(format!("password of {operator}")),
            Err(why) => self.report.refused.push(format!("password of {operator}: {why}")),
        }
        Ok(())
    }

    /// With the ADMIN option, which no role has on itself, the login can write the installation's id into the comment of
    /// `tenantry_admin`, and add its successor.
    async fn membership(&mut self, operator: &Ident) -> Result<()> {
        let what = format!("{operator} is a member of tenantry_admin, with ADMIN OPTION");
        let admin = self.ask(IS_MEMBER, operator.as_str()).await? == Some(true);
        if !admin {
            let option = Keyword(if self.with_options { "ADMIN TRUE" } else { "ADMIN OPTION" });
            let script = Script::of("GRANT {} TO {} WITH {}", &[&ADMIN, operator, &option]);
            self.apply_and_verify(&what, &script, IS_MEMBER, operator).await?;
        } else {
            self.report.done.push(what.clone());
        }
        if self.with_options && self.ask(IS_FULL_MEMBER, operator.as_str()).await? != Some(true) {
            let script = Script::of("GRANT {} TO {} WITH INHERIT TRUE, SET TRUE", &[&ADMIN, operator]);
            self.apply_and_verify("the membership has INHERIT and SET", &script, IS_FULL_MEMBER, operator)
                .await?;
        }
        Ok(())
    }

    async fn predefined_roles(&mut self) -> Result<()> {
        let is_member = "SELECT pg_has_role('tenantry_admin', $1, 'USAGE')";
        for (name, why) in [
            ("pg_signal_backend", "tenants' sessions can be ended"),
            ("pg_read_all_stats", "the end of tenants' sessions can be proven"),
        ] {
            let role = Ident::new(name)?;
            let there = self.ask(is_member, name).await? == Some(true);
            let script = Script::of("GRANT {} TO {}", &[&role, &ADMIN]);
            let script = if there { Script::new() } else { script };
            self.apply_and_verify(format!("{name} for tenantry_admin: {why}"), &script, is_member, &role)
                .await?;
        }
        Ok(())
    }

    async fn system_database(&mut self, name: &Ident) -> Result<()> {
        let what = format!("database {name} for the registry, owned by tenantry_admin, closed to PUBLIC");
        if self.ask(SYSTEM_IS_RIGHT, name.as_str()).await? == Some(true) {
            self.report.done.push(what);
            return Ok(());
        }
        // A role that is not a superuser must be a member of the owner that it names, for the time of the statement.
        let member =
            "SELECT rolsuper OR pg_has_role($1, 'tenantry_admin', 'USAGE') FROM pg_roles WHERE rolname = $1";
        let me: String = sqlx::query_scalar("SELECT current_user::text")
            .fetch_one(&mut *self.session)
            .await
            .map_err(Error::sql("read the administrator's role"))?;
        let me = Ident::new(&me)?;
        let joins = self.ask(member, me.as_str()).await? != Some(true);
        let options = Keyword(if self.with_options { "WITH INHERIT TRUE, SET TRUE" } else { "" });
        if joins
            && let Err(why) = self.run(&Script::of("GRANT {} TO {} {}", &[&ADMIN, &me, &options])).await?
        {
            self.report.refused.push(format!("{what}: {why}"));
            return Ok(());
        }
        let exists = "SELECT true FROM pg_database WHERE datname = $1";
        let made = if self.ask(exists, name.as_str()).await? == Some(true) {
            self.run(&Script::of("ALTER DATABASE {} OWNER TO {}", &[name, &ADMIN])).await?
        } else {
            self.run(&Script::of("CREATE DATABASE {} OWNER {}", &[name, &ADMIN])).await?
        };
        match made {
            Ok(()) => {
                let close = Script::of("REVOKE ALL ON DATABASE {} FROM PUBLIC", &[name]);
                self.apply_and_verify(&what, &close, SYSTEM_IS_RIGHT, name).await?;
            }
            Err(why) => self.report.refused.push(format!("{what}: {why}")),
        }
        if joins && let Err(why) = self.run(&Script::of("REVOKE {} FROM {}", &[&ADMIN, &me])).await? {
            self.report.refused.push(format!("remove {me} from tenantry_admin again: {why}"));
        }
        Ok(())
    }

    /// Only the operator connects to the maintenance database `postgres`, and no role to `template1`: a session there
    /// blocks every CREATE DATABASE from it.
    async fn maintenance_databases(&mut self) -> Result<()> {
        let postgres = Ident::new(MAINTENANCE_DATABASE)?;
        let script = match self.ask(IS_OPEN_TO_ADMIN, postgres.as_str()).await? {
            Some(true) => Script::new(),
            _ => Script::of("GRANT CONNECT ON DATABASE {} TO {}", &[&postgres, &ADMIN]),
        };
        self.apply_and_verify("CONNECT on postgres for tenantry_admin", &script, IS_OPEN_TO_ADMIN, &postgres)
            .await?;
        for name in [postgres, Ident::new("template1")?] {
            let script = match self.ask(IS_CLOSED_TO_PUBLIC, name.as_str()).await? {
                Some(true) => Script::new(),
                _ => Script::of("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", &[&name]),
            };
            self.apply_and_verify(
                format!("CONNECT on {name} revoked from PUBLIC"),
                &script,
                IS_CLOSED_TO_PUBLIC,
                &name,
            )
            .await?;
        }
        Ok(())
    }

    /// A right that is revoked in `template1` is revoked in every database that is created from it: function rights are
    /// cloned.
    async fn large_objects(&mut self) -> Result<()> {
        let mut failure = None;
        if self.open_writers().await? > 0 {
            failure = self.run(&Script::of(REVOKE_WRITERS, &[])).await?.err();
        }
        if failure.is_none() && self.open_writers().await? == 0 {
            let what = "EXECUTE on the large-object writers revoked from PUBLIC in template1";
            self.report.done.push(what.to_owned());
        } else {
            let why = failure.map(|why| format!(": {why}")).unwrap_or_default();
            self.report.refused.push(format!("{LARGE_OBJECTS_OPEN}{why}"));
        }
        Ok(())
    }

    async fn schema_public(&mut self) -> Result<()> {
        let public = Ident::new("public")?;
        let script = match self.ask(SCHEMA_IS_RIGHT, public.as_str()).await? {
            // It was dropped: no role can create objects in it, and building the template reports it.
            None => return Ok(()),
            Some(true) => Script::new(),
            Some(false) => Script::of("ALTER SCHEMA {} OWNER TO pg_database_owner", &[&public])
                .then("REVOKE CREATE ON SCHEMA {} FROM PUBLIC", &[&public]),
        };
        let what = "in template1, schema public is the database owner's, and PUBLIC may not create in it";
        self.apply_and_verify(what, &script, SCHEMA_IS_RIGHT, &public).await
    }

    async fn open_writers(&mut self) -> Result<i64> {
        sqlx::query_scalar(OPEN_WRITERS)
            .fetch_one(&mut *self.session)
            .await
            .map_err(Error::sql("read the rights on the large-object writers"))
    }

    /// `NOSUPERUSER` is accepted only for a superuser, and only from one.
    async fn no_superuser(&mut self, role: &Ident) -> Result<Keyword> {
        let superuser = self.ask(IS_SUPERUSER, role.as_str()).await? == Some(true);
        Ok(Keyword(if superuser { "NOSUPERUSER" } else { "" }))
    }

    /// Runs a script, verifies the result, and reports it.
    async fn apply_and_verify(
        &mut self,
        what: impl Display,
        script: &Script,
        is_right: &'static str,
        about: &Ident,
    ) -> Result<()> {
        let outcome = if script.is_empty() { Ok(()) } else { self.run(script).await? };
        match outcome {
            Err(why) => self.report.refused.push(format!("{what}: {why}")),
            Ok(()) if self.ask(is_right, about.as_str()).await? == Some(true) => {
                self.report.done.push(what.to_string());
            }
            Ok(()) => self
                .report
                .refused
                .push(format!("{what}: the server ignored it; the owner of the object can do it")),
        }
        Ok(())
    }

    /// Runs a query about the object of a name; `None` if there is none.
    async fn ask(&mut self, question: &'static str, about: &str) -> Result<Option<bool>> {
        sqlx::query_scalar(question)
            .bind(about)
            .fetch_optional(&mut *self.session)
            .await
            .map_err(Error::sql("read the state of the server"))
    }

    /// Runs a script. A refusal by the server is a result; only a lost connection ends the setup.
    async fn run(&mut self, script: &Script) -> Result<Result<(), String>> {
        match sqlx::raw_sql(script.sql()).execute(&mut *self.session).await {
            Ok(_) => Ok(Ok(())),
            Err(error) if crate::postgres::error::reported(&error).is_some() => {
                Ok(Err(crate::postgres::error::describe(&error)))
            }
            Err(error) => Err(Error::sql("set the server up")(error)),
        }
    }
}

/// The number of functions that write large objects and that PUBLIC may call, in the current database. Large objects
/// are in no schema. (By default, only superusers may call `lo_import` and `lo_export`.)
pub(super) const OPEN_WRITERS: &str = "\
SELECT count(*) FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE' AND p.pronamespace = 'pg_catalog'::regnamespace
  AND p.proname IN ('lo_creat', 'lo_create', 'lo_export', 'lo_from_bytea', 'lo_import', 'lo_put', 'lo_truncate',
                    'lo_truncate64', 'lo_unlink', 'lowrite')";

/// Revokes them.
const REVOKE_WRITERS: &str = "\
DO $$
DECLARE writer regprocedure;
BEGIN
    FOR writer IN
        SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace
          AND p.proname IN ('lo_creat', 'lo_create', 'lo_export', 'lo_from_bytea', 'lo_import', 'lo_put',
                            'lo_truncate', 'lo_truncate64', 'lo_unlink', 'lowrite')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', writer);
    END LOOP;
END
$$";

/// The consequence of a function that PUBLIC may call.
pub(super) const LARGE_OBJECTS_OPEN: &str = "PUBLIC may EXECUTE the large-object writers (lo_create and others) in template1, so that a tenant's login could own objects";
