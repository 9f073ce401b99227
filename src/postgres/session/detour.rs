//! The way in while tenants' locks keep everybody from a database, and no standing session is open: through another
//! database. A session sees and ends those of all databases.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::select_ok};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tracing::{info, warn};

use super::{
    blocked::{Blocked, while_unblocking},
    blockers::{as_asked, end_sessions},
    connect::{ConnectAs, MAINTENANCE_DATABASE, connect_by_url, connect_to},
    pool::{Sessions, lock},
};
use crate::postgres::{
    error::{Error, Result},
    identifier::ADMIN,
};

const DOING: &str = "connect to another database";
/// How many databases are tried at once, and for how long: one that is locked answers no sooner.
const AT_ONCE: usize = 3;
const LIMIT: Duration = Duration::from_secs(1);

impl Sessions {
    /// Sets the databases through which the operator may reach the server when it cannot connect to `postgres`.
    pub(in crate::postgres) fn set_detours(&self, databases: Vec<String>) {
        *lock(&self.detours) = databases.into();
    }

    /// A session in another database than the locked one, if one lets the operator in. It is not kept: its database could
    /// not be renamed or dropped.
    pub(super) async fn detour(&self, locked: &str) -> Result<Option<PgConnection>> {
        self.check_fence()?;
        let ways: Vec<String> = {
            let mut detours = lock(&self.detours);
            // Others come next time.
            let tried = AT_ONCE.min(detours.len());
            detours.rotate_left(tried);
            detours.iter().rev().take(tried).filter(|database| *database != locked).cloned().collect()
        };
        let attempts = ways.iter().map(|database| {
            let options = self.config.options(&ConnectAs::Admin(database));
            async move {
                match tokio::time::timeout(LIMIT, connect_to(&self.config, &options, DOING)).await {
                    Ok(opened) => opened,
                    Err(_) => Err(Error::Timeout { doing: DOING.into(), after: LIMIT }),
                }
            }
            .boxed()
        });
        if ways.is_empty() {
            return Ok(None);
        }
        // That none lets it in is found again by the next look.
        let Ok((mut session, _)) = select_ok(attempts).await else { return Ok(None) };
        self.check_identifier(&mut session).await?;
        Ok(Some(session))
    }
}

/// Does something that connects to the database of this URL. While that waits, tenants' sessions that keep everybody from the
/// database are ended, through the database `postgres` of the same server.
pub async fn while_let_in<T>(url: &str, application_name: &str, work: impl Future<Output = T>) -> T {
    let Ok(options) = url.parse::<PgConnectOptions>() else { return work.await };
    let Some(database) = options.get_database().map(str::to_owned) else { return work.await };
    let options =
        Arc::new(options.database(MAINTENANCE_DATABASE).application_name(application_name).options([
            ("role", ADMIN.as_str()),
            ("search_path", "pg_catalog,pg_temp"),
            ("lock_timeout", "1s"),
        ]));
    // It has a session of its own for every look.
    let blocked = Blocked { is_slow: true, ..Blocked::connections_to(&database) };
    let look = || {
        let (options, blocked) = (Arc::clone(&options), blocked.clone());
        async move {
            if let Err(error) = let_in(&options, &blocked).await {
                warn!(%error, "could not look for sessions that keep the operator from the registry");
            }
        }
        .boxed()
    };
    while_unblocking(&blocked, look, work).await
}

async fn let_in(options: &PgConnectOptions, blocked: &Blocked) -> Result<()> {
    let mut session = connect_by_url(options, DOING).await?;
    let blockers = end_sessions(&mut session, blocked).await?;
    for asked in as_asked(&blockers) {
        info!(tenant = %asked.tenant, "asked to end: {}", asked.what);
    }
    let _ = session.close().await;
    Ok(())
}
