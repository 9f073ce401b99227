//! Each tenant's login: created, given its password, used to verify it, dropped.

use sqlx::Row;

use crate::{
    domain::{
        placement::Placement,
        record::ModuleVersion,
        tenant_facts::{LoginProperties, Ownership},
    },
    postgres::{
        catalog::ownership,
        error::{Error, Result, code, describe, is_duplicate, reported},
        identifier::{ADMIN, Ident, Keyword, Literal, NO_ATTRIBUTES, Script},
        server::{Server, run_despite_read_only},
        session::connect::{ANSWER_LIMIT, ConnectAs, with_timeout},
    },
};

use super::{
    credentials::{SecretText, is_verifier},
    migrate::{self, VERSIONS},
};

/// The databases of tenants in which a role has rights, and owns nothing.
const GRANTED_BY_TENANTS: &str = "\
SELECT d.datname::text FROM pg_database AS d JOIN pg_shdepend AS s ON s.dbid = d.oid
WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1)
    AND starts_with(shobj_description(d.oid, 'pg_database'), 'tenantry:tenant:')
GROUP BY d.datname HAVING bool_and(s.deptype = 'a')";

impl Server {
    /// Creates the tenant's login, without LOGIN, a password or any right, and with its ownership comment.
    pub async fn create_login(&self, placement: &Placement) -> Result<()> {
        let (id, login) = (placement.tenant, Ident::login(placement)?);
        let _one = self.lock_tenant(id).await;
        let script = Script::of("CREATE ROLE {} NOLOGIN {}", &[&login, &NO_ATTRIBUTES])
            .then("COMMENT ON ROLE {} IS {}", &[&login, &Literal::new(&ownership::login(id))?]);
        match self.run("create the login", &script).await {
            Err(Error::Sql { source, .. }) if is_duplicate(&source) => {
                self.own_login(placement).await.map(drop)
            }
            other => other,
        }
    }

    /// Sets the password of the login, as a verifier, and LOGIN or NOLOGIN.
    pub async fn set_login(&self, placement: &Placement, verifier: &str, can_login: bool) -> Result<()> {
        if !is_verifier(verifier) {
            return Err(Error::NotAVerifier);
        }
        let login = Ident::login(placement)?;
        let _one = self.lock_tenant(placement.tenant).await;
        if !self.own_login(placement).await? {
            return Err(Error::LoginMissing(login.to_string()));
        }
        let may = Keyword(if can_login { "LOGIN" } else { "NOLOGIN" });
        let script = Script::of("ALTER ROLE {} {} PASSWORD {}", &[&login, &may, &Literal::new(verifier)?]);
        self.run("set the login's password", &script).await
    }

    /// Drops the tenant's login, if it exists. A role of that name that is not the tenant's is a conflict.
    pub async fn drop_login(&self, placement: &Placement) -> Result<()> {
        let login = Ident::login(placement)?;
        let _one = self.lock_tenant(placement.tenant).await;
        match self.own_login_facts(placement).await? {
            None => return Ok(()),
            Some(facts) if facts.is_kept => return self.release_login(&login).await,
            Some(_) => {}
        }
        match self.drop_role(&login).await {
            Err(Error::LoginInUse { .. }) => {
                // What else it left or was granted is reported.
                self.delete_large_objects(&login).await?;
                self.revoke_from_other_tenants(&login).await?;
                self.drop_role(&login).await
            }
            other => other,
        }
    }

    /// As [`Server::drop_login`], outside a purge: a login that owns something, or was granted something, stays.
    pub(super) async fn drop_unused_login(&self, placement: &Placement) -> Result<()> {
        let login = Ident::login(placement)?;
        let _one = self.lock_tenant(placement.tenant).await;
        match self.own_login_facts(placement).await? {
            Some(facts) if facts.is_kept => self.release_login(&login).await,
            Some(_) => match self.drop_role(&login).await {
                Err(Error::LoginInUse { .. }) => Ok(()),
                other => other,
            },
            None => Ok(()),
        }
    }

    /// Leaves a login that existed before its tenant: without LOGIN, and without its ownership comment. It has lost its access
    /// before. An administrator may have other plans for the role, so that it is not dropped.
    async fn release_login(&self, login: &Ident) -> Result<()> {
        let script = Script::of("ALTER ROLE {} NOLOGIN", &[login])
            .then("ALTER ROLE {} RESET ALL", &[login])
            .then("COMMENT ON ROLE {} IS NULL", &[login]);
        let mut session = self.admin().await?;
        let released = run_despite_read_only(&mut session, "leave the kept login", &script).await;
        if released.as_ref().err().is_none_or(|error| error.sql_state().is_some()) {
            session.release();
        }
        released
    }

    /// Gives a login that existed before its tenant LOGIN again, with the password that it has.
    pub async fn admit_kept_login(&self, placement: &Placement) -> Result<()> {
        let login = Ident::login(placement)?;
        let _one = self.lock_tenant(placement.tenant).await;
        match self.own_login_facts(placement).await? {
            Some(facts) if facts.is_kept && !facts.can_login => {
                self.run("admit the kept login", &Script::of("ALTER ROLE {} LOGIN", &[&login])).await
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn drop_role(&self, login: &Ident) -> Result<()> {
        let drop = Script::of("DROP ROLE {}", &[login]);
        match self.run_narrowing("drop the login", &drop).await {
            Err(Error::Sql { source, .. }) if code(&source) == Some("2BP01") => {
                Err(Error::LoginInUse { login: login.to_string(), detail: describe(&source) })
            }
            // Another session dropped it first.
            Err(Error::Sql { source, .. }) if code(&source) == Some("42704") => Ok(()),
            other => other,
        }
    }

    /// Revokes what the login was granted in the databases of other tenants: each of them can grant it default privileges,
    /// which would keep it from ever being dropped. What the login owns stays.
    pub(super) async fn revoke_from_other_tenants(&self, login: &Ident) -> Result<()> {
        let doing = "revoke the login's rights in other databases";
        let mut session = self.admin().await?;
        let query = sqlx::query_scalar(GRANTED_BY_TENANTS).bind(login.as_str()).fetch_all(&mut *session);
        let databases: Vec<String> = with_timeout(ANSWER_LIMIT, doing, query).await?;
        // An operation holds one session at a time.
        session.release();
        for database in &databases {
            let mut session = self.inner.sessions.single(&ConnectAs::Admin(database), doing).await?;
            let options =
                Keyword(if session.has_grant_options() { "WITH INHERIT TRUE, SET TRUE" } else { "" });
            let revoke = Script::of("GRANT {} TO {} {}", &[login, &ADMIN, &options])
                .then("DROP OWNED BY {}", &[login])
                .then("REVOKE {} FROM {}", &[login, &ADMIN]);
            run_despite_read_only(&mut session, doing, &revoke).await?;
            session.close().await;
        }
        Ok(())
    }

    /// Logs in with the tenant's credentials and reads the module versions. If the login has reached its connection limit,
    /// only its password is verified, and the versions are read as the migrator.
    pub async fn verify(&self, placement: &Placement, password: &SecretText) -> Result<Vec<ModuleVersion>> {
        match self.log_in(placement, password).await {
            Err(error) if is_refused_by_own_limit(&error) => {
                let mut migrator =
                    self.open_migrator_session(placement, "connect to read the versions").await?;
                let result = migrate::versions(&mut migrator.session).await;
                self.close_migrator_session(migrator, placement, result).await
            }
            other => other,
        }
    }

    /// Verifies that the tenant's login is refused.
    pub async fn verify_refused(&self, placement: &Placement, password: &SecretText) -> Result<()> {
        match self.log_in(placement, password).await {
            Ok(_) => {
                let Placement { login, database, .. } = placement.clone();
                Err(Error::LoginAccepted { login, database })
            }
            Err(error)
                if matches!(error.sql_state().as_deref(), Some("28000" | "28P01" | "42501" | "3D000")) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn log_in(&self, placement: &Placement, password: &SecretText) -> Result<Vec<ModuleVersion>> {
        let doing = "log in as the tenant";
        let (database, login) = (Ident::database(placement)?, Ident::login(placement)?);
        let connect_as = ConnectAs::Tenant { database: &database, login: &login, password };
        let mut session = self.inner.sessions.single(&connect_as, doing).await?;
        let rows = sqlx::query(VERSIONS).fetch_all(&mut *session).await.map_err(Error::sql(doing))?;
        session.pid = rows.first().and_then(|row| row.try_get("pid").ok());
        let versions = rows
            .iter()
            .map(|row| Ok(ModuleVersion { name: row.try_get("module")?, version: row.try_get("version")? }))
            .collect::<Result<_, sqlx::Error>>()
            .map_err(Error::sql(doing))?;
        session.close().await;
        Ok(versions)
    }

    /// As [`Server::check_login`].
    pub(super) async fn own_login(&self, placement: &Placement) -> Result<bool> {
        Ok(self.own_login_facts(placement).await?.is_some())
    }

    async fn own_login_facts(&self, placement: &Placement) -> Result<Option<LoginProperties>> {
        let login = Ident::login(placement)?;
        let inventory = self.read(Some((&[], &[login.as_str()]))).await?;
        match inventory.facts(placement).login {
            Some(facts) if !facts.ownership.is_ours() => Err(conflict(&login, facts.ownership)),
            facts => Ok(facts),
        }
    }
}

pub(super) fn conflict(login: &Ident, ownership: Ownership) -> Error {
    Error::Conflict { kind: "role", name: login.to_string(), detail: ownership.describe() }
}

/// Whether the login has reached its own connection limit. Other limits have the same SQLSTATE, and that of the server is
/// checked before the password; PostgreSQL's routine for a role's limit runs after the password was accepted. (Counting
/// the sessions would show the state of a moment later.)
fn is_refused_by_own_limit(error: &Error) -> bool {
    let Error::Sql { source, .. } = error else { return false };
    reported(source)
        .is_some_and(|error| error.code() == "53300" && error.routine() == Some("InitializeSessionUserId"))
}
