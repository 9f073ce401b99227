//! RestoreActivation: records that the tenant was activated, where the registry was restored to an older state and its row
//! does not say so. From then on it has a grace, counts for the breaker, and is never rolled back. It is suspended until its
//! access is evaluated. Where only the Secret shows it, the Secret is read from the API server, since the watch may be behind.

use kube::Resource;

use crate::{
    api::reason::Reason,
    controller::tenant::{
        failure::StepError,
        holds::restore_holds,
        secrets::{Found, find},
        step_context::StepContext,
    },
    domain::{
        offboarding::{purge_after, vanished_grace},
        spec::connection_secret_name,
        tenant_facts::RecordedOids,
    },
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let (row, context) = (step.row()?.clone(), step.context);
    if !step.subject.object.was_activated && !is_confirmed(step).await? {
        return Err(StepError::Changed("what shows that the tenant was activated"));
    }
    if let Some(record) = &mut step.subject.record {
        restore_holds(step.subject.tenant, &step.subject.previous, record, context).await?;
    }
    let grace = context.with_plan_grace(&row.plan, vanished_grace);
    let now = context.clock.now();
    let restored =
        context.registry.restore_activation(row.id, now, purge_after(now, grace), step.correlation()?);
    step.replace_record(restored.await?);
    step.evaluate();
    let note = format!(
        "the registry records that tenant {} was never activated, and its status, its Secret or its database show that it was: the registry was restored to an older state; the tenant is treated as activated, and nothing of it is rolled back or purged without grace: check its holds",
        row.id
    );
    context.events.warning(step.tenant().object_ref(&()), "RestoreActivation", Reason::RegistryBehind, note);
    Ok(())
}

/// Whether the tenant's Secret or database exists, read again.
async fn is_confirmed(step: &StepContext<'_, '_>) -> Result<bool, StepError> {
    let row = step.row()?;
    let name = connection_secret_name(step.tenant());
    if let Ok(Found::Ours(_)) = find(step.context, &step.namespace(), &name, row).await {
        return Ok(true);
    }
    let facts = step.server()?.observe_recorded(&row.placement, RecordedOids::of(row)).await?;
    Ok(facts.own_database(RecordedOids::of(row)).is_some())
}
