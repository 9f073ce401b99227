//! Logging in as the tenant, to prove what was set up by using it.

use sqlx::Row;

use crate::domain::identity::TenantId;

use super::{
    connect::Seat,
    credentials::SecretText,
    error::{Error, Result, reported},
    identifier::Ident,
    migrate::{self, VERSIONS},
    modules::ModuleVersion,
    server::Server,
};

impl Server {
    /// Logs in with the tenant's own credentials and reads the module versions there. Where the tenant has all the
    /// sessions that it may have, its password is proven and no more: the versions are read as the migrator.
    pub async fn verify(
        &self,
        id: TenantId,
        database: &str,
        login: &str,
        password: &SecretText,
    ) -> Result<Vec<ModuleVersion>> {
        match self.log_in(database, login, password).await {
            Err(error) if is_refused_by_own_limit(&error) => {
                let mut visit = self.enter(id, database, "connect to read the versions").await?;
                let result = migrate::versions(&mut visit.session).await;
                self.leave(visit, result).await
            }
            other => other,
        }
    }

    /// Proves that the tenant's login is refused.
    pub async fn verify_refused(&self, database: &str, login: &str, password: &SecretText) -> Result<()> {
        match self.log_in(database, login, password).await {
            Ok(_) => Err(Error::LoginAccepted { login: login.to_owned(), database: database.to_owned() }),
            Err(error)
                if matches!(error.sql_state().as_deref(), Some("28000" | "28P01" | "42501" | "3D000")) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn log_in(&self, database: &str, login: &str, password: &SecretText) -> Result<Vec<ModuleVersion>> {
        let doing = "log in as the tenant";
        let (database, login) = (Ident::new(database)?, Ident::new(login)?);
        let seat = Seat::Tenant { database: &database, login: &login, password };
        let mut session = self.inner.sessions.single(&seat, doing).await?;
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
}

/// Whether the login has all its sessions. Other limits are refused with the same SQLSTATE, that of the server before any
/// password is looked at; the place in PostgreSQL that refuses a role's is the one after the password was accepted. (To
/// count the sessions would tell what is so a moment later.)
fn is_refused_by_own_limit(error: &Error) -> bool {
    let Error::Sql { source, .. } = error else { return false };
    reported(source)
        .is_some_and(|error| error.code() == "53300" && error.routine() == Some("InitializeSessionUserId"))
}
