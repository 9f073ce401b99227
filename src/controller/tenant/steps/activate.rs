//! Activate: records `trial` or `active`, or `suspended` if something restricts access from the start. The last step of a
//! provisioning; the status shows the connection Secret only after it.

use std::time::Duration;

use crate::{
    controller::tenant::{evaluate, failure::StepError, step_context::StepContext},
    domain::{
        lifecycle::{Event, state_after},
        observed::RegistryStatus,
    },
    modules::ModuleKind,
    registry::NewState,
};
use kube::ResourceExt;

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let (row, context) = (step.row()?, step.context);
    let (id, correlation, at) = (row.id, step.correlation()?, context.clock.now());
    // A trial with a length from the plan starts now.
    let evaluation = evaluate::access(step.tenant(), Some(row), Some(at), context);
    if row.access != Some(evaluation.access) {
        // A trial or a validity started or ended after access was enforced.
        return Err(StepError::Changed("the access that the tenant should have"));
    }
    let to = state_after(RegistryStatus::Provisioning, Event::Activated, |guard| evaluation.satisfies(guard))
        .ok_or(StepError::Changed("the recorded status of the tenant"))?;
    if row.takeover.is_some() {
        // From now on it may be dropped with the tenant, which the next statement makes active.
        step.server()?.finish_takeover(&row.placement).await?;
    }
    let why = evaluation.summary();
    let generation = step.tenant().metadata.generation;
    let new =
        NewState { to, why: why.as_deref(), access: evaluation.access, actor: "tenantry", generation, at };
    let plan = context.plan(&step.tenant().spec.plan).ok_or(StepError::Missing("the plan"))?;
    let gates: Vec<String> = plan.spec.gates.iter().map(|gate| gate.name.clone()).collect();
    step.replace_record(context.registry.activate(id, &new, &gates, correlation).await?.record);
    step.evaluate();
    if step.modules()?.modules().iter().any(|module| module.kind == ModuleKind::External) {
        // Its pipeline needs a login, in the database that has its name now.
        context.stores.scopes.requeue(&step.namespace(), &step.tenant().name_any());
    }
    if let Some(created) = &step.tenant().metadata.creation_timestamp {
        let took = context.clock.now().duration_since(created.0);
        context.metrics.provisioned(Duration::try_from(took).unwrap_or_default());
    }
    Ok(())
}
