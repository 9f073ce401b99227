//! Activate: the registry says `active`. Last step of a provisioning; only after it does the status hand out the
//! binding.

use super::{Run, StepError};
use crate::domain::observed::RegistryStatus;

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let (id, correlation) = (run.row()?.id, run.correlation()?);
    run.context.registry.activate(id, correlation).await?;
    run.row_mut()?.status = RegistryStatus::Active;
    run.context.metrics.provisioned(run.tenant());
    Ok(())
}
