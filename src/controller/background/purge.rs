//! Reconciles tombstones from the registry alone, when the Tenant, its namespace and its plan do not exist any more.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    controller::{
        context::SharedContext,
        state::{servers::SlotRequest, tombstones::Entry},
        tenant::{object_match::is_object_of, tombstone::reconcile_tombstone},
    },
    domain::work::Work,
    telemetry::tenant_span,
    traces,
};

/// How often the clock is read.
const PERIOD: Duration = Duration::from_secs(1);

/// Reconciles the tombstones that are due until `shutdown`, and waits for the running reconciles then.
pub async fn run(context: SharedContext, shutdown: CancellationToken) {
    // Wait for the Tenant cache: a deletion may have been undone while no leader ran.
    if !context.stores.scopes.are_known(&shutdown).await {
        return;
    }
    let mut running = JoinSet::new();
    let mut ticks = tokio::time::interval(PERIOD);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        while running.try_join_next().is_some() {}
        let (all, access_open) = context.state.tombstones.count();
        context.metrics.tombstones(all, access_open);
        for entry in context.state.tombstones.due(context.clock.now(), context.state.breaker.state()) {
            if waits_for_correction(&entry, &context) {
                continue;
            }
            // A tenant whose object exists is reconciled by its controller. An object of its name and slug that is not
            // registered yet is the same tenant, applied again: nothing is purged before that is decided. An object of its
            // name alone is another tenant's; once the purge has begun, so is one that was applied again.
            if has_object(&entry, &context) && context.stores.scopes.requeue(&entry.namespace, &entry.name) {
                continue;
            }
            let Some(claim) = context.state.tombstones.claim(entry.id) else { continue };
            let (context, shutdown) = (context.clone(), shutdown.clone());
            running.spawn(async move {
                let _claim = claim;
                let mut slot = context.state.servers.slot(request(&entry, &context)).await;
                // A reconcile that only waited for its slot does not begin any more.
                if shutdown.is_cancelled() {
                    return;
                }
                let span = tenant_span(&entry.namespace, &entry.name);
                let work = reconcile_tombstone(&entry, &mut slot, &context).instrument(span);
                traces::reconcile("Tenant", &entry.namespace, &entry.name, work).await;
            });
        }
    }
    // Their sessions and claims end in order.
    while running.join_next().await.is_some() {}
}

/// The slot for a tombstone. Access that could not be revoked yet waits for no purge.
fn request<'a>(entry: &'a Entry, context: &SharedContext) -> SlotRequest<'a> {
    let work = if entry.access_open { Work::Restrictions } else { Work::Purges };
    // Access is open only because a revocation failed.
    let failed = entry.access_open;
    SlotRequest { server: &entry.server, work, failed, concurrency: context.config.concurrency }
}

/// Whether nothing is purged because the Tenant of this name cannot be decoded: it may be the same tenant, applied again.
/// Access is revoked in any case.
fn waits_for_correction(entry: &Entry, context: &SharedContext) -> bool {
    let uid = context.stores.scopes.invalid_tenant(&entry.namespace, &entry.name);
    uid.is_some_and(|uid| !entry.purging || uid == entry.uid) && !entry.access_open
}

/// Whether an object exists whose reconcile does this tombstone's work.
fn has_object(entry: &Entry, context: &SharedContext) -> bool {
    if entry.purging {
        let found = context.stores.scopes.tenant(&entry.namespace, &entry.name);
        return found.is_some_and(|found| is_object_of(&found, &entry.uid, ""));
    }
    context.stores.scopes.has(&entry.namespace, &entry.name, &entry.uid, &entry.slug)
}
