//! Registered tenants whose object vanished without its finalizer: their access is revoked, and their data is kept for a day
//! at least.

use tracing::{info, warn};

use crate::{
    api::tenant::OffboardingTrigger,
    controller::{
        context::{Context, SharedContext},
        tenant::object_match::{find_tenant, is_object_of},
    },
    domain::{
        observed::RegistryStatus,
        offboarding::{PurgeTerms, purge_after, vanished_grace},
        record::TenantRecord,
    },
    registry::{Tombstone, Update},
};

/// Whether a tenant that is not being deprovisioned has no object, in a namespace that is watched. An object that cannot be
/// decoded exists.
pub fn is_vanished(row: &TenantRecord, context: &Context) -> bool {
    let (namespace, name) = (&row.resource_namespace, &row.resource_name);
    row.status != RegistryStatus::Deprovisioning
        && context.stores.scopes.include(namespace)
        && context.stores.scopes.invalid_tenant(namespace, name).is_none()
        && !context.stores.scopes.has(namespace, name, &row.resource_uid, &row.slug)
}

/// Writes the tombstone, if the API server confirms that the object does not exist.
pub async fn write_tombstone(row: &TenantRecord, context: &SharedContext) {
    let key = (row.resource_namespace.clone(), row.resource_name.clone());
    let _lock = context.state.tenant_locks.take(key).await;
    // The store may be behind, and a list that fails proves nothing.
    match find_tenant(&context.client, &row.resource_namespace, &row.resource_name).await {
        Ok(Some(found)) if is_object_of(&found, &row.resource_uid, &row.slug) => return,
        Ok(_) => {}
        Err(error) => {
            warn!(%error, tenant = row.resource_name, "a Tenant seems to be deleted, and could not be read");
            return;
        }
    }
    let grace = context.with_plan_grace(&row.plan, vanished_grace);
    let at = context.clock.now();
    let tombstone = Tombstone {
        reason: Some("the Tenant vanished without its finalizer".into()),
        trigger: OffboardingTrigger::CustomerRequest,
        at,
        terms: PurgeTerms { purge_after: purge_after(at, grace), retain: row.retain, held: false },
        actor: "tenantry".into(),
    };
    let written = async {
        context.registry.begin_deprovisioning(row.id, &tombstone, None).await?;
        context.state.breaker.request_count();
        context.registry.set_access(row.id, None).await
    };
    match written.await {
        Ok(Update { record: row, .. }) => {
            warn!(
                namespace = row.resource_namespace,
                tenant = row.resource_name,
                purge_after = ?row.purge_after,
                "a Tenant vanished without its finalizer: its access is revoked, and its data is kept until then"
            );
            context.state.tombstones.record(&row, None);
        }
        Err(error) => info!(%error, "could not write the tombstone of a vanished Tenant; it is tried again"),
    }
}
