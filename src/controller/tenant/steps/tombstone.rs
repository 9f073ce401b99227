//! Tombstone: the registry says `deprovisioning`, why, and from when on the database may be dropped. It is written
//! before anything is dropped, so that a run that is cut off afterwards is finished and not begun anew.

use k8s_openapi::jiff::Timestamp;

use super::{Run, StepError};
use crate::{
    api::tenant::{DeletionPolicy, OffboardingTrigger},
    domain::{desired::deletion_policy, observed::RegistryStatus},
    registry::Tombstone,
};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let offboarding = run.tenant().spec.offboarding.as_ref();
    // A bare `kubectl delete` counts as the customer's request.
    let trigger = offboarding.and_then(|o| o.trigger).unwrap_or(OffboardingTrigger::CustomerRequest);
    let now = Timestamp::now();
    let (id, correlation) = (run.row()?.id, run.correlation()?);
    let tombstone = Tombstone {
        reason: offboarding.and_then(|o| o.reason.clone()),
        trigger: trigger.as_str().to_owned(),
        at: now,
        purge_after: now,
        retain: deletion_policy(run.tenant()) == DeletionPolicy::Retain,
        actor: "unknown".to_owned(),
    };
    run.context.registry.begin_deprovisioning(id, &tombstone, correlation).await?;
    let row = run.row_mut()?;
    (row.status, row.deprovisioned_at, row.purge_after) =
        (RegistryStatus::Deprovisioning, Some(now), Some(now));
    Ok(())
}
