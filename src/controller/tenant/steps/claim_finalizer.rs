//! ClaimFinalizer: the object stays until the registry knows that it is going. First of all steps; there is no effect
//! outside the object before it.

use super::{Run, StepError, set_finalizers};
use crate::api::FINALIZER;

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    Ok(set_finalizers(run, &[FINALIZER]).await?)
}
