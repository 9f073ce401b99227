//! The stage of a way: a tenant, an actor in its database, and the checks of the result.

use std::{fmt::Display, sync::Arc};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::{
    domain::{
        access::AccessLevel,
        drift::{Expected, mismatches},
        placement::Placement,
        tenant_facts::RecordedOids,
    },
    postgres::{server::Server, tenant::credentials::scram_verifier},
};
use tenantry_dev::Postgres;
use tokio::sync::Mutex;

use crate::servers::{Tenant, access};

/// The result of an action, or the reason of its failure.
pub type Outcome<T = ()> = Result<T, String>;

/// An error as text.
pub fn as_text(error: impl Display) -> String {
    error.to_string()
}

/// A tenant to suspend, and another tenant.
pub struct Stage {
    pub postgres: &'static Postgres,
    pub server: Server,
    pub tenant: Tenant,
    pub other: Arc<Tenant>,
    /// A session of an administrator in the tenant's database.
    administrator: Mutex<PgConnection>,
}

/// Objects that an installation's modules and administrators may have created in a database.
const FURNITURE: &str = "
    CREATE FUNCTION public.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    SELECT lo_create(4711);
    GRANT ALL ON LARGE OBJECT 4711 TO PUBLIC;
    SET LOCAL ROLE tenantry_owner;
    CREATE FUNCTION public.write_for_me() RETURNS void LANGUAGE sql SECURITY DEFINER
        SET search_path = public, pg_temp
        AS $$ INSERT INTO users (email) VALUES (gen_random_uuid() || '@definer.example') $$";

/// Everything that a tenant might change.
const CONTENT: &str = "SELECT concat_ws(E'\\n',
    (SELECT string_agg(u::text, ',' ORDER BY u.id) FROM users u),
    (SELECT string_agg(l::text, ',' ORDER BY l.id) FROM activity_log l),
    (SELECT concat(s.last_value, s.is_called) FROM activity_log_id_seq s),
    (SELECT string_agg(md5(data), ',' ORDER BY loid, pageno) FROM pg_largeobject),
    (SELECT string_agg(l.oid || l.lomacl::text, ',' ORDER BY l.oid) FROM pg_largeobject_metadata l),
    (SELECT string_agg(concat(relname, relowner, relacl), ',' ORDER BY oid) FROM pg_class),
    (SELECT string_agg(concat(proname, proowner, proacl), ',' ORDER BY oid) FROM pg_proc),
    (SELECT string_agg(concat(nspname, nspowner, nspacl), ',' ORDER BY oid) FROM pg_namespace),
    (SELECT string_agg(extname, ',') FROM pg_extension),
    (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_rewrite), (SELECT count(*) FROM pg_event_trigger),
    (SELECT concat(datname, datdba, datacl, datconnlimit, shobj_description(oid, 'pg_database'))
     FROM pg_database WHERE datname = current_database()),
    (SELECT concat(r.rolcanlogin, r.rolconnlimit, r.rolcreatedb, r.rolcreaterole, shobj_description(r.oid, 'pg_authid'))
     FROM pg_roles r WHERE r.rolname = current_database() || '_app'),
    (SELECT string_agg(m.roleid || '>' || m.member, ',' ORDER BY m.roleid, m.member, m.grantor) FROM pg_auth_members m
     WHERE (current_database() || '_app')::regrole IN (m.roleid, m.member)))";

impl Stage {
    pub async fn set(
        postgres: &'static Postgres,
        server: &Server,
        other: &Arc<Tenant>,
        database: &str,
    ) -> Outcome<Arc<Self>> {
        let tenant = Tenant::new(database);
        tenant.provision(server, 1).await;
        let mut administrator = postgres.connect(database).await.map_err(as_text)?;
        administrator.execute(FURNITURE).await.map_err(as_text)?;
        let (server, other, administrator) = (server.clone(), Arc::clone(other), Mutex::new(administrator));
        Ok(Arc::new(Self { postgres, server, tenant, other, administrator }))
    }

    /// The content of the tenant's database, and the properties of its login.
    pub async fn content(&self) -> Outcome<String> {
        sqlx::query_scalar(CONTENT).fetch_one(&mut *self.administrator.lock().await).await.map_err(as_text)
    }

    /// The login's sessions.
    pub async fn sessions(&self) -> Outcome<Vec<String>> {
        let sessions = "SELECT pid || ' of ' || backend_start FROM pg_stat_activity WHERE usename = $1";
        let sessions = sqlx::query_scalar(sessions).bind(&self.tenant.placement.login);
        sessions.fetch_all(&mut *self.administrator.lock().await).await.map_err(as_text)
    }

    pub async fn set_access(&self, level: AccessLevel) -> Outcome {
        let Tenant { placement, password } = &self.tenant;
        self.server.set_access(placement, level).await.map_err(as_text)?;
        // As on a reinstatement: the login may have another password, or an expired one.
        if level == AccessLevel::ReadWrite {
            self.server.set_login(placement, &scram_verifier(password), true).await.map_err(as_text)?;
        }
        Ok(())
    }

    /// Checks that the level is in force, without any other mismatch.
    pub async fn check_level(&self, level: AccessLevel) -> Outcome {
        let facts = self.server.observe(&self.tenant.placement).await.map_err(as_text)?;
        let expected = Expected {
            recorded: RecordedOids::default(),
            access: level,
            connections: -1,
            is_previous_over: false,
        };
        let differences = mismatches(&facts, &expected);
        if access(&facts) != Some(level) || !differences.is_empty() {
            return Err(format!("{:?} instead of {level}: {differences:?}", access(&facts)));
        }
        Ok(())
    }

    /// Checks that no earlier session of the login is left, none at all if it is blocked, and no transaction that could be
    /// committed later.
    pub async fn check_ended(&self, before: &[String], level: AccessLevel) -> Outcome {
        let mut left = self.sessions().await?;
        if level > AccessLevel::Blocked {
            left.retain(|session| before.contains(session));
        }
        let prepared =
            "SELECT 'transaction ' || gid FROM pg_prepared_xacts WHERE database = current_database()";
        let prepared = sqlx::query_scalar(prepared).fetch_all(&mut *self.administrator.lock().await).await;
        left.extend(prepared.map_err(as_text)?);
        if left.is_empty() { Ok(()) } else { Err(format!("these are left: {}", left.join(", "))) }
    }
}

/// An actor in the tenant's database: its login, or an administrator for comparison.
#[derive(Clone)]
pub struct Actor {
    pub stage: Arc<Stage>,
    pub is_administrator: bool,
}

impl Actor {
    /// The URL of the database.
    pub fn url(&self) -> String {
        let Tenant { placement: Placement { database, login, .. }, password } = &self.stage.tenant;
        if self.is_administrator {
            self.stage.postgres.admin_url(database)
        } else {
            // A wait for a lock of another way fails instead of hanging.
            let url = self.stage.postgres.url(login, password.expose(), database);
            format!("{url}&options=-c%20lock_timeout=20s")
        }
    }

    /// The name and the password in the URL.
    pub fn credentials(&self) -> (String, String) {
        let url = self.url();
        let rest = url.split_once("//").map_or("", |(_, rest)| rest);
        let (credentials, _) = rest.split_once('@').unwrap_or_default();
        let (user, password) = credentials.split_once(':').unwrap_or_default();
        (user.to_owned(), password.to_owned())
    }

    pub async fn session(&self) -> Outcome<PgConnection> {
        PgConnection::connect(&self.url()).await.map_err(|error| format!("no session: {error}"))
    }

    /// Runs statements in a session. Those of an administrator are rolled back.
    pub async fn run(&self, session: &mut PgConnection, sql: &str) -> Outcome {
        let sql = self.fill(sql);
        let sql = if self.is_administrator { format!("BEGIN; {sql}; ROLLBACK") } else { sql };
        session.execute(AssertSqlSafe(sql)).await.map(drop).map_err(as_text)
    }

    pub fn fill(&self, sql: &str) -> String {
        let Placement { database, login, .. } = &self.stage.tenant.placement;
        sql.replace("{write}", "INSERT INTO users (email) VALUES (gen_random_uuid() || '@way.example')")
            .replace("{database}", database)
            .replace("{login}", login)
            .replace("{other}", &self.stage.other.placement.login)
    }
}
