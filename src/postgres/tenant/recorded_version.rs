//! Records the version that a run of an application's tool has brought a database to.

use super::{
    migrate::named::{DOING, record},
    migration_login::MigratedDatabase,
};
use crate::{
    modules::Migration,
    postgres::{error::Result, identifier::Ident, server::Server},
};

impl Server {
    /// Records in a database that a run has brought it to this version of a module.
    pub async fn record_version(
        &self,
        database: &MigratedDatabase<'_>,
        module: &str,
        version: &Migration,
    ) -> Result<()> {
        match database {
            MigratedDatabase::OfTenant(placement) => {
                let mut migrator = self.open_migrator_session(placement, DOING).await?;
                let recorded = record(&mut migrator.session, module, version).await;
                self.close_unchecked(migrator, recorded).await
            }
            MigratedDatabase::Template(_) => {
                let slot = self.inner.sessions.tenant_slot().await;
                let name = Ident::new(&database.name()?)?;
                let mut session = self.migrator(slot, &name, DOING).await?;
                let recorded = record(&mut session, module, version).await;
                session.close().await?;
                recorded
            }
        }
    }
}
