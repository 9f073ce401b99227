//! Revoked access that was granted again, by the restore of a server or by hand. Of a tombstone, its reconcile revokes it
//! again; of a retained database, it is revoked at once. A database that should not exist is reported and never touched.

use std::collections::{BTreeSet, HashMap, HashSet};

use tracing::{info, warn};

use crate::{
    controller::{context::SharedContext, state::servers::ServerState, watch::requeue::requeue_tenant},
    domain::{
        access::AccessLevel, drift::is_reachable, identity::TenantId, observed::RegistryStatus,
        record::TenantRecord, tenant_facts::RecordedOids,
    },
    postgres::catalog::inventory::Inventory,
    registry::Error,
};

/// Records that a tombstone with access is not revoked, and requests its reconcile.
pub async fn tombstone(
    row: &TenantRecord,
    inventory: &Inventory,
    context: &SharedContext,
) -> Result<(), Error> {
    let facts = inventory.facts_recorded(&row.placement, RecordedOids::of(row));
    let reopened = row.status == RegistryStatus::Deprovisioning
        && row.access == Some(AccessLevel::Blocked)
        && is_reachable(&facts, RecordedOids::of(row));
    if !reopened {
        return Ok(());
    }
    let Some(doubted) = context.registry.doubt_revocation(row.id).await? else { return Ok(()) };
    warn!(
        namespace = row.resource_namespace,
        tenant = row.resource_name,
        "a tenant that is being deprovisioned has access again: it is revoked again"
    );
    context.state.snapshot.forget(&row.resource_uid);
    context.state.tombstones.record(&doubted, None);
    requeue_tenant(&row.resource_namespace, &row.resource_name, context);
    Ok(())
}

/// Revokes access to a retained database. Only the log reports it: the object does not exist any more.
pub fn retained(row: &TenantRecord, inventory: &Inventory, context: &SharedContext) {
    let recorded = RecordedOids::of(row);
    let facts = inventory.facts_recorded(&row.placement, RecordedOids::of(row));
    let ServerState::Ready(server) = context.state.servers.get(&row.placement.server) else { return };
    if !is_reachable(&facts, recorded) {
        return;
    }
    warn!(
        server = row.placement.server,
        database = row.placement.database,
        "a retained database has access again: it is revoked"
    );
    let row = row.clone();
    tokio::spawn(async move {
        let database = &row.placement.database;
        let revoked = async {
            server.restore_ownership(&row.placement, recorded).await?;
            server.set_access(&row.placement, AccessLevel::Blocked).await
        };
        match revoked.await {
            Ok(()) => info!(
                server = row.placement.server,
                database, "access to a retained database is revoked again"
            ),
            Err(error) => {
                warn!(server = row.placement.server, database, %error, "could not revoke access to a retained database")
            }
        }
    });
}

/// Databases by server and name.
pub type Databases = BTreeSet<(String, String)>;

/// Reports databases with the ownership comment of a tenant that is deprovisioned for good. `accounted` are the tenants that
/// may have a database, `reported` the databases that were reported before. The registry is asked only about tenants that
/// it did not return a moment ago.
pub async fn leftovers(
    inventories: &HashMap<&str, Inventory>,
    accounted: &HashSet<TenantId>,
    reported: &mut Databases,
    context: &SharedContext,
) -> Result<(), Error> {
    let mut found = Vec::new();
    for (server, inventory) in inventories {
        let owned = inventory.owned_databases();
        let unknown = owned.filter(|(_, id)| !accounted.contains(id));
        found.extend(unknown.map(|(database, id)| (id, ((*server).to_owned(), database.to_owned()))));
    }
    let ids: Vec<TenantId> = found.iter().map(|(id, _)| *id).collect();
    let closed = if ids.is_empty() { HashSet::new() } else { context.registry.dropped(&ids).await? };
    let now: Databases =
        found.into_iter().filter(|(id, _)| closed.contains(id)).map(|(_, place)| place).collect();
    for (server, database) in now.difference(reported) {
        warn!(
            server,
            database,
            "a database of a deprovisioned tenant exists (again): it is never touched; drop it by hand"
        );
    }
    context.metrics.leftover_databases(now.len());
    *reported = now;
    Ok(())
}
