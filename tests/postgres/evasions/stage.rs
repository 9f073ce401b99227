//! Where a way is tried: a tenant of its own, somebody who acts in its database, and a look at what is there.

use std::{fmt::Display, sync::Arc};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::{
    domain::access::AccessLevel,
    postgres::{credentials::scram_verifier, drift::Known, server::Server},
};
use tenantry_dev::Postgres;
use tokio::sync::Mutex;

use crate::servers::Tenant;

/// What came of something, or why nothing did.
pub type Outcome<T = ()> = Result<T, String>;

/// An error as text.
pub fn told(error: impl Display) -> String {
    error.to_string()
}

/// A tenant to suspend, and another one beside it.
pub struct Stage {
    pub postgres: &'static Postgres,
    pub server: Server,
    pub tenant: Tenant,
    pub other: Arc<Tenant>,
    /// Looks at the tenant's database.
    administrator: Mutex<PgConnection>,
}

/// What an installation's modules and administrators may have put into a database.
const FURNITURE: &str = "
    CREATE FUNCTION public.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    SELECT lo_create(4711);
    GRANT ALL ON LARGE OBJECT 4711 TO PUBLIC;
    SET LOCAL ROLE tenantry_owner;
    CREATE FUNCTION public.write_for_me() RETURNS void LANGUAGE sql SECURITY DEFINER
        SET search_path = public, pg_temp
        AS $$ INSERT INTO users (email) VALUES (gen_random_uuid() || '@definer.example') $$";

/// Everything that a tenant might have changed.
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
        let mut administrator = postgres.connect(database).await.map_err(told)?;
        administrator.execute(FURNITURE).await.map_err(told)?;
        let (server, other, administrator) = (server.clone(), Arc::clone(other), Mutex::new(administrator));
        Ok(Arc::new(Self { postgres, server, tenant, other, administrator }))
    }

    /// What is in the tenant's database, and what the server knows of its login.
    pub async fn content(&self) -> Outcome<String> {
        sqlx::query_scalar(CONTENT).fetch_one(&mut *self.administrator.lock().await).await.map_err(told)
    }

    /// The login's sessions.
    pub async fn sessions(&self) -> Outcome<Vec<String>> {
        let sessions = "SELECT pid || ' of ' || backend_start FROM pg_stat_activity WHERE usename = $1";
        let sessions = sqlx::query_scalar(sessions).bind(&self.tenant.login);
        sessions.fetch_all(&mut *self.administrator.lock().await).await.map_err(told)
    }

    pub async fn set_access(&self, level: AccessLevel) -> Outcome {
        let Tenant { id, database, login, password } = &self.tenant;
        self.server.set_access(*id, database, login, level).await.map_err(told)?;
        // As when the tenant is reinstated: the login may have another password, or none that works.
        if level == AccessLevel::ReadWrite {
            self.server.set_login(*id, login, &scram_verifier(password), true).await.map_err(told)?;
        }
        Ok(())
    }

    /// The level is in force, and nothing else is as it should not be.
    pub async fn check_level(&self, level: AccessLevel) -> Outcome {
        let Tenant { id, database, login, .. } = &self.tenant;
        let facts = self.server.observe(*id, database, login).await.map_err(told)?;
        let differences = facts.differences(level, Known::default(), -1);
        if facts.access() != Some(level) || !differences.is_empty() {
            return Err(format!("{:?} instead of {level}: {differences:?}", facts.access()));
        }
        Ok(())
    }

    /// Of the login, there is no session from before, and when it is blocked none at all; nor is there a transaction
    /// that could be committed later.
    pub async fn check_gone(&self, before: &[String], level: AccessLevel) -> Outcome {
        let mut left = self.sessions().await?;
        if level > AccessLevel::Blocked {
            left.retain(|session| before.contains(session));
        }
        let prepared =
            "SELECT 'transaction ' || gid FROM pg_prepared_xacts WHERE database = current_database()";
        let prepared = sqlx::query_scalar(prepared).fetch_all(&mut *self.administrator.lock().await).await;
        left.extend(prepared.map_err(told)?);
        if left.is_empty() { Ok(()) } else { Err(format!("these are left: {}", left.join(", "))) }
    }
}

/// Somebody who acts in the tenant's database: its login, or an administrator for comparison.
#[derive(Clone)]
pub struct Actor {
    pub stage: Arc<Stage>,
    pub is_administrator: bool,
}

impl Actor {
    /// How a database is reached.
    pub fn url(&self) -> String {
        let Tenant { database, login, password, .. } = &self.stage.tenant;
        if self.is_administrator {
            self.stage.postgres.admin_url(database)
        } else {
            // What waits for a lock of another way says so, rather than hang.
            let url = self.stage.postgres.url(login, password.expose(), database);
            format!("{url}&options=-c%20lock_timeout=20s")
        }
    }

    /// The name and the password in it.
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

    /// Runs statements in a session. What an administrator does, it undoes.
    pub async fn run(&self, session: &mut PgConnection, sql: &str) -> Outcome {
        let sql = self.fill(sql);
        let sql = if self.is_administrator { format!("BEGIN; {sql}; ROLLBACK") } else { sql };
        session.execute(AssertSqlSafe(sql)).await.map(drop).map_err(told)
    }

    pub fn fill(&self, sql: &str) -> String {
        let Tenant { database, login, .. } = &self.stage.tenant;
        sql.replace("{write}", "INSERT INTO users (email) VALUES (gen_random_uuid() || '@way.example')")
            .replace("{database}", database)
            .replace("{login}", login)
            .replace("{other}", &self.stage.other.login)
    }
}
