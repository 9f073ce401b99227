//! Logging in as the tenant, to prove what was set up by using it.

use sqlx::Row;

use super::{
    connect::Seat,
    credentials::SecretText,
    error::{Error, Result},
    identifier::Ident,
    migrate::VERSIONS,
    modules::ModuleVersion,
    server::Server,
};

impl Server {
    /// Logs in with the tenant's own credentials and reads the module versions there.
    pub async fn verify(
        &self,
        database: &str,
        login: &str,
        password: &SecretText,
    ) -> Result<Vec<ModuleVersion>> {
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

    /// Proves that the tenant's login is refused.
    pub async fn verify_refused(&self, database: &str, login: &str, password: &SecretText) -> Result<()> {
        match self.verify(database, login, password).await {
            Ok(_) => Err(Error::LoginAccepted { login: login.to_owned(), database: database.to_owned() }),
            Err(error)
                if matches!(error.sql_state().as_deref(), Some("28000" | "28P01" | "42501" | "3D000")) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
