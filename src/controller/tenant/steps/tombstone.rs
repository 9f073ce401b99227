//! Tombstone: the registry says `deprovisioning`, why, and from when on the database may be dropped. It is written
//! before anything is dropped, so that a run that is cut off afterwards is finished and not begun anew. While the
//! object exists, terms that changed are written here too; the clock is never started again.

use super::{Run, StepError};
use crate::{
    domain::{access::AccessLevel, observed::RegistryStatus, steps::Step},
    registry::Tombstone,
};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let departure = run.visit.departure(run.context);
    let now = run.context.clock.now();
    let row = run.row()?;
    let (id, mut began) = (row.id, row.deprovisioned_at.unwrap_or(now));
    let mut terms = departure.terms(began, row.activated_at.is_some(), row.terms());
    let correlation = run.correlation()?;
    if row.status == RegistryStatus::Deprovisioning {
        run.context.registry.change_terms(id, terms, correlation).await?;
    } else {
        let tombstone = Tombstone {
            reason: departure.reason,
            trigger: departure.trigger.as_str().to_owned(),
            at: began,
            terms,
            actor: "unknown".to_owned(),
        };
        let written = run.context.registry.begin_deprovisioning(id, &tombstone, Some(correlation)).await?;
        (began, terms.purge_after) = (written.at, written.purge_after);
        run.context.breaker.departed();
    }
    if !run.visit.has_done(Step::CutAccess) && run.row()?.access != Some(AccessLevel::Blocked) {
        // Whatever it was, it is to be cut, and nobody has proven yet that it is.
        run.context.registry.set_access(id, None).await?;
        run.row_mut()?.access = None;
    }
    let row = run.row_mut()?;
    row.status = RegistryStatus::Deprovisioning;
    (row.deprovisioned_at, row.purge_after) = (Some(began), Some(terms.purge_after));
    (row.retain, row.purge_held) = (terms.retain, terms.held.then(|| "Paused".to_owned()));
    row.rolling_back = false;
    Ok(())
}
