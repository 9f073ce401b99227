//! `tenantry_migrator` in a tenant's database: it may connect while a database is built, and later only for as long
//! as there is something to do there.

use tracing::warn;

use crate::domain::identity::TenantId;

use super::{
    error::{Error, Result},
    identifier::{Ident, MIGRATOR, Script},
    migrate,
    modules::{ModuleSet, ModuleVersion},
    server::Server,
    sessions::Session,
};

/// A session of the migrator in a tenant's database.
pub(super) struct Visit {
    pub(super) session: Session,
    /// The published database that was opened to the migrator for this visit.
    opened: Option<Opened>,
}

/// A published database that is open to the migrator. Dropped without having been shut, by an operation that was cut, it
/// is shut in the background.
struct Opened {
    server: Server,
    id: TenantId,
    name: Ident,
    is_shut: bool,
}

impl Server {
    /// Brings a tenant's database to the target versions, and returns those in force then.
    pub async fn migrate(
        &self,
        id: TenantId,
        database: &str,
        modules: &ModuleSet,
    ) -> Result<Vec<ModuleVersion>> {
        let mut visit = self.enter(id, database, "connect to migrate").await?;
        let result = migrate::apply(&mut visit.session, modules).await;
        self.leave(visit, result).await
    }

    /// Lets the migrator into the tenant's database, the one being built or the published one.
    pub(super) async fn enter(&self, id: TenantId, database: &str, doing: &'static str) -> Result<Visit> {
        let name = Ident::new(database)?;
        let _one = self.serialise(id).await;
        let found = self.observe(id, database, "").await?;
        if found.building.is_some() {
            let session = self.migrator(&Ident::building(id), doing).await?;
            return Ok(Visit { session: known(session).await, opened: None });
        }
        match found.database {
            Some(facts) if facts.mark.is_ours() => {}
            Some(facts) => {
                let detail = facts.mark.describe();
                return Err(Error::Conflict { kind: "database", name: database.to_owned(), detail });
            }
            None => return Err(Error::DatabaseMissing(database.to_owned())),
        }
        let open = Script::of("GRANT CONNECT ON DATABASE {} TO {}", &[&name, &MIGRATOR]);
        let opened = Opened { server: self.clone(), id, name: name.clone(), is_shut: false };
        self.run("open the database to the migrator", &open).await?;
        match self.migrator(&name, doing).await {
            Ok(session) => Ok(Visit { session: known(session).await, opened: Some(opened) }),
            Err(error) => {
                opened.shut().await?;
                Err(error)
            }
        }
    }

    /// Ends a visit, however it went.
    pub(super) async fn leave<T>(&self, visit: Visit, result: Result<T>) -> Result<T> {
        match visit.opened {
            // The rename that follows would stumble over a session that is still there.
            None => visit.session.close_and_wait().await,
            Some(opened) => {
                visit.session.close().await;
                // Not between another visit's being let in and its connecting.
                let _one = self.serialise(opened.id).await;
                opened.shut().await?;
            }
        }
        result
    }

    /// Shuts databases that are open to the migrator: a visit there ended with its process or with its server, or somebody
    /// has opened them. A visit that is there stays connected. One that cannot be shut is logged, and keeps nothing else from
    /// being done: the next search for drift finds it.
    pub async fn shut_left_open(&self, open: &[(String, TenantId)]) {
        for (name, id) in open {
            let shut = async {
                // Not between a visit's being let in and its connecting.
                let _one = self.serialise(*id).await;
                self.shut(&Ident::new(name)?).await
            };
            if let Err(error) = shut.await {
                warn!(server = self.config().name, database = name, %error, "a database is left open to the migrator");
            }
        }
    }

    async fn shut(&self, database: &Ident) -> Result<()> {
        let shut = Script::of("REVOKE CONNECT ON DATABASE {} FROM {}", &[database, &MIGRATOR]);
        self.run("close the database to the migrator", &shut).await
    }
}

impl Opened {
    /// Shuts it. For who has the tenant's turn.
    async fn shut(mut self) -> Result<()> {
        self.server.shut(&self.name).await?;
        self.is_shut = true;
        Ok(())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // Outside a runtime there is nobody to wait for the server.
        let (false, Ok(runtime)) = (self.is_shut, tokio::runtime::Handle::try_current()) else { return };
        let (server, open) = (self.server.clone(), [(self.name.to_string(), self.id)]);
        runtime.spawn(async move { server.shut_left_open(&open).await });
    }
}

/// A session counts until its process is gone, so its process must be known.
async fn known(mut session: Session) -> Session {
    session.pid = migrate::pid(&mut session).await;
    session
}
