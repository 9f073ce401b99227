//! Tombstone: the registry says `deprovisioning`, why, and from when on the database may be dropped. It is written
//! before anything is dropped, so that a run that is cut off afterwards is finished and not begun anew.

use k8s_openapi::jiff::Timestamp;

use super::{Run, StepError};
use crate::{api::tenant::OffboardingTrigger, domain::observed::RegistryStatus};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let offboarding = run.tenant().spec.offboarding.as_ref();
    // A bare `kubectl delete` counts as the customer's request.
    let trigger = offboarding.and_then(|o| o.trigger).unwrap_or(OffboardingTrigger::CustomerRequest);
    let reason = offboarding.and_then(|o| o.reason.clone()).unwrap_or_default();
    let now = Timestamp::now();
    let (id, correlation) = (run.row()?.id, run.correlation()?);
    run.context
        .registry
        .begin_deprovisioning(id, &reason, trigger.as_str(), now, "unknown", correlation)
        .await?;
    let row = run.row_mut()?;
    (row.status, row.purge_after) = (RegistryStatus::Deprovisioning, Some(now));
    Ok(())
}
