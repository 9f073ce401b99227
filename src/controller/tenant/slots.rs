//! Which slot a reconcile of a Tenant waits for. A restriction of access has slots of its own; a Tenant whose access must be
//! restricted while it already waits for another slot does not wait any longer.

use std::{pin::pin, sync::Arc};

use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tracing::warn;

use super::{evaluate::access, load::read_record};
use crate::{
    api::{tenant::Tenant, tenant_status::WorkflowKind},
    controller::{
        context::SharedContext,
        state::servers::{Slot, SlotRequest},
        tenant_account::in_force::in_force,
    },
    domain::{
        spec::DEFAULT_SERVER,
        subject::Subject,
        work::{Work, must_narrow},
        workflow::step::Step,
    },
};

/// Waits for a slot of the Tenant's server. Returns it with the newest version of the Tenant.
pub async fn wait_for_slot(tenant: Arc<Tenant>, context: &SharedContext) -> (Slot, Arc<Tenant>) {
    let found = slot_of(tenant, context).await;
    context.state.waiting.begun(&ObjectRef::from_obj(found.1.as_ref()));
    found
}

async fn slot_of(tenant: Arc<Tenant>, context: &SharedContext) -> (Slot, Arc<Tenant>) {
    let servers = &context.state.servers;
    let work = apparent_work(&tenant, context);
    if let Some(slot) = servers.free_slot(request(&tenant, work, context)) {
        return (slot, tenant);
    }
    let waiter = context.state.waiting.begin(ObjectRef::from_obj(tenant.as_ref()));
    let mut newest = newest_version(&tenant, context);
    let mut work = work_of(&newest, context).await;
    loop {
        let mut queue = pin!(servers.slot(request(&tenant, work, context)));
        let queued = work;
        // Its place in the queue is kept as long as its class is the same.
        while work == queued {
            tokio::select! {
                slot = &mut queue => return (slot, newest_version(&tenant, context)),
                () = waiter.requested() => {}
            }
            newest = newest_version(&tenant, context);
            work = work_of(&newest, context).await;
        }
    }
}

/// How many of these planned steps may run now, in this slot or in one of another class that is free. None of them may
/// only if the reconcile has to end: the next one waits for the slot, without the tenant's lock.
pub async fn permitted(
    slot: &mut Slot,
    steps: &[Step],
    is_first_round: bool,
    subject: &Subject<'_>,
    context: &SharedContext,
) -> usize {
    let included = slot.work.included(steps);
    if included == steps.len() {
        return included;
    }
    let work = if subject.is_deprovisioning() { Work::Purges } else { Work::Tenants };
    let mut request = request(subject.tenant, work, context);
    if let Some(record) = &subject.record {
        request.server = &record.placement.server;
    }
    match context.state.servers.free_slot(request) {
        Some(free) => *slot = free,
        // Nothing can be restricted yet, and the next reconcile would find the same.
        None if included == 0 && is_first_round => {
            // Others need the old slot meanwhile.
            *slot = Slot::none(work);
            *slot = context.state.servers.slot(request).await;
        }
        None => return included,
    }
    steps.len()
}

fn request<'a>(tenant: &'a Tenant, work: Work, context: &SharedContext) -> SlotRequest<'a> {
    let server = tenant.spec.server.as_deref().unwrap_or(DEFAULT_SERVER);
    let workflow = tenant.status.as_ref().and_then(|status| status.workflow.as_ref());
    let failed = workflow.filter(|workflow| workflow.next_attempt_at.is_some()).is_some_and(|workflow| {
        // A restriction does not count as failed because a migration did.
        work != Work::Restrictions
            || matches!(workflow.kind, WorkflowKind::Suspend | WorkflowKind::Deprovision)
    });
    SlotRequest { server, work, failed, concurrency: context.config.concurrency }
}

/// The newest version of a Tenant that the watch has delivered.
fn newest_version(tenant: &Arc<Tenant>, context: &SharedContext) -> Arc<Tenant> {
    let stored = context.stores.scopes.tenant(&tenant.namespace().unwrap_or_default(), &tenant.name_any());
    stored.unwrap_or_else(|| Arc::clone(tenant))
}

/// The class of a Tenant's reconcile, by the Tenant, its status and what the drift check found.
fn apparent_work(tenant: &Tenant, context: &SharedContext) -> Work {
    let work = Work::of(tenant, &context.state.latest_status.newest(tenant));
    let regained = context.state.waiting.has_regained_access(&ObjectRef::from_obj(tenant));
    if work == Work::Tenants && regained { Work::Restrictions } else { work }
}

/// The class of a Tenant's reconcile, by the Tenant and the registry's row.
async fn work_of(tenant: &Tenant, context: &SharedContext) -> Work {
    let work = apparent_work(tenant, context);
    if work != Work::Tenants {
        return work;
    }
    match read_record(tenant, context).await {
        Ok(record) => {
            let counted = in_force(tenant, record.as_ref(), context);
            let wanted = access(&counted, record.as_ref(), None, context).access;
            let narrows = record.is_some_and(|record| must_narrow(&record, wanted));
            if narrows { Work::Restrictions } else { Work::Tenants }
        }
        Err(error) => {
            warn!(%error, "could not read the registry; the tenant waits for a slot");
            Work::Tenants
        }
    }
}
