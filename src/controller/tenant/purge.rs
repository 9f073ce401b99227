//! Drives tombstones to their end from the registry alone: when the Tenant, its namespace and its plan are gone.

use std::time::Duration;

use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, warn};

use super::{
    conditions::Summary,
    observe::LIMIT,
    presence::stands_for,
    reconcile::{next_look, work},
    report::StatusWriter,
    tombstones::Entry,
    visit::Visit,
};
use crate::{
    api::{tenant::Tenant, tenant_status::TenantStatus},
    controller::{context::SharedContext, servers::Work},
    domain::{
        observed::RegistryStatus,
        plan::{ObjectFacts, Presence},
    },
    registry::{self, TenantRow},
    telemetry::tenant_span,
};

/// How often the clock is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// How many tombstones of one server are worked on at once. A purge is slow and in no hurry, and a server that hangs
/// holds up its own and no others.
const CONCURRENCY: u16 = 4;

/// Looks at the clock until `shutdown`, and has those tombstones visited whose time has come.
pub async fn run(context: SharedContext, shutdown: CancellationToken) {
    // Whoever undid a deletion while nobody led is heard first.
    if !context.scopes.are_known(&shutdown).await {
        return;
    }
    let mut visits = JoinSet::new();
    let mut ticks = tokio::time::interval(PERIOD);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        while visits.try_join_next().is_some() {}
        let (all, uncut) = context.tombstones.count();
        context.metrics.tombstones(all, uncut);
        for entry in context.tombstones.due(context.clock.now(), context.breaker.purges()) {
            // Its own controller looks after a tenant whose object is there. One of its name and slug that is not
            // registered yet is the same tenant coming back: nothing is purged before that is decided. One of its
            // name alone is another's; and once the purge has begun, so is one that was applied again.
            if is_attended(&entry, &context) && context.scopes.visit(&entry.namespace, &entry.name) {
                continue;
            }
            let Some(busy) = context.tombstones.take(entry.id) else { continue };
            let (context, shutdown) = (context.clone(), shutdown.clone());
            visits.spawn(async move {
                let _busy = busy;
                let _place = context.servers.place(&entry.server, Work::Tombstones, CONCURRENCY).await;
                // What only waited for its place does not begin any more.
                if shutdown.is_cancelled() {
                    return;
                }
                let span = tenant_span(&entry.namespace, &entry.name);
                visit_gone(&entry, &context).instrument(span).await;
            });
        }
    }
    // What runs is waited for: its session and its claim end in order.
    while visits.join_next().await.is_some() {}
}

/// Whether there is an object whose visits do this tombstone's work.
fn is_attended(entry: &Entry, context: &SharedContext) -> bool {
    if entry.purging {
        let found = context.scopes.tenant(&entry.namespace, &entry.name);
        return found.is_some_and(|found| stands_for(&found, &entry.uid, ""));
    }
    context.scopes.has(&entry.namespace, &entry.name, &entry.uid, &entry.slug)
}

/// Visits a tenant whose object is gone.
async fn visit_gone(entry: &Entry, context: &SharedContext) {
    let _turn = context.turns.take((entry.namespace.clone(), entry.name.clone())).await;
    // Read anew: it may have come back, or be gone, since.
    let row = timeout(LIMIT, context.registry.by_id(entry.id)).await;
    let row = match row.unwrap_or(Err(registry::Error::NoAnswer)) {
        Ok(Some(row)) if row.resource_uid == entry.uid => row,
        Ok(_) => return,
        Err(error) => {
            warn!(%error, "a tombstone waits: the registry cannot be asked");
            return;
        }
    };
    if row.status != RegistryStatus::Deprovisioning {
        context.tombstones.see(&row, None);
        return;
    }
    let tenant = remembered(&row);
    let mut visit = Visit::new(&tenant, TenantStatus::default(), Presence::Gone);
    visit.row = Some(row);
    let object = ObjectFacts { has_finalizer: false, presence: Presence::Gone, ..ObjectFacts::default() };
    // There is no object to write a status to.
    let mut status = StatusWriter::silent();
    work(&mut visit, object, context, &mut status).await;
    if let Some(row) = &visit.row {
        context.tombstones.see(row, next_look(&visit, context));
    }
    if let Summary::Waiting { reason, message } | Summary::Stuck { reason, message } = Summary::of(&visit) {
        context.metrics.reconcile_failed(reason);
        warn!(reason, message, "a tombstone waits");
    }
}

/// The Tenant as the registry remembers it: enough to name its Secrets and its log lines.
fn remembered(row: &TenantRow) -> Tenant {
    let mut tenant = Tenant::new(&row.resource_name, Default::default());
    tenant.metadata.namespace = Some(row.resource_namespace.clone());
    tenant.metadata.uid = Some(row.resource_uid.clone());
    (tenant.spec.slug, tenant.spec.display_name, tenant.spec.plan) =
        (row.slug.clone(), row.name.clone(), row.plan.clone());
    tenant
}
