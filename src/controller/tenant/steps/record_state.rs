//! RecordState: records `trial`, `active` or `suspended`, and why. After EnforceAccess, so that a suspension is never
//! reported before PostgreSQL enforces it.

use crate::{
    controller::tenant::{failure::StepError, step_context::StepContext},
    domain::lifecycle::{Event, state_after},
    registry::NewState,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let (evaluation, row) = (step.access()?.clone(), step.row()?);
    let (id, correlation, at) = (row.id, step.correlation()?, step.context.clock.now());
    let to = state_after(row.status, Event::AccessEvaluated, |guard| evaluation.satisfies(guard))
        .ok_or(StepError::Changed("the recorded status of the tenant"))?;
    let why = evaluation.summary();
    let (row, changes) = (step.row()?, &step.subject.changes);
    // What this reconcile saw first is the cause, and not what was seen before; unless it was tried before.
    let before = step.subject.seen_generation.filter(|seen| *seen < changes.generation());
    let since = before.or(row.status_generation);
    let actor = changes.of_state(&evaluation, since, row.holds_changed_by.as_deref());
    let (actor, generation) = (actor.to_string(), Some(changes.generation()));
    let new = NewState { to, why: why.as_deref(), access: evaluation.access, actor: &actor, generation, at };
    step.replace_record(step.context.registry.record_state(id, &new, correlation).await?.record);
    Ok(())
}
