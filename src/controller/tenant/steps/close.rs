//! Close: the row becomes `deprovisioned` for good, and its slug and its former ones are free. The registry refuses it if
//! the tenant is not being deprovisioned, was reinstated, or if its grace period is not over by the registry's clock.
//! Tenants that wait for one of the slugs are requeued.

use kube::ResourceExt;

use crate::{
    controller::{
        tenant::{failure::StepError, purge_guard::passed, step_context::StepContext},
        watch::requeue::requeue_tenants_with_slug,
    },
    domain::usage::thresholds::WarnedLimits,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let (row, correlation, ahead) = (step.row()?, step.correlation()?, step.context.clock.ahead());
    let closing = step.context.registry.close(row.id, &row.resource_uid, ahead, correlation).await?;
    let closed = passed(closing.deadline)?;
    step.context.state.warned_limits.set(closed.id, &WarnedLimits::new());
    step.replace_record(closed);
    for slug in &closing.slugs {
        requeue_tenants_with_slug(slug, &step.tenant().uid().unwrap_or_default(), step.context);
    }
    Ok(())
}
