//! RecordRollback: records that everything which a failed first provisioning created is deleted. The last step of a
//! rollback. The tenant stays `failed` until something changes.

use crate::controller::tenant::{failure::StepError, step_context::StepContext};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let (id, correlation) = (step.row()?.id, step.correlation()?);
    step.replace_record(step.context.registry.rolled_back(id, correlation).await?.record);
    Ok(())
}
