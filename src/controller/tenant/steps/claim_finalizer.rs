//! ClaimFinalizer: the object stays until its deletion is recorded in the registry. The first step; nothing outside the
//! object is changed before it.

use crate::controller::tenant::{failure::StepError, step_context::StepContext};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    Ok(step.claim_finalizer().await?)
}
