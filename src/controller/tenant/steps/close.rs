//! Close: the registry row becomes `deprovisioned`, for ever, and the slug is free. The registry refuses it for a
//! tenant that is not deprovisioning. Others that wait for the slug are visited.

use kube::ResourceExt;

use super::{Run, StepError};
use crate::domain::observed::RegistryStatus;

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let (id, slug, correlation) = (run.row()?.id, run.row()?.slug.clone(), run.correlation()?);
    run.context.registry.close(id, correlation).await?;
    run.row_mut()?.status = RegistryStatus::Deprovisioned;
    run.context.slug_is_free(&slug, &run.tenant().uid().unwrap_or_default());
    Ok(())
}
