//! Takes the access from databases and logins of a tenant that should not exist. Nothing is dropped, and what lost its
//! ownership comment meanwhile is not changed.

use crate::{
    domain::{
        access::AccessLevel,
        identity::TenantId,
        leftovers::{Leftover, LeftoverObject},
        names::building_name,
        placement::Placement,
    },
    postgres::{
        catalog::inventory,
        error::Result,
        identifier::{Ident, Script},
        server::{Server, run_despite_read_only},
    },
};

impl Server {
    /// Revokes CONNECT on the databases from every role but their owner, then LOGIN and all groups from the logins, and
    /// ends their sessions.
    pub async fn cut_leftover(&self, found: &Leftover) -> Result<()> {
        for LeftoverObject { name, .. } in found.databases.iter().filter(|database| database.is_open) {
            self.close_leftover_database(found.tenant, name).await?;
        }
        // Without a database, none of this name is the tenant's.
        let database =
            found.databases.first().map_or(building_name(found.tenant), |first| first.name.clone());
        for login in found.logins.iter().filter(|login| login.is_open) {
            let placement = Placement {
                tenant: found.tenant,
                server: self.config().name.clone(),
                database: database.clone(),
                schema: None,
                login: login.name.clone(),
                previous_login: None,
                reader_login: None,
            };
            self.set_access(&placement, AccessLevel::Blocked).await?;
        }
        Ok(())
    }

    async fn close_leftover_database(&self, tenant: TenantId, name: &str) -> Result<()> {
        let database = Ident::new(name)?;
        let _one = self.lock_tenant(tenant).await;
        let mut session = self.admin().await?;
        let inventory = inventory::read(&mut session, Some((&[name], &[]))).await?;
        let mut script = Script::new();
        if inventory.owned_databases().any(|(found, owner)| found == name && owner == tenant) {
            for grantee in inventory.grantees(name) {
                match grantee {
                    Some(role) => {
                        script.add("REVOKE CONNECT ON DATABASE {} FROM {}", &[&database, &Ident::new(role)?]);
                    }
                    None => script.add("REVOKE ALL ON DATABASE {} FROM PUBLIC", &[&database]),
                }
            }
        }
        run_despite_read_only(&mut session, "close a database that should not exist", &script).await?;
        session.release();
        Ok(())
    }
}
