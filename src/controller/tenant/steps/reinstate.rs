//! Reinstate: removes the tombstone; the tenant is suspended until its access is evaluated. The first step of an undelete, so
//! that no purge begins meanwhile. The registry refuses it once the purge has begun.

use crate::controller::{
    tenant::{failure::StepError, step_context::StepContext},
    watch::requeue::requeue_tenants_with_slug,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let (id, correlation) = (step.row()?.id, step.correlation()?);
    // The same Tenant applied again, or its state set back.
    let by = step.subject.changes.last(&["state"]).to_string();
    step.replace_record(step.context.registry.reinstate(id, &by, correlation).await?.record);
    // Tenants that want the slug show that it is in use again.
    requeue_tenants_with_slug(&step.row()?.slug, &step.row()?.resource_uid, step.context);
    Ok(())
}
