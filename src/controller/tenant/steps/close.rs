//! Close: the registry row becomes `deprovisioned`, for ever, and the slug is free. The registry refuses it for a
//! tenant that is not deprovisioning, that came back, or whose time has not come by its clock. Others that wait for the slug are visited.

use kube::ResourceExt;

use super::{Run, StepError, passed};
use crate::domain::{access::AccessLevel, observed::RegistryStatus};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let (row, correlation, ahead) = (run.row()?, run.correlation()?, run.context.clock.ahead());
    let slug = row.slug.clone();
    passed(run.context.registry.close(row.id, &row.resource_uid, ahead, correlation).await?)?;
    let row = run.row_mut()?;
    (row.status, row.access) = (RegistryStatus::Deprovisioned, Some(AccessLevel::Blocked));
    run.context.slug_is_free(&slug, &run.tenant().uid().unwrap_or_default());
    Ok(())
}
