//! The guard before anything of a tenant is dropped.

use kube::ResourceExt;

use super::{
    claims::find_claims,
    failure::StepError,
    holds::record_legal_holds,
    object_match::{find_tenant, is_still_deprovisioning},
    step_context::StepContext,
};
use crate::{
    controller::{
        breaker::{self, Permission},
        watch::requeue::requeue_tenant,
    },
    domain::{claims::Claims, observed::RegistryStatus, record::TenantRecord},
    registry::Deadline,
};

/// Runs before the first deletion: confirms with the API server that the Tenant is still being deprovisioned and has no
/// legal hold, and that no other Tenant in use has its id, then records that the purge begins. A Tenant that is applied again
/// before that is reinstated, and not after it. A purge that has begun continues; a rollback destroys nothing of value. With
/// `Retain`, the breaker is not asked.
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
    let claims = find_claims(context, row.id).await?;
    if let Some(other) = claims.in_use_elsewhere(row.id, &row.resource_namespace, &row.resource_name) {
        let object = format!("{}/{}", other.namespace, other.name);
        return Err(StepError::ClaimedElsewhere { object, slug: row.slug.clone() });
    }
    refuse_under_legal_hold(step, &claims).await?;
    let row = step.row()?;
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

/// Asks the API server for legal holds that are not recorded yet: the watch may be behind, or no operator ran when one was
/// applied. Also of the Tenants that have its id in their status: a hold on a Tenant that was moved names it by its new name.
/// While they cannot be read, nothing is dropped.
async fn refuse_under_legal_hold(step: &mut StepContext<'_, '_>, claims: &Claims) -> Result<(), StepError> {
    let (context, mut row) = (step.context, step.row()?.clone());
    let (namespace, name) = (step.namespace(), step.tenant().name_any());
    let mut placed = record_legal_holds(&namespace, &name, &mut row, context).await?;
    for claim in claims.elsewhere(row.id, &namespace, &name) {
        placed |= record_legal_holds(&claim.namespace, &claim.name, &mut row, context).await?;
    }
    if placed {
        requeue_tenant(&row.resource_namespace, &row.resource_name, context);
    }
    let refusal = row.legal_holds().map(StepError::LegalHold);
    step.replace_record(row);
    refusal.map_or(Ok(()), Err)
}

/// The row, if the registry allowed it.
pub fn passed(deadline: Deadline) -> Result<TenantRecord, StepError> {
    match deadline {
        Deadline::Passed(record) => Ok(*record),
        Deadline::NotDue => Err(StepError::ClocksDisagree),
        Deadline::Changed => Err(StepError::TenantChanged),
    }
}
