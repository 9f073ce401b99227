//! Sessions of `tenantry_migrator` in a tenant's database. It has CONNECT while the database is built, and later only for
//! the time of an operation there.

use tracing::warn;

use crate::{
    domain::{identity::TenantId, placement::Placement},
    postgres::{
        error::{Error, Result},
        identifier::{Ident, MIGRATOR, Script},
        server::Server,
    },
};

use super::{connect::MigratorWork, pool::Session};

/// A session of the migrator in a tenant's database.
pub(in crate::postgres) struct MigratorSession {
    pub(in crate::postgres) session: Session,
    /// The database: the one being built or the published one.
    database: Ident,
    /// The grant of CONNECT on a published database, for the time of this session.
    grant: Option<ConnectGrant>,
}

impl MigratorSession {
    /// The name of the database.
    pub(in crate::postgres) fn database(&self) -> &Ident {
        &self.database
    }

    /// Whether the database is published: it is not being built.
    pub(in crate::postgres) fn is_published(&self) -> bool {
        self.grant.is_some()
    }
}

/// CONNECT of the migrator on a published database. When it is dropped before it was revoked, by a cancelled operation,
/// it is revoked in the background.
struct ConnectGrant {
    server: Server,
    id: TenantId,
    name: Ident,
    is_revoked: bool,
}

impl Server {
    /// Opens a session of the migrator in the tenant's database, the one being built or the published one.
    pub(in crate::postgres) async fn open_migrator_session(
        &self,
        placement: &Placement,
        doing: &'static str,
    ) -> Result<MigratorSession> {
        self.open_migrator_session_for(MigratorWork::Change, placement, doing).await
    }

    /// As [`Self::open_migrator_session`], for an operation that only looks. When the operation gives up, the session is ended
    /// in the server: the tenant may have made a view that never returns.
    pub(in crate::postgres) async fn open_looking_session(
        &self,
        placement: &Placement,
        doing: &'static str,
    ) -> Result<MigratorSession> {
        let mut migrator = self.open_migrator_session_for(MigratorWork::Look, placement, doing).await?;
        migrator.session.ends_at_once = true;
        Ok(migrator)
    }

    async fn open_migrator_session_for(
        &self,
        work: MigratorWork,
        placement: &Placement,
        doing: &'static str,
    ) -> Result<MigratorSession> {
        let (id, name) = (placement.tenant, Ident::database(placement)?);
        // Before the lock: a restriction of the tenant's access needs the lock, and waits for no session of others.
        let slot = self.tenant_slot().await;
        let _one = self.lock_tenant(id).await;
        let found = self.observe(placement).await?;
        if found.building.is_some() {
            let database = Ident::building(placement);
            let session = self.migrator_for(work, slot, &database, doing).await?.with_pid().await;
            return Ok(MigratorSession { session, database, grant: None });
        }
        match found.database {
            Some(facts) if facts.ownership.is_ours() => {}
            Some(facts) => {
                let detail = facts.ownership.describe();
                return Err(Error::Conflict { kind: "database", name: name.to_string(), detail });
            }
            None => return Err(Error::DatabaseMissing(name.to_string())),
        }
        let script = Script::of("GRANT CONNECT ON DATABASE {} TO {}", &[&name, &MIGRATOR]);
        let grant = ConnectGrant { server: self.clone(), id, name: name.clone(), is_revoked: false };
        self.run("grant the migrator CONNECT", &script).await?;
        match self.migrator_for(work, slot, &name, doing).await {
            Ok(session) => {
                let session = session.with_pid().await;
                Ok(MigratorSession { session, database: name, grant: Some(grant) })
            }
            Err(error) => {
                grant.revoke().await?;
                Err(error)
            }
        }
    }

    /// Closes the session and returns the result of its operation.
    pub(in crate::postgres) async fn close_unchecked<T>(
        &self,
        migrator: MigratorSession,
        result: Result<T>,
    ) -> Result<T> {
        match migrator.grant {
            // An open session would block the rename that follows.
            None => migrator.session.close_and_wait().await,
            Some(grant) => {
                migrator.session.close().await;
                // Under the tenant's lock, so as not to revoke between the grant for another session and its connection.
                let _one = self.lock_tenant(grant.id).await;
                grant.revoke().await?;
            }
        }
        result
    }

    /// Revokes CONNECT of the migrator where it was left granted: the operation ended with its process or its server, or it
    /// was granted by hand. Open sessions stay connected. A failure is logged and does not stop the others: the next drift
    /// check finds the grant again.
    pub async fn revoke_migrator_grants(&self, granted: &[(String, TenantId)]) {
        for (name, id) in granted {
            let revoke = async {
                // Under the tenant's lock, so as not to revoke between the grant for another session and its connection.
                let _one = self.lock_tenant(*id).await;
                self.revoke_connect(&Ident::new(name)?).await
            };
            if let Err(error) = revoke.await {
                warn!(server = self.config().name, database = name, %error, "could not revoke CONNECT of the migrator on a database");
            }
        }
    }

    async fn revoke_connect(&self, database: &Ident) -> Result<()> {
        let script = Script::of("REVOKE CONNECT ON DATABASE {} FROM {}", &[database, &MIGRATOR]);
        self.run("revoke CONNECT from the migrator", &script).await
    }
}

impl ConnectGrant {
    /// Revokes it. The caller holds the tenant's lock.
    async fn revoke(mut self) -> Result<()> {
        self.server.revoke_connect(&self.name).await?;
        self.is_revoked = true;
        Ok(())
    }
}

impl Drop for ConnectGrant {
    fn drop(&mut self) {
        // Outside a runtime, no task can wait for the server.
        let (false, Ok(runtime)) = (self.is_revoked, tokio::runtime::Handle::try_current()) else { return };
        let (server, granted) = (self.server.clone(), [(self.name.to_string(), self.id)]);
        runtime.spawn(async move { server.revoke_migrator_grants(&granted).await });
    }
}
