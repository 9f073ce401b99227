//! The history of workflows in the registry: which one runs, why it failed, and how its steps ended. It outlives this
//! process.

use std::time::Duration;

use tracing::{Span, warn};

use super::{declaration::record_changes, failure::StepError, step_context::Execution};
use crate::{
    api::tenant::OnFailure,
    api::tenant_status::WorkflowKind,
    domain::{
        observed::RegistryStatus,
        workflow::{
            attempt::{Failure, StepResult, StepRun, WorkflowRun, all_succeeded},
            step::Step,
        },
    },
    registry::{StepHistory, WorkflowOutcome},
    traces,
};

/// How long the registry may take to record something.
pub const TIMEOUT: Duration = Duration::from_secs(90);

/// Begins the workflow in the registry, or resumes the unfinished one, once the tenant has a row.
pub async fn join_workflow(execution: &mut Execution<'_, '_>, first_step: usize) -> Result<(), StepError> {
    let (registry, kind) = (&execution.context.registry, execution.kind);
    let Some(record) = &execution.subject.record else { return Ok(()) };
    if execution.progress.workflow.is_some() || record.status == RegistryStatus::Deprovisioned {
        return Ok(());
    }
    let id = record.id;
    let retries_provisioning = record.status == RegistryStatus::Failed
        && kind == WorkflowKind::Provision
        && !execution.subject.is_deprovisioning();
    let workflow = registry.begin_workflow(id, kind).await?;
    Span::current().record("correlation_id", workflow.id.to_string());
    traces::note("tenantry.correlation_id", workflow.id.to_string());
    if retries_provisioning {
        execution.subject.record = Some(registry.retry(id, workflow.id).await?.record);
    }
    let correlation = workflow.id;
    execution.progress.workflow = Some(WorkflowRun { kind, record: workflow, first_step });
    if let Err(error) = record_changes(&mut execution.subject, Some(correlation), execution.context).await {
        warn!(%error, "could not record the changes of the spec; the end of this reconcile does");
    }
    Ok(())
}

/// Records why the workflow failed and when the next attempt is.
pub async fn record_failure(
    execution: &mut Execution<'_, '_>,
    step: Step,
    failure: &Failure,
) -> Result<(), StepError> {
    let registry = &execution.context.registry;
    let Some(workflow) = &execution.progress.workflow else { return Ok(()) };
    let message = format!("{step}: {}", failure.message);
    if let Some(next) = execution.progress.next_attempt_at {
        registry.postpone_workflow(&workflow.record, Some(step), failure.reason, &message, next).await?;
    }
    let provisioning = execution.subject.recorded_status() == Some(RegistryStatus::Provisioning);
    let Some(record) = execution.subject.record.as_ref().filter(|_| provisioning) else { return Ok(()) };
    if failure.permanent && !execution.subject.is_deprovisioning() {
        let roll_back = on_failure(execution) == OnFailure::Rollback;
        let failed = registry.fail(record.id, &message, roll_back, workflow.record.id).await?;
        execution.subject.record = Some(failed.record);
    }
    Ok(())
}

/// What becomes of a failed first provisioning: by the Tenant's spec, else by its plan.
fn on_failure(execution: &Execution<'_, '_>) -> OnFailure {
    let tenant = execution.subject.tenant;
    let plan = || execution.context.plan(&tenant.spec.plan).and_then(|plan| plan.spec.on_failure);
    let desired = execution.subject.desired.as_ref();
    desired.and_then(|desired| desired.on_failure).or_else(plan).unwrap_or_default()
}

/// Records the steps, with one statement, and the end of the workflow.
pub async fn record_steps(execution: &Execution<'_, '_>) -> Result<(), StepError> {
    let (registry, progress) = (&execution.context.registry, &execution.progress);
    let Some(workflow) = &progress.workflow else { return Ok(()) };
    let steps = progress.current_steps();
    // A step can run again in a later round of the reconcile: the last run counts.
    let is_last = |(at, run): &(usize, &StepRun)| steps[at + 1..].iter().all(|later| later.step != run.step);
    let records: Vec<StepHistory> = steps
        .iter()
        .enumerate()
        .filter(is_last)
        .map(|(_, run)| step_history(run, workflow.record.attempt))
        .collect();
    registry.record_steps(&workflow.record, &records).await?;
    let done = all_succeeded(steps);
    if done
        && workflow.kind == WorkflowKind::Rollback
        && let (Some((_, failure)), Some(next)) = (progress.failure(), progress.next_attempt_at)
    {
        // The failure that led to the rollback is retried like any other.
        registry.postpone_workflow(&workflow.record, None, failure.reason, &failure.message, next).await?;
    }
    if done && !execution.again {
        registry.finish_workflow(&workflow.record, WorkflowOutcome::Succeeded).await?;
    }
    Ok(())
}

fn step_history(run: &StepRun, attempt: i32) -> StepHistory {
    let (state, failure) = match &run.result {
        StepResult::Pending => ("Pending", None),
        StepResult::Running => ("Running", None),
        StepResult::Succeeded => ("Succeeded", None),
        StepResult::Failed(failure) => ("Failed", Some(failure)),
    };
    StepHistory {
        step: run.step.as_str().to_owned(),
        state: state.to_owned(),
        attempts: attempt,
        started_at: run.started_at,
        finished_at: run.finished_at,
        message: failure.map(|failure| failure.message.clone()),
        sql_state: failure.and_then(|failure| failure.sql_state.clone()),
    }
}
