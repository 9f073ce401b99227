//! ReleaseFinalizer: releases the object. The last step; the workflow ends before it, since after it nothing leads a
//! restarted process back to this tenant.

use crate::{
    controller::tenant::{failure::StepError, step_context::StepContext},
    domain::observed::RegistryStatus,
    registry::WorkflowOutcome,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let open = step.subject.record.as_ref().is_some_and(|row| row.status != RegistryStatus::Deprovisioned);
    if let Some(workflow) =
        step.progress.workflow.as_ref().filter(|_| open && step.progress.failure().is_none())
    {
        step.context.registry.finish_workflow(&workflow.record, WorkflowOutcome::Succeeded).await?;
    }
    Ok(step.release_finalizer().await?)
}
