//! A tenant, its neighbour, and what an installation's modules and administrators may have created.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tenantry::{domain::access::AccessLevel, modules::ModuleSet, postgres::server::Server};
use tenantry_dev::Postgres;

use crate::{
    evasions::wire::Wire,
    servers::{OPERATOR, PASSWORD, Tenant, ready},
};

use super::{
    actions::{Action, What},
    attempt::{Actor, Names, Outcome, attempt, fill, log_in},
};

/// Objects in the tenant's database. No project may be added.
const FURNITURE: &str = "
    CREATE FUNCTION public.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    SELECT lo_create(4711);
    INSERT INTO tenantry.limits VALUES ('projects', 0);
    SET LOCAL ROLE tenantry_owner;
    CREATE FUNCTION public.of_a_module() RETURNS bigint LANGUAGE sql SECURITY DEFINER
        SET search_path = public, pg_temp AS 'SELECT count(*) FROM users'";

/// The transaction that the neighbour has prepared.
const PREPARED: &str = "of the neighbour";

pub struct Stage {
    postgres: &'static Postgres,
    server: Server,
    tenant: Tenant,
    neighbour: Tenant,
    template: String,
}

impl Stage {
    pub async fn set(postgres: &'static Postgres) -> sqlx::Result<Self> {
        let server = ready(postgres).await;
        let (tenant, neighbour) = (Tenant::new("tenant_tried"), Tenant::new("tenant_tried_beside"));
        tenant.provision(&server, 1).await;
        neighbour.provision(&server, 1).await;
        let template = server.ensure_template(&ModuleSet::built_in()).await.unwrap();
        let stage = Self { postgres, server, tenant, neighbour, template };
        stage.administrator().await?.execute(FURNITURE).await?;
        let mut beside = stage.neighbour.session(postgres).await?;
        beside.execute("ALTER ROLE CURRENT_USER SET work_mem = '5MB'").await?;
        beside.execute("BEGIN; SELECT pg_current_xact_id()").await?;
        beside.execute(AssertSqlSafe(format!("PREPARE TRANSACTION '{PREPARED}'"))).await?;
        Ok(stage)
    }

    /// Removes what would outlive the databases.
    pub async fn clear(&self) -> sqlx::Result<()> {
        let mut beside = self.neighbour.session(self.postgres).await?;
        beside.execute(AssertSqlSafe(format!("ROLLBACK PREPARED '{PREPARED}'"))).await.map(drop)
    }

    pub async fn set_access(&self, level: AccessLevel) {
        self.server.set_access(&self.tenant.placement, level).await.unwrap();
    }

    /// Attempts an action, or returns why that says nothing. Actions in a transaction share a session.
    pub async fn attempt(
        &self,
        actor: Actor,
        level: AccessLevel,
        action: &Action,
        shared: &mut Option<PgConnection>,
    ) -> Result<Outcome, String> {
        let as_text = |error: sqlx::Error| error.to_string();
        if action.what == What::Replication {
            return self.replicate().await;
        }
        let is_shared = matches!(action.what, What::Statements(_) | What::Effect(..));
        let mut session = match shared.take_if(|_| is_shared) {
            Some(session) => session,
            None => match log_in(&self.url(actor, level, action)).await.map_err(as_text)? {
                Ok(session) => session,
                Err(refused) => return Ok(refused),
            },
        };
        let others = self.sessions(action).await.map_err(as_text)?;
        let mut names = self.names(level);
        names.extend(others.iter().map(|(name, pid, _)| (*name, pid.clone())));
        let outcome = attempt(&mut session, action.what, &names).await;
        if is_shared {
            *shared = Some(session);
        } else {
            session.close().await.map_err(as_text)?;
        }
        outcome.map_err(as_text)
    }

    fn url(&self, actor: Actor, level: AccessLevel, action: &Action) -> String {
        // A wait for a lock fails instead of hanging.
        let (database, parameters) = match action.what {
            What::Login(database, parameters) => (database, parameters),
            What::Password => ("{neighbour_database}", ""),
            _ => ("{database}", "&options=-c%20lock_timeout=20s"),
        };
        let database = fill(database, &self.names(level));
        let url = match actor {
            Actor::Administrator => self.postgres.admin_url(&database),
            Actor::Tenant => {
                let of = if action.what == What::Password { &self.neighbour } else { &self.tenant };
                self.postgres.url(&of.placement.login, self.tenant.password.expose(), &database)
            }
        };
        format!("{url}{parameters}")
    }

    async fn administrator(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.postgres.admin_url(&self.tenant.placement.database)).await
    }

    /// What the names in braces mean.
    fn names(&self, level: AccessLevel) -> Names {
        vec![
            ("database", self.tenant.placement.database.clone()),
            ("login", self.tenant.placement.login.clone()),
            ("group", level.group().unwrap_or_default().to_owned()),
            (
                "other_group",
                if level == AccessLevel::ReadOnly { "tenantry_rw" } else { "tenantry_ro" }.to_owned(),
            ),
            ("neighbour", self.neighbour.placement.login.clone()),
            ("neighbour_database", self.neighbour.placement.database.clone()),
            ("template", self.template.clone()),
            ("prepared", PREPARED.to_owned()),
        ]
    }

    /// Opens the sessions whose pid an action names.
    async fn sessions(&self, action: &Action) -> sqlx::Result<Vec<(&'static str, String, PgConnection)>> {
        let mut sessions = Vec::new();
        for name in ["own_session", "neighbours_session", "operators_session"] {
            if !action.what.mentions(&format!("{{{name}}}")) {
                continue;
            }
            let mut session = match name {
                "own_session" => self.tenant.session(self.postgres).await?,
                "neighbours_session" => self.neighbour.session(self.postgres).await?,
                _ => {
                    let url = self.postgres.url(OPERATOR, PASSWORD, "postgres");
                    PgConnection::connect(&format!("{url}&application_name=of-the-operator")).await?
                }
            };
            let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut session).await?;
            session.execute("BEGIN; LOCK pg_class IN ACCESS SHARE MODE").await?;
            sessions.push((name, pid.to_string(), session));
        }
        Ok(sessions)
    }

    /// No library opens a replication connection.
    async fn replicate(&self) -> Result<Outcome, String> {
        let Tenant { placement, password } = &self.tenant;
        let parameters = [
            ("user", placement.login.as_str()),
            ("database", &placement.database),
            ("replication", "database"),
        ];
        let entered = async {
            let mut wire = Wire::knock(self.postgres.port(), &parameters, password.expose()).await?;
            wire.enter().await
        };
        match entered.await {
            Ok(()) => Ok(Outcome::Yes),
            // The fields of an error begin with a letter; that of the SQLSTATE is C.
            Err(why) => {
                let code =
                    why.split(' ').find_map(|field| field.strip_prefix('C').filter(|code| code.len() == 5));
                code.map(|code| Outcome::Refused(code.to_owned())).ok_or(why)
            }
        }
    }
}
