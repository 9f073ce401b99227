//! Revoked access that was granted again, by the restore of a server or by hand. Of a tombstone, its reconcile revokes it
//! again; of a retained database, it is revoked at once.

use tracing::{info, warn};

use crate::{
    controller::{context::SharedContext, state::servers::ServerState, watch::requeue::requeue_tenant},
    domain::{
        access::AccessLevel, drift::is_reachable, observed::RegistryStatus, record::TenantRecord,
        tenant_facts::RecordedOids,
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
