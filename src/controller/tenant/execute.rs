//! Runs the steps of a plan in order. A step is idempotent and safe to cut at any await; a failure ends the run as a
//! value, never as an early return without a status.

use std::time::Instant;

use k8s_openapi::jiff::Timestamp;
use tracing::{Span, error, info, warn};

use super::{
    failure::StepError,
    reconcile::{StatusWriter, next_attempt},
    steps::{self, Run},
    visit::{Failure, StepResult, StepRun, Visit, WorkflowRun},
};
use crate::{
    api::tenant_status::WorkflowKind,
    controller::context::SharedContext,
    domain::{observed::RegistryStatus, steps::Step},
    postgres::server::Server,
    registry::{Outcome, StepRecord},
};

/// Runs `steps` as one workflow of `kind`.
pub async fn execute(
    visit: &mut Visit<'_>,
    kind: WorkflowKind,
    steps: &[Step],
    server: Option<Server>,
    context: &SharedContext,
    status: &mut StatusWriter,
) {
    let first = visit.steps.len();
    visit.steps.extend(steps.iter().map(|step| StepRun {
        step: *step,
        result: StepResult::Pending,
        started_at: None,
        finished_at: None,
    }));
    if let Err(error) = join_workflow(visit, kind, context).await {
        fail(&mut visit.steps[first], &error);
    } else {
        run_steps(visit, first, kind, server, context, status).await;
    }
    if let Some((step, failure)) = visit.failure() {
        let (step, failure) = (step, failure.clone());
        let failures = visit.workflow.as_ref().map_or(0, |workflow| workflow.record.failures);
        visit.next_attempt_at = Some(next_attempt(failures + 1, failure.permanent));
        if let Err(error) = note_failure(visit, step, &failure, context).await {
            warn!(%error, "the registry does not know of the failure");
        }
    }
    if let Err(error) = record(visit, context).await {
        warn!(%error, "the workflow's history is not complete: the registry did not take it");
    }
}

async fn run_steps(
    visit: &mut Visit<'_>,
    first: usize,
    kind: WorkflowKind,
    server: Option<Server>,
    context: &SharedContext,
    status: &mut StatusWriter,
) {
    for at in first..visit.steps.len() {
        let step = visit.steps[at].step;
        visit.steps[at].result = StepResult::Running;
        visit.steps[at].started_at = Some(Timestamp::now());
        // Releasing the object is the end of it: a status written now would find nobody.
        if step != Step::ReleaseFinalizer {
            status.progress(visit, context).await;
        }
        let began = Instant::now();
        let result = if context.leadership.is_current() {
            steps::run(step, &mut Run { visit, server: server.as_ref(), context }).await
        } else {
            Err(StepError::NotLeader)
        };
        let elapsed = began.elapsed();
        visit.steps[at].finished_at = Some(Timestamp::now());
        let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        match result {
            Ok(()) => {
                visit.steps[at].result = StepResult::Succeeded;
                context.metrics.step(step.as_str(), "succeeded", elapsed);
                info!(step = step.as_str(), duration_ms, outcome = "succeeded", "step");
            }
            Err(error) => {
                context.metrics.step(step.as_str(), "failed", elapsed);
                let reason = error.reason();
                if error.is_permanent() {
                    error!(step = step.as_str(), duration_ms, outcome = "failed", reason, %error, "step");
                } else {
                    warn!(step = step.as_str(), duration_ms, outcome = "failed", reason, %error, "step");
                }
                context.watch_conflict(visit.tenant, &error);
                fail(&mut visit.steps[at], &error);
                return;
            }
        }
        // The row is there from Register on, and with it the workflow's record.
        if step == Step::Register
            && let Err(error) = join_workflow(visit, kind, context).await
        {
            fail(&mut visit.steps[at], &error);
            return;
        }
    }
}

fn fail(run: &mut StepRun, error: &StepError) {
    run.result = StepResult::Failed(Failure {
        reason: error.reason(),
        message: error.to_string(),
        sql_state: error.sql_state(),
        permanent: error.is_permanent(),
    });
}

/// Begins the workflow in the registry, or resumes the unfinished one, once the tenant has a row.
async fn join_workflow(
    visit: &mut Visit<'_>,
    kind: WorkflowKind,
    context: &SharedContext,
) -> Result<(), StepError> {
    let Some(row) = &visit.row else { return Ok(()) };
    if visit.workflow.is_some() || row.status == RegistryStatus::Deprovisioned {
        return Ok(());
    }
    let (id, failed) = (row.id, row.status == RegistryStatus::Failed);
    let record = context.registry.begin_workflow(id, kind.as_str()).await?;
    Span::current().record("correlation_id", record.id.to_string());
    if failed && !visit.is_leaving() {
        context.registry.retry(id, record.id).await?;
        if let Some(row) = &mut visit.row {
            row.status = RegistryStatus::Provisioning;
        }
    }
    visit.workflow = Some(WorkflowRun { kind, record });
    Ok(())
}

/// The registry learns why, and when the next attempt is: both outlive this process.
async fn note_failure(
    visit: &mut Visit<'_>,
    step: Step,
    failure: &Failure,
    context: &SharedContext,
) -> Result<(), StepError> {
    let Some(workflow) = &visit.workflow else { return Ok(()) };
    let message = format!("{step}: {}", failure.message);
    if let Some(next) = visit.next_attempt_at {
        context.registry.postpone_workflow(&workflow.record, failure.reason, &message, next).await?;
    }
    let leaving = visit.is_leaving();
    if let Some(row) = &mut visit.row
        && row.status == RegistryStatus::Provisioning
        && failure.permanent
        && !leaving
    {
        context.registry.fail(row.id, &message, workflow.record.id).await?;
        row.status = RegistryStatus::Failed;
    }
    Ok(())
}

/// One statement per run: the steps with their times and errors, and the workflow's end.
async fn record(visit: &Visit<'_>, context: &SharedContext) -> Result<(), StepError> {
    let Some(workflow) = &visit.workflow else { return Ok(()) };
    let records: Vec<StepRecord> = visit
        .steps
        .iter()
        .map(|run| {
            let (state, message, sql_state) = match &run.result {
                StepResult::Pending => ("Pending", None, None),
                StepResult::Running => ("Running", None, None),
                StepResult::Succeeded => ("Succeeded", None, None),
                StepResult::Failed(failure) => {
                    ("Failed", Some(failure.message.clone()), failure.sql_state.clone())
                }
            };
            StepRecord {
                step: run.step.as_str().to_owned(),
                state: state.to_owned(),
                attempts: workflow.record.attempt,
                started_at: run.started_at,
                finished_at: run.finished_at,
                message,
                sql_state,
            }
        })
        .collect();
    context.registry.record_steps(&workflow.record, &records).await?;
    if visit.is_settled() {
        context.registry.finish_workflow(&workflow.record, Outcome::Succeeded).await?;
    }
    Ok(())
}
