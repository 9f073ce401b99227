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
    match step.set_finalizers(&[]).await {
        Ok(()) => Ok(()),
        // The object is deleted, or replaced by another of the same name: there is nothing left to release.
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
