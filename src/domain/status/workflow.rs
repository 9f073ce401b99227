//! What the status shows of the workflow: its steps over all attempts.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Outcome;
use crate::{
    api::tenant_status::{StepState, StepStatus, WorkflowStatus},
    domain::workflow::attempt::{StepResult, StepRun, all_succeeded},
};

/// The workflow after a reconcile.
pub(super) fn status(
    outcome: &Outcome<'_>,
    before: Option<WorkflowStatus>,
    now: Timestamp,
) -> Option<WorkflowStatus> {
    let Some(run) = &outcome.progress.workflow else {
        return before.map(|workflow| settle_unfinished(workflow, outcome, now));
    };
    let id = run.record.id.to_string();
    let earlier = before.filter(|workflow| workflow.id == id);
    let started_at = earlier.as_ref().and_then(|workflow| workflow.started_at.clone());
    let earlier_steps = earlier.map(|workflow| workflow.steps).unwrap_or_default();
    let current = outcome.progress.current_steps();
    let mut steps = merge_steps(earlier_steps, current);
    let finished = outcome.obstacle.is_none() && all_succeeded(current);
    if finished {
        observed_as_done(&mut steps);
    }
    Some(WorkflowStatus {
        id,
        kind: run.kind,
        attempt: run.record.attempt,
        started_at: started_at.or(Some(Time(run.record.started_at))),
        finished_at: finished.then_some(Time(now)),
        next_attempt_at: outcome.progress.next_attempt_at.map(Time),
        steps,
    })
}

/// A process that ended before it could write its status leaves steps that look unfinished. Once everything is observed
/// to be in force, they are done.
fn settle_unfinished(mut workflow: WorkflowStatus, outcome: &Outcome<'_>, now: Timestamp) -> WorkflowStatus {
    if workflow.finished_at.is_none() && outcome.is_settled() && outcome.subject.record.is_some() {
        observed_as_done(&mut workflow.steps);
        workflow.finished_at = Some(Time(now));
        workflow.next_attempt_at = None;
    }
    workflow
}

/// Marks unfinished steps as done: an earlier attempt began them, and nothing of them is left to do.
fn observed_as_done(steps: &mut [StepStatus]) {
    for step in steps.iter_mut().filter(|step| step.state != StepState::Succeeded) {
        step.state = StepState::Succeeded;
        step.message = Some("observed as done".into());
        step.sql_state = None;
    }
}

/// The steps of earlier attempts, overwritten by those of this one, in the order of the work.
fn merge_steps(earlier: Vec<StepStatus>, runs: &[StepRun]) -> Vec<StepStatus> {
    let mut steps = earlier;
    for run in runs {
        let name = run.step.as_str();
        let position = steps.iter().position(|step| step.name == name);
        let previous = position.map_or(0, |at| steps[at].attempts);
        let (state, tried, failure) = match &run.result {
            StepResult::Pending => (StepState::Pending, 0, None),
            StepResult::Running => (StepState::Running, 1, None),
            StepResult::Succeeded => (StepState::Succeeded, 1, None),
            StepResult::Failed(failure) => (StepState::Failed, 1, Some(failure)),
        };
        let status = StepStatus {
            name: name.to_owned(),
            state,
            attempts: previous + tried,
            started_at: run.started_at.map(Time),
            finished_at: run.finished_at.map(Time),
            message: failure.map(|failure| failure.message.clone()),
            sql_state: failure.and_then(|failure| failure.sql_state.clone()),
        };
        match position {
            Some(at) => steps[at] = status,
            None => steps.push(status),
        }
    }
    steps
}
