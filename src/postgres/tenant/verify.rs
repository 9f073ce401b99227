//! Logs in as the tenant, to verify its database and its credentials.

use sqlx::Row;

use crate::{
    domain::{placement::Placement, record::ModuleVersion},
    postgres::{
        error::{Error, Result, reported},
        identifier::Ident,
        server::Server,
        session::connect::ConnectAs,
    },
};

use super::{
    credentials::SecretText,
    migrate::{self, VERSIONS},
};

impl Server {
    /// Logs in with the tenant's credentials and reads the module versions. If the login has reached its connection limit,
    /// only its password is verified, and the versions are read as the migrator.
    pub async fn verify(&self, placement: &Placement, password: &SecretText) -> Result<Vec<ModuleVersion>> {
        match self.log_in(placement, password).await {
            Err(error) if is_refused_by_own_limit(&error) => {
                let mut migrator =
                    self.open_migrator_session(placement, "connect to read the versions").await?;
                let result = migrate::versions(&mut migrator.session).await;
                self.close_migrator_session(migrator, result).await
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
}

/// Whether the login has reached its own connection limit. Other limits have the same SQLSTATE, and that of the server is
/// checked before the password; PostgreSQL's routine for a role's limit runs after the password was accepted. (Counting
/// the sessions would show the state of a moment later.)
fn is_refused_by_own_limit(error: &Error) -> bool {
    let Error::Sql { source, .. } = error else { return false };
    reported(source)
        .is_some_and(|error| error.code() == "53300" && error.routine() == Some("InitializeSessionUserId"))
}
