//! ReleaseFinalizer: lets the object go. Last of all steps; the workflow ends before it, since a process that is killed
//! after it finds nothing that would lead it back here.

use super::{Run, StepError, set_finalizers};
use crate::{domain::observed::RegistryStatus, registry::Outcome};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    let open = run.visit.row.as_ref().is_some_and(|row| row.status != RegistryStatus::Deprovisioned);
    if let Some(workflow) = run.visit.workflow.as_ref().filter(|_| open && run.visit.failure().is_none()) {
        run.context.registry.finish_workflow(&workflow.record, Outcome::Succeeded).await?;
    }
    match set_finalizers(run, &[]).await {
        Ok(()) => Ok(()),
        // Gone already, or replaced by another of the same name: there is nothing left to release.
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
