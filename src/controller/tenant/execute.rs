//! The fourth phase of a reconcile: runs steps in order. A step is idempotent and can be interrupted at any await. A failure
//! ends the run as a value, never as an early return without a status.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::{
    failure::StepError,
    history,
    step_context::{Execution, StepContext},
    steps,
};
use crate::{
    api::tenant_status::WorkflowKind,
    controller::{actors::recorded_changes, watch::secrets::watch_conflict},
    domain::{
        backoff,
        status::Outcome,
        subject::Subject,
        workflow::{
            ObjectState, RELEASE_UNVERIFIED_AFTER,
            attempt::{Failure, Progress, StepResult, StepRun, first_failure},
            step::Step,
        },
    },
    traces,
};

/// Runs steps as one workflow. Returns the tenant with its row as it is then, and what was done.
pub async fn execute<'a>(mut execution: Execution<'a, '_>, steps: &[Step]) -> (Subject<'a>, Progress) {
    let context = execution.context;
    // What was read at start-up is outdated once a step has run.
    context.state.snapshot.forget(&execution.subject.tenant.uid().unwrap_or_default());
    // The steps record who caused what they do.
    if execution.subject.object.state != ObjectState::Deleted {
        execution.subject.changes = recorded_changes(execution.subject.tenant, context).await;
    }
    let progress = &mut execution.progress;
    let first = progress.steps.len();
    // Steps of another kind are another workflow.
    if progress.workflow.as_ref().is_some_and(|workflow| workflow.kind != execution.kind) {
        progress.workflow = None;
    }
    progress.steps.extend(steps.iter().copied().map(StepRun::pending));
    match within(history::TIMEOUT, history::join_workflow(&mut execution, first)).await {
        Ok(()) => run_steps(&mut execution, first).await,
        Err(error) => execution.progress.steps[first].result = StepResult::Failed(failure_of(&error)),
    }
    let failed = first_failure(&execution.progress.steps[first..]);
    if let Some((step, failure)) = failed.map(|(step, failure)| (step, failure.clone())) {
        execution.progress.next_attempt_at = Some(next_attempt(&execution, &failure));
        if let Err(error) =
            within(history::TIMEOUT, history::record_failure(&mut execution, step, &failure)).await
        {
            warn!(%error, "could not record the failure in the registry");
        }
    }
    if let Err(error) = within(history::TIMEOUT, history::record_steps(&execution)).await {
        warn!(%error, "could not record the steps in the registry; the workflow's history is incomplete");
    }
    (execution.subject, execution.progress)
}

/// Interrupts what takes too long. Statements have their own timeouts; this one is for a connection that was lost without
/// notice and would keep the tenant's lock for ever.
async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    timeout(limit, work).await.unwrap_or(Err(StepError::TimedOut(limit)))
}

/// Runs the steps from `first` on, until one fails.
async fn run_steps(execution: &mut Execution<'_, '_>, first: usize) {
    let mut failed = false;
    for at in first..execution.progress.steps.len() {
        let step = execution.progress.steps[at].step;
        match run_step(execution, at).await {
            Ok(()) if failed => return,
            Ok(()) => {}
            Err(failure) => {
                execution.progress.steps[at].result = StepResult::Failed(failure);
                // The tombstone is written even if access could not be revoked yet.
                let next = execution.progress.steps.get(at + 1).map(|run| run.step);
                if step != Step::CutAccess || next != Some(Step::Tombstone) {
                    return;
                }
                failed = true;
                continue;
            }
        }
        // From Register (or AdoptRow) on there is a row, and with it the record of the workflow.
        if matches!(step, Step::Register | Step::AdoptRow)
            && let Err(error) = within(history::TIMEOUT, history::join_workflow(execution, first)).await
        {
            execution.progress.steps[at].result = StepResult::Failed(failure_of(&error));
            return;
        }
    }
}

/// Runs the step at an index, and records when.
async fn run_step(execution: &mut Execution<'_, '_>, at: usize) -> Result<(), Failure> {
    let context = execution.context;
    let run = &mut execution.progress.steps[at];
    let step = run.step;
    (run.result, run.started_at) = (StepResult::Running, Some(context.clock.now()));
    // After the release there is no object to write a status to.
    if step != Step::ReleaseFinalizer {
        let outcome = Outcome {
            subject: &execution.subject,
            progress: &execution.progress,
            obstacle: None,
            unread: None,
        };
        execution.status.progress(&outcome, context).await;
    }
    let began = Instant::now();
    let correlation_id = execution.progress.workflow.as_ref().map(|workflow| workflow.record.id);
    let result = if context.leader.leadership.is_current() {
        let mut step_context = StepContext {
            subject: &mut execution.subject,
            progress: &mut execution.progress,
            server: execution.server.as_ref(),
            context,
        };
        let work = async {
            let result = within(step.timeout(), steps::run(step, &mut step_context)).await;
            result.inspect_err(|error| traces::failed(error.reason().as_str(), &error.to_string()))
        };
        traces::step(step.as_str(), execution.kind.as_str(), correlation_id, work).await
    } else {
        Err(StepError::NotLeader)
    };
    let elapsed = began.elapsed();
    let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    execution.progress.steps[at].finished_at = Some(context.clock.now());
    match result {
        Ok(()) => {
            execution.progress.steps[at].result = StepResult::Succeeded;
            context.metrics.step(step.as_str(), "succeeded", elapsed);
            info!(step = step.as_str(), duration_ms, outcome = "succeeded", "step");
            Ok(())
        }
        Err(error) => {
            context.metrics.step(step.as_str(), "failed", elapsed);
            let reason = error.reason().as_str();
            if execution.kind == WorkflowKind::Provision {
                context.metrics.provision_step_failed(step.as_str(), reason);
            }
            if error.is_permanent() {
                error!(step = step.as_str(), duration_ms, outcome = "failed", reason, %error, "step");
            } else {
                warn!(step = step.as_str(), duration_ms, outcome = "failed", reason, %error, "step");
            }
            watch_conflict(execution.subject.tenant, &error, context);
            if let (true, Some(record)) = (error.is_unreachable(), &execution.subject.record) {
                context.state.servers.request_check(&record.placement.server);
            }
            Err(failure_of(&error))
        }
    }
}

/// A step's error as a value.
fn failure_of(error: &StepError) -> Failure {
    Failure {
        reason: error.reason(),
        message: error.to_string(),
        sql_state: error.sql_state(),
        permanent: error.is_permanent(),
        retry_after: error.retry_after(),
    }
}

/// When the next attempt is: after the backoff, and not before the API server wants to be called again. While a deleted object
/// waits and nothing is dropped, it is at the latest when the finalizer may be released without verification. That time has passed
/// once something was dropped: the failures after that wait as any other.
fn next_attempt(execution: &Execution<'_, '_>, failure: &Failure) -> Timestamp {
    let failures = execution.progress.workflow.as_ref().map_or(0, |workflow| workflow.record.failures);
    let wait = match failure.permanent {
        true => backoff::PERMANENT,
        false => backoff::temporary(u32::try_from(failures + 1).unwrap_or(1), rand::random()),
    };
    let wait = wait.max(failure.retry_after.unwrap_or_default());
    let drops = execution.progress.steps.iter().any(|run| run.step == Step::DropDatabase);
    let released_at = match execution.subject.object.state {
        ObjectState::Deleting(at) if !drops => at.checked_add(RELEASE_UNVERIFIED_AFTER).ok(),
        ObjectState::Deleting(_) | ObjectState::Present | ObjectState::Deleted => None,
    };
    backoff::next_attempt(execution.context.clock.now(), wait, released_at)
}
