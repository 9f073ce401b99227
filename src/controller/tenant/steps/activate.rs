//! Activate: the registry says `trial`, `active` or, where something narrows access from the first moment, `suspended`.
//! Last step of a provisioning; only after it does the status hand out the binding.

use std::time::Duration;

use super::{Run, StepError};
use crate::{
    domain::{
        gates::open,
        lifecycle::{Event, next},
        observed::RegistryStatus,
    },
    registry::NewState,
};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let (row, context) = (run.row()?, run.context);
    let (id, correlation, at) = (row.id, run.correlation()?, context.clock.now());
    // A trial whose length the plan says begins now.
    let standing = context.standing(run.tenant(), Some(row), Some(at));
    if row.access != Some(standing.access) {
        // A trial or a validity ended, or began, since access was enforced.
        return Err(StepError::Missing("the access that it should have by now"));
    }
    let to = next(RegistryStatus::Provisioning, Event::HandedOut, |guard| standing.passes(guard))
        .ok_or(StepError::Missing("a tenant that is being made"))?;
    let why = standing.why();
    let new = NewState { to, why: why.as_deref(), access: standing.access, actor: "tenantry", at };
    let plan = context.plan(&run.tenant().spec.plan).ok_or(StepError::Missing("the plan"))?;
    let gates: Vec<String> = plan.spec.gates.iter().map(|gate| gate.name.clone()).collect();
    let since = context.registry.activate(id, &new, &gates, correlation).await?;
    let row = run.row_mut()?;
    row.default_gates = Some(gates);
    if open(&row.gates).is_empty() {
        row.gates_done_at.get_or_insert(since);
    }
    row.suspended_at = (to == RegistryStatus::Suspended).then_some(at);
    (row.status, row.status_reason, row.activated_at) = (to, why, Some(since));
    run.visit.judge(context);
    if let Some(created) = &run.tenant().metadata.creation_timestamp {
        let took = context.clock.now().duration_since(created.0);
        context.metrics.provisioned(Duration::try_from(took).unwrap_or_default());
    }
    Ok(())
}
