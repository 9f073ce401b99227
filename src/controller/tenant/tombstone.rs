//! The reconcile of a tenant whose object does not exist any more, from the registry alone.

use tokio::time::timeout;
use tracing::warn;

use super::{
    converge::converge, load::REGISTRY_TIMEOUT, requeue::next_tombstone_reconcile, span,
    status_writer::StatusWriter,
};
use crate::{
    api::{tenant::Tenant, tenant_status::TenantStatus},
    controller::{
        context::SharedContext,
        state::{servers::Slot, tombstones::Entry},
    },
    domain::{
        attribution::{RecordedChanges, UnknownActor},
        observed::RegistryStatus,
        record::TenantRecord,
        status::Summary,
        subject::Subject,
        workflow::{ObjectState, TenantObject},
    },
    registry,
};

/// Works on a tombstone.
pub async fn reconcile_tombstone(entry: &Entry, slot: &mut Slot, context: &SharedContext) {
    let _lock = context.state.tenant_locks.take((entry.namespace.clone(), entry.name.clone())).await;
    // Read again: the tenant may have been restored, or closed, since.
    let record = timeout(REGISTRY_TIMEOUT, context.registry.by_id(entry.id)).await;
    let record = match record.unwrap_or(Err(registry::Error::NoAnswer)) {
        Ok(Some(record)) if record.resource_uid == entry.uid => record,
        Ok(_) => return,
        Err(error) => {
            warn!(%error, "could not read the registry; the tombstone waits");
            return;
        }
    };
    if record.status != RegistryStatus::Deprovisioning {
        context.state.tombstones.record(&record, None);
        return;
    }
    let tenant = recorded_tenant(&record);
    let subject = Subject {
        tenant: &tenant,
        declared: &tenant,
        seen_generation: None,
        account: None,
        object: TenantObject { state: ObjectState::Deleted, ..TenantObject::default() },
        previous: TenantStatus::default(),
        desired: None,
        record: Some(record),
        elsewhere: None,
        evaluation: None,
        changes: RecordedChanges::unknown(0, UnknownActor::Deletion),
    };
    let converged = converge(subject, slot, context, &mut StatusWriter::silent()).await;
    let outcome = converged.outcome();
    if let Some(record) = &converged.subject.record {
        context.state.tombstones.record(record, next_tombstone_reconcile(&outcome, context));
    }
    let summary = Summary::of(&outcome);
    span::describe(&converged.subject, &summary);
    if let Some((reason, message)) = summary.failure() {
        context.metrics.reconcile_failed(reason.as_str());
        warn!(reason = reason.as_str(), message, "the tombstone waits");
    }
}

/// The Tenant as the registry recorded it: enough to name its Secrets and its log lines.
fn recorded_tenant(record: &TenantRecord) -> Tenant {
    let mut tenant = Tenant::new(&record.resource_name, Default::default());
    tenant.metadata.namespace = Some(record.resource_namespace.clone());
    tenant.metadata.uid = Some(record.resource_uid.clone());
    (tenant.spec.slug, tenant.spec.display_name, tenant.spec.plan) =
        (record.slug.clone(), record.name.clone(), record.plan.clone());
    tenant
}
