//! Registered tenants whose object vanished without its finalizer: their access is revoked, and their data is kept for a day
//! at least. If many vanished, or all, the operator may run where its Tenants are not: the breaker of mass deletions opens,
//! and they keep their access until that is acknowledged.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use tokio::{sync::watch, time::timeout};
use tracing::{info, warn};

use crate::{
    api::tenant::OffboardingTrigger,
    controller::{
        breaker,
        context::{Context, SharedContext},
        tenant::object_match::{find_tenant, is_object_of},
    },
    domain::{
        breaker::{BreakerState, Vanished, WINDOW},
        identity::TenantId,
        observed::RegistryStatus,
        offboarding::{PurgeTerms, purge_after, vanished_grace},
        record::TenantRecord,
    },
    registry::{self, Tombstone, Update},
};

/// Who deprovisions a tenant that vanished: no user asked for it.
const ACTOR: &str = "tenantry";

/// How long all of them may take at once. The rest is handled after the next check.
const TIMEOUT: Duration = Duration::from_secs(300);

/// How many tenants an opening of the breaker names.
const NAMED: usize = 10;

/// The tenants that are not being deprovisioned and have no object, in a namespace that is watched. One whose id another
/// Tenant in use has in its status is not among them: the registry may be older than the move to that one.
pub fn vanished<'a>(rows: &'a [Arc<TenantRecord>], context: &Context) -> Vec<&'a TenantRecord> {
    let mut found: Vec<_> =
        rows.iter().map(Arc::as_ref).filter(|row| is_without_object(row, context)).collect();
    if !found.is_empty() {
        let claims = context.stores.scopes.claims();
        found.retain(|row| {
            claims.in_use_elsewhere(row.id, &row.resource_namespace, &row.resource_name).is_none()
        });
    }
    found
}

/// An object that cannot be decoded exists.
fn is_without_object(row: &TenantRecord, context: &Context) -> bool {
    let (namespace, name) = (&row.resource_namespace, &row.resource_name);
    row.status != RegistryStatus::Deprovisioning
        && context.stores.scopes.include(namespace)
        && context.stores.scopes.invalid_tenant(namespace, name).is_none()
        && !context.stores.scopes.has(namespace, name, &row.resource_uid, &row.slug)
}

/// Handles the tenants that vanished, whenever the rows that are not closed were read; until they are read no more.
pub async fn run(mut registered: watch::Receiver<Vec<Arc<TenantRecord>>>, context: &SharedContext) {
    while registered.changed().await.is_ok() {
        let rows = registered.borrow_and_update().clone();
        match timeout(TIMEOUT, settle(&rows, context)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "could not handle Tenants that vanished"),
            Err(_) => warn!("could not handle Tenants that vanished: no answer in time"),
        }
    }
}

/// Writes the tombstones of the tenants that vanished, unless the breaker holds them. `rows` are all that are not closed.
async fn settle(rows: &[Arc<TenantRecord>], context: &SharedContext) -> Result<(), registry::Error> {
    let has_object = |row: &TenantRecord| {
        context.stores.scopes.has(&row.resource_namespace, &row.resource_name, &row.resource_uid, &row.slug)
    };
    let found: Vec<TenantId> =
        rows.iter().filter(|row| row.vanished.is_some() && has_object(row)).map(|row| row.id).collect();
    if !found.is_empty() {
        context.registry.tenants_found(&found).await?;
    }
    let vanished = vanished(rows, context);
    let held = !vanished.is_empty() && are_held(&vanished, rows, context).await?;
    context.metrics.vanished_tenants(if held { vanished.len() } else { 0 });
    if !held {
        for row in vanished {
            write_tombstone(row, context).await;
        }
    }
    Ok(())
}

/// Whether these tenants keep their access: the breaker is open, or opens because they are too many.
async fn are_held(
    vanished: &[&TenantRecord],
    rows: &[Arc<TenantRecord>],
    context: &SharedContext,
) -> Result<bool, registry::Error> {
    let Some(thresholds) = context.state.breaker.thresholds() else { return Ok(false) };
    match context.state.breaker.state() {
        BreakerState::Disabled => return Ok(false),
        BreakerState::Open | BreakerState::Unknown => return Ok(true),
        BreakerState::Closed => {}
    }
    let new: Vec<&TenantRecord> =
        vanished.iter().copied().filter(|row| row.vanished != Some(Vanished::Acknowledged)).collect();
    let registered = rows.iter().filter(|row| {
        row.status != RegistryStatus::Deprovisioning && context.stores.scopes.include(&row.resource_namespace)
    });
    let now = context.clock.now();
    let recent = rows.iter().filter(|row| vanished_recently(row, now)).count();
    let registered = registered.count();
    if thresholds.tolerate_vanished(new.len(), recent, registered) {
        return Ok(false);
    }
    let named: Vec<&str> = new.iter().take(NAMED).map(|row| row.slug.as_str()).collect();
    let more = match new.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let detail = format!(
        "{} of {registered} registered tenants have no Tenant here, and were not deleted: {}{more}; they keep their access: apply their Tenants again, or correct the cluster or registry of this operator; once this is acknowledged, those without a Tenant are deprovisioned",
        new.len(),
        named.join(", ")
    );
    let ids: Vec<TenantId> = new.iter().map(|row| row.id).collect();
    let opening = context.registry.tenants_vanished(&ids, &detail, now).await?;
    breaker::set(opening, context);
    Ok(true)
}

/// Whether a tombstone was written a short time ago because the object had vanished.
fn vanished_recently(row: &TenantRecord, now: Timestamp) -> bool {
    let is_recent = |began: Timestamp| now.duration_since(began) < WINDOW;
    row.status == RegistryStatus::Deprovisioning
        && row.status_updated_by == ACTOR
        && row.deprovisioned_at.is_some_and(is_recent)
}

/// Writes the tombstone, if the API server confirms that the object does not exist.
async fn write_tombstone(row: &TenantRecord, context: &SharedContext) {
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
        actor: ACTOR.into(),
        deletion: None,
        generation: None,
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
