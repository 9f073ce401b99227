//! The guard before anything of a tenant is dropped.

use kube::ResourceExt;

use super::{
    failure::StepError,
    object_match::{find_tenant, is_still_deprovisioning},
    step_context::StepContext,
};
use crate::{
    controller::breaker::{self, Permission},
    domain::{observed::RegistryStatus, record::TenantRecord},
    registry::Deadline,
};

/// Runs before the first deletion: confirms with the API server that the Tenant is still being deprovisioned, then records
/// that the purge begins. A Tenant that is applied again before that is reinstated, and not after it. A purge that has begun
/// continues; a rollback destroys nothing of value. With `Retain`, only the registry is asked.
pub async fn pass_deadline(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let row = step.row()?;
    if row.status != RegistryStatus::Deprovisioning || row.purge_started_at.is_some() {
        return Ok(());
    }
    let (context, tenant) = (step.context, step.tenant());
    let found = find_tenant(&context.client, &step.namespace(), &tenant.name_any()).await?;
    if !is_still_deprovisioning(found.as_ref(), tenant, &row.resource_uid, &row.slug) {
        return Err(StepError::TenantChanged);
    }
    let (id, uid, ahead) = (row.id, row.resource_uid.as_str(), context.clock.ahead());
    if row.retain {
        step.replace_record(passed(context.registry.may_close(id, uid, ahead).await?)?);
        return Ok(());
    }
    if row.activated_at.is_some() {
        match breaker::permits_purge(row, context).await? {
            Permission::Granted => {}
            Permission::NotCounted => return Err(StepError::Changed("the grace of other tenants")),
            Permission::Frozen => return Err(StepError::PurgesFrozen),
        }
    }
    step.replace_record(passed(context.registry.begin_purge(id, uid, ahead, step.correlation()?).await?)?);
    Ok(())
}

/// The row, if the registry allowed it.
pub fn passed(deadline: Deadline) -> Result<TenantRecord, StepError> {
    match deadline {
        Deadline::Passed(record) => Ok(*record),
        Deadline::NotDue => Err(StepError::ClocksDisagree),
        Deadline::Changed => Err(StepError::TenantChanged),
    }
}
