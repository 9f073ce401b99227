//! ReleaseFinalizer: lets the object go. Last of all steps.

use super::{Run, StepError, apply_finalizers};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    match apply_finalizers(run, &[]).await {
        Ok(()) => Ok(()),
        // Gone already, or replaced by another of the same name: there is nothing left to release.
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
