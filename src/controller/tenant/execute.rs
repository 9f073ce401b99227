//! Runs the steps of a plan in order. A step is idempotent and safe to cut at any await; a failure ends the run as a
//! value, never as an early return without a status.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio::time::timeout;
use tracing::{Span, error, info, warn};

use super::{
    failure::StepError,
    reconcile::next_attempt,
    report::StatusWriter,
    steps::{self, Run},
    visit::{Failure, StepResult, StepRun, Visit, WorkflowRun},
};
use crate::{
    api::{tenant::OnFailure, tenant_status::WorkflowKind},
    controller::context::SharedContext,
    domain::{
        observed::RegistryStatus,
        plan::{Presence, RELEASE_UNCUT_AFTER},
        steps::Step,
    },
    postgres::server::Server,
    registry::{Outcome, StepRecord},
};

/// What is to be run, and as what.
#[derive(Clone, Copy, Debug)]
pub struct Order<'s> {
    /// Which kind of workflow.
    pub kind: WorkflowKind,
    /// Its steps.
    pub steps: &'s [Step],
    /// More will follow, which cannot be seen yet: the workflow does not end with these.
    pub again: bool,
}

/// Runs an order's steps as one workflow.
pub async fn execute(
    visit: &mut Visit<'_>,
    Order { kind, steps, again }: Order<'_>,
    server: Option<Server>,
    context: &SharedContext,
    status: &mut StatusWriter,
) {
    let first = visit.steps.len();
    // Another kind of work is another workflow, which takes the place of the one before.
    if visit.workflow.as_ref().is_some_and(|workflow| workflow.kind != kind) {
        visit.workflow = None;
    }
    visit.steps.extend(steps.iter().map(|step| StepRun {
        step: *step,
        result: StepResult::Pending,
        started_at: None,
        finished_at: None,
    }));
    if let Err(error) = in_limit(NOTE, join_workflow(visit, kind, first, context)).await {
        fail(&mut visit.steps[first], &error);
    } else {
        run_steps(visit, first, kind, server, context, status).await;
    }
    let failed = visit.steps[first..].iter().find_map(|run| match &run.result {
        StepResult::Failed(failure) => Some((run.step, failure.clone())),
        StepResult::Pending | StepResult::Running | StepResult::Succeeded => None,
    });
    if let Some((step, failure)) = failed {
        let failures = visit.workflow.as_ref().map_or(0, |workflow| workflow.record.failures);
        visit.next_attempt_at = Some(in_time(visit, next_attempt(failures + 1, &failure, context)));
        if let Err(error) = in_limit(NOTE, note_failure(visit, step, &failure, context)).await {
            warn!(%error, "the registry does not know of the failure");
        }
    }
    if let Err(error) = in_limit(NOTE, record(visit, again, context)).await {
        warn!(%error, "the workflow's history is not complete: the registry did not take it");
    }
}

/// How long the registry may take to note something.
const NOTE: Duration = Duration::from_secs(90);

/// How long a step may take. Statements have their own limits: this one is for a connection that is lost without a word,
/// which would keep the tenant's turn for ever. What waits for others, or runs a module's SQL, may take long.
fn limit(step: Step) -> Duration {
    match step {
        Step::CreateDatabase | Step::ApplyMigrations | Step::Seed | Step::DropDatabase => {
            Duration::from_secs(2 * 3600)
        }
        _ => Duration::from_secs(600),
    }
}

/// Cuts what takes too long: everything may be cut at any await.
async fn in_limit<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    timeout(limit, work).await.unwrap_or(Err(StepError::Hung(limit)))
}

async fn run_steps(
    visit: &mut Visit<'_>,
    first: usize,
    kind: WorkflowKind,
    server: Option<Server>,
    context: &SharedContext,
    status: &mut StatusWriter,
) {
    let mut failed = false;
    for at in first..visit.steps.len() {
        let step = visit.steps[at].step;
        visit.steps[at].result = StepResult::Running;
        visit.steps[at].started_at = Some(context.clock.now());
        // Releasing the object is the end of it: a status written now would find nobody.
        if step != Step::ReleaseFinalizer {
            status.progress(visit, context).await;
        }
        let began = Instant::now();
        let result = if context.leadership.is_current() {
            let mut run = Run { visit, server: server.as_ref(), context };
            in_limit(limit(step), steps::run(step, &mut run)).await
        } else {
            Err(StepError::NotLeader)
        };
        let elapsed = began.elapsed();
        visit.steps[at].finished_at = Some(context.clock.now());
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
                if let (true, Some(row)) = (error.is_unreachable(), &visit.row) {
                    context.servers.suspect(&row.server);
                }
                fail(&mut visit.steps[at], &error);
                // That the tenant goes away is to be known even where its access cannot be cut yet.
                if !(step == Step::CutAccess && visit.steps.get(at + 1).is_some_and(is_tombstone)) {
                    return;
                }
                failed = true;
                continue;
            }
        }
        if failed {
            return;
        }
        // The row is there from Register on, and with it the workflow's record.
        if step == Step::Register
            && let Err(error) = in_limit(NOTE, join_workflow(visit, kind, first, context)).await
        {
            fail(&mut visit.steps[at], &error);
            return;
        }
    }
}

/// An object that was deleted is let go after a minute, whatever the failure.
fn in_time(visit: &Visit<'_>, next: Timestamp) -> Timestamp {
    match visit.presence {
        Presence::Deleted(at) => match at.checked_add(RELEASE_UNCUT_AFTER) {
            Ok(release) if visit.steps.iter().all(|run| run.step != Step::DropDatabase) => next.min(release),
            _ => next,
        },
        Presence::Living | Presence::Gone => next,
    }
}

fn is_tombstone(run: &StepRun) -> bool {
    run.step == Step::Tombstone
}

fn fail(run: &mut StepRun, error: &StepError) {
    run.result = StepResult::Failed(Failure {
        reason: error.reason(),
        message: error.to_string(),
        sql_state: error.sql_state(),
        permanent: error.is_permanent(),
        rest: error.rest(),
    });
}

/// Begins the workflow in the registry, or resumes the unfinished one, once the tenant has a row.
async fn join_workflow(
    visit: &mut Visit<'_>,
    kind: WorkflowKind,
    first: usize,
    context: &SharedContext,
) -> Result<(), StepError> {
    let Some(row) = &visit.row else { return Ok(()) };
    if visit.workflow.is_some() || row.status == RegistryStatus::Deprovisioned {
        return Ok(());
    }
    let (id, failed) = (row.id, row.status == RegistryStatus::Failed && kind == WorkflowKind::Provision);
    let record = context.registry.begin_workflow(id, kind.as_str()).await?;
    Span::current().record("correlation_id", record.id.to_string());
    if failed && !visit.is_leaving() {
        context.registry.retry(id, record.id).await?;
        if let Some(row) = &mut visit.row {
            row.status = RegistryStatus::Provisioning;
        }
    }
    visit.workflow = Some(WorkflowRun { kind, record, first });
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
    let roll_back = on_failure(visit, context) == OnFailure::Rollback;
    if let Some(row) = &mut visit.row
        && row.status == RegistryStatus::Provisioning
        && failure.permanent
        && !leaving
    {
        context.registry.fail(row.id, &message, roll_back, workflow.record.id).await?;
        (row.status, row.rolling_back) = (RegistryStatus::Failed, roll_back);
    }
    Ok(())
}

/// What becomes of a failed first provisioning: as the tenant says, else as its plan says.
fn on_failure(visit: &Visit<'_>, context: &SharedContext) -> OnFailure {
    let plan = || context.plan(&visit.tenant.spec.plan).and_then(|plan| plan.spec.on_failure);
    visit.desired.as_ref().and_then(|desired| desired.on_failure).or_else(plan).unwrap_or_default()
}

/// One statement per run, the steps with their times and errors; and the workflow's end.
async fn record(visit: &Visit<'_>, again: bool, context: &SharedContext) -> Result<(), StepError> {
    let Some(workflow) = &visit.workflow else { return Ok(()) };
    let steps = visit.current_steps();
    let records: Vec<StepRecord> = steps
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
    // A step may have been run again in a later round: what counts is how it ended.
    let last = |at: &usize| records[at + 1..].iter().all(|later| later.step != records[*at].step);
    let records: Vec<StepRecord> = (0..records.len()).filter(last).map(|at| records[at].clone()).collect();
    context.registry.record_steps(&workflow.record, &records).await?;
    let done = steps.iter().all(|run| run.result == StepResult::Succeeded);
    if done
        && workflow.kind == WorkflowKind::Rollback
        && let (Some((_, failure)), Some(next)) = (visit.failure(), visit.next_attempt_at)
    {
        // What led to it waits as any failure does.
        context.registry.postpone_workflow(&workflow.record, failure.reason, &failure.message, next).await?;
    }
    if done && !again && visit.obstacle.is_none() {
        context.registry.finish_workflow(&workflow.record, Outcome::Succeeded).await?;
    }
    Ok(())
}
