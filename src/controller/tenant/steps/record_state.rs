//! RecordState: the registry says `trial`, `active` or `suspended`, and why. After EnforceAccess, so that nobody reads of a
//! suspension that PostgreSQL does not know yet.

use super::{Run, StepError};
use crate::{
    domain::{
        lifecycle::{Event, next},
        observed::RegistryStatus,
    },
    registry::NewState,
};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let (standing, row) = (run.standing()?.clone(), run.row()?);
    let (id, correlation, at) = (row.id, run.correlation()?, run.context.clock.now());
    let to = next(row.status, Event::Judged, |guard| standing.passes(guard))
        .ok_or(StepError::Missing("a tenant in use"))?;
    let why = standing.why();
    let actor = if standing.is_automatic() { "tenantry" } else { "unknown" };
    let new = NewState { to, why: why.as_deref(), access: standing.access, actor, at };
    run.context.registry.record_state(id, &new, correlation).await?;
    let row = run.row_mut()?;
    row.suspended_at = match to {
        RegistryStatus::Suspended => row.suspended_at.or(Some(at)),
        _ => None,
    };
    (row.status, row.status_reason, row.status_updated_by) = (to, why, actor.to_owned());
    Ok(())
}
