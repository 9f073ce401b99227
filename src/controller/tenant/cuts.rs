//! Cuts that no longer hold: after a server was restored, or by hand, a customer who is going or gone can be let in
//! again. What is a tombstone's is cut anew by its own visit, what is retained at once; a database that should be gone
//! is told of and never touched.

use std::collections::{BTreeSet, HashMap, HashSet};

use tracing::{info, warn};

use super::observe::known;
use crate::{
    controller::{context::SharedContext, servers::Standing},
    domain::{access::AccessLevel, identity::TenantId, observed::RegistryStatus},
    postgres::{drift::Known, inventory::Inventory},
    registry::{Error, TenantRow},
};

/// Of a tombstone that lets somebody in it is no longer said that it is cut, and it is visited.
pub async fn tombstone(row: &TenantRow, inventory: &Inventory, context: &SharedContext) -> Result<(), Error> {
    let facts = inventory.facts(row.id, &row.database_name, &row.login_name);
    let reopened = row.status == RegistryStatus::Deprovisioning
        && row.access == Some(AccessLevel::Blocked)
        && facts.lets_in(known(row));
    if !reopened || !context.registry.doubt_cut(row.id).await? {
        return Ok(());
    }
    warn!(
        namespace = row.resource_namespace,
        tenant = row.resource_name,
        "a tenant that goes away can be used again: it is cut anew"
    );
    context.bulk.forget(&row.resource_uid);
    context.tombstones.see(&TenantRow { access: None, ..row.clone() }, None);
    context.wake(&row.resource_namespace, &row.resource_name);
    Ok(())
}

/// The login of a database that is kept for good stays cut off. There is nobody to tell: the object is gone.
pub fn retained(row: &TenantRow, inventory: &Inventory, context: &SharedContext) {
    let known = known(row);
    let facts = inventory.facts(row.id, &row.database_name, &row.login_name);
    let Standing::Ready(server) = context.servers.get(&row.server) else { return };
    if !facts.lets_in(known) {
        return;
    }
    warn!(
        server = row.server,
        database = row.database_name,
        "a retained database can be used: it is cut off"
    );
    let row = row.clone();
    tokio::spawn(async move {
        let (id, database, login) = (row.id, &row.database_name, &row.login_name);
        let cut = async {
            if known != Known::default() {
                server.restore_marks(id, database, login, known).await?;
            }
            server.set_access(id, database, login, AccessLevel::Blocked).await
        };
        match cut.await {
            Ok(()) => info!(server = row.server, database, "a retained database is cut off again"),
            Err(error) => warn!(server = row.server, database, %error, "a retained database is not cut off"),
        }
    });
}

/// Databases by server and name.
pub type Databases = BTreeSet<(String, String)>;

/// Tells of databases with the mark of a tenant that is gone for good. `accounted` are those that may have one, `told`
/// what was told of already. The registry is asked only about marks that it did not account for a moment ago.
pub async fn leftovers(
    inventories: &HashMap<&str, Inventory>,
    accounted: &HashSet<TenantId>,
    told: &mut Databases,
    context: &SharedContext,
) -> Result<(), Error> {
    let mut found = Vec::new();
    for (server, inventory) in inventories {
        let marked = inventory.marked_databases();
        let strange = marked.filter(|(_, id)| !accounted.contains(id));
        found.extend(strange.map(|(database, id)| (id, ((*server).to_owned(), database.to_owned()))));
    }
    let ids: Vec<TenantId> = found.iter().map(|(id, _)| *id).collect();
    let gone = if ids.is_empty() { HashSet::new() } else { context.registry.gone(&ids).await? };
    let now: Databases =
        found.into_iter().filter(|(id, _)| gone.contains(id)).map(|(_, place)| place).collect();
    for (server, database) in now.difference(told) {
        warn!(
            server,
            database,
            "a database of a tenant that is gone is there (again): nothing touches it; drop it by hand"
        );
    }
    context.metrics.leftover_databases(now.len());
    *told = now;
    Ok(())
}
