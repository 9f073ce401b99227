//! Reinstate: the tombstone is taken back; the tenant is suspended until its access is judged. First of all steps of an
//! undelete, so that no purge begins meanwhile. The registry refuses it once one has begun.

use super::{Run, StepError};
use crate::domain::{
    lifecycle::{Event, Guard, next},
    observed::RegistryStatus,
};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let (id, correlation) = (run.row()?.id, run.correlation()?);
    run.context.registry.reinstate(id, correlation).await?;
    let row = run.row_mut()?;
    let handed_out = row.activated_at.is_some();
    let guard = if handed_out { Guard::WasHandedOut } else { Guard::NeverHandedOut };
    let back = next(RegistryStatus::Deprovisioning, Event::CameBack, |asked| asked == guard);
    row.status = back.ok_or(StepError::Missing("a way back"))?;
    (row.status_reason, row.suspended_at) = (None, row.deprovisioned_at.filter(|_| handed_out));
    (row.deprovisioned_at, row.purge_after, row.purge_held) = (None, None, None);
    Ok(())
}
