//! Reinstate: the tombstone is taken back; the registry says again what it said before. First of all steps of an
//! undelete, so that no purge begins meanwhile. The registry refuses it once one has begun.

use super::{Run, StepError};
use crate::domain::observed::RegistryStatus;

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let (id, correlation) = (run.row()?.id, run.correlation()?);
    run.context.registry.reinstate(id, correlation).await?;
    let row = run.row_mut()?;
    row.status = match row.activated_at {
        Some(_) => RegistryStatus::Active,
        None => RegistryStatus::Provisioning,
    };
    (row.deprovisioned_at, row.purge_after, row.purge_held) = (None, None, None);
    Ok(())
}
