//! Activate: the registry says `active`. Last step of a provisioning; only after it does the status hand out the
//! binding.

use std::time::Duration;

use super::{Run, StepError};
use crate::domain::observed::RegistryStatus;

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let (id, correlation) = (run.row()?.id, run.correlation()?);
    run.context.registry.activate(id, correlation).await?;
    run.row_mut()?.status = RegistryStatus::Active;
    if let Some(created) = &run.tenant().metadata.creation_timestamp {
        let took = run.context.clock.now().duration_since(created.0);
        run.context.metrics.provisioned(Duration::try_from(took).unwrap_or_default());
    }
    Ok(())
}
