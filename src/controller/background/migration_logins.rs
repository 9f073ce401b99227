//! Migration logins that were left: their run ended with its process, or an administrator passed one on. They are taken away
//! as soon as the drift check sees them.

use std::{collections::HashSet, time::Duration};

use tokio::time::timeout;
use tracing::{info, warn};

use crate::{
    controller::{context::Context, state::servers::ServerState},
    domain::migration_login::stale_logins,
    postgres::catalog::inventory::Inventory,
};

/// How long one login may take. The next check tries again.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Takes the stale migration logins of a server away.
pub fn close_stale(server: &str, inventory: &Inventory, context: &Context) {
    // No run outlives the operation that opened its login.
    let found = inventory.migration_logins();
    let stale: Vec<String> =
        stale_logins(&found, &HashSet::new()).into_iter().map(|login| login.name.clone()).collect();
    let ServerState::Ready(handle) = context.state.servers.get(server) else { return };
    if stale.is_empty() {
        return;
    }
    let server = server.to_owned();
    // Beside the check: the sessions of a login take some time to end.
    tokio::spawn(async move {
        for login in stale {
            match timeout(LOGIN_TIMEOUT, handle.close_migration_login(&login)).await {
                Ok(Ok(reassigned)) => {
                    info!(server, login, ?reassigned, "took a migration login away that was left");
                }
                Ok(Err(error)) => warn!(server, login, %error, "could not take a migration login away"),
                Err(_) => warn!(server, login, "could not take a migration login away: no answer in time"),
            }
        }
    });
}
