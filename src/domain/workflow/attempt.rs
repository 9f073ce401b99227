//! One attempt at a workflow: the steps that were asked for, how each ended, and when the next attempt is.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::step::Step;
use crate::{
    api::{reason::Reason, tenant_adoption::AdoptionStatus, tenant_status::WorkflowKind},
    domain::{access::AccessLevel, usage::entitlements::Entitlements},
};

/// A failure as a value, for the status and the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why, as one of a bounded set.
    pub reason: Reason,
    /// Why, for a person; never contains a secret.
    pub message: String,
    /// The SQLSTATE, where PostgreSQL gave one.
    pub sql_state: Option<String>,
    /// Whether only a change by a person can help.
    pub permanent: bool,
    /// How long the API server asked not to be called again.
    pub retry_after: Option<Duration>,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// Not reached yet.
    Pending,
    /// Running now.
    Running,
    /// Done.
    Succeeded,
    /// Failed.
    Failed(Failure),
}

/// One run of a step.
#[derive(Clone, Debug)]
pub struct StepRun {
    /// The step.
    pub step: Step,
    /// How it ended.
    pub result: StepResult,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl StepRun {
    /// A step that was not reached yet.
    pub fn pending(step: Step) -> Self {
        Self { step, result: StepResult::Pending, started_at: None, finished_at: None }
    }
}

/// A workflow as the registry recorded it for the process that runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowRecord {
    /// The correlation id of everything that it does.
    pub id: Uuid,
    /// The number of this attempt, from 1.
    pub attempt: i32,
    /// When the first attempt began.
    pub started_at: Timestamp,
    /// How many attempts in a row have failed.
    pub failures: i32,
}

/// The workflow that steps belong to.
#[derive(Clone, Debug)]
pub struct WorkflowRun {
    /// Which kind.
    pub kind: WorkflowKind,
    /// Its record in the registry.
    pub record: WorkflowRecord,
    /// The index of its first step in [`Progress::steps`].
    pub first_step: usize,
}

/// What a reconcile has done so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The current workflow, once the registry has it.
    pub workflow: Option<WorkflowRun>,
    /// All steps of the reconcile, in order; a reconcile can run more than one workflow.
    pub steps: Vec<StepRun>,
    /// The limits that the seed of a new database has applied already.
    pub seeded_limits: Option<Entitlements>,
    /// The access level that PostgreSQL showed to be in force, when it was observed last.
    pub observed_access: Option<AccessLevel>,
    /// When the next attempt is, after a failure.
    pub next_attempt_at: Option<Timestamp>,
    /// The modules that could not be applied.
    pub module_failures: Vec<ModuleFailure>,
    /// What the takeover of a database would change, if it was read.
    pub adoption: Option<AdoptionStatus>,
}

/// A module that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFailure {
    /// The module.
    pub module: String,
    /// Why, with file, line and column.
    pub message: String,
    /// It waits for a module that it depends on.
    pub waits: bool,
}

impl Progress {
    /// The step that failed, if one did.
    pub fn failure(&self) -> Option<(Step, &Failure)> {
        first_failure(&self.steps)
    }

    /// The steps of the current workflow. Those of an earlier one in the same reconcile are not part of it.
    pub fn current_steps(&self) -> &[StepRun] {
        &self.steps[self.workflow.as_ref().map_or(0, |workflow| workflow.first_step)..]
    }

    /// Whether this reconcile ran a step to its end.
    pub fn has_done(&self, step: Step) -> bool {
        self.steps.iter().any(|run| run.step == step && run.result == StepResult::Succeeded)
    }

    /// Whether a step is running.
    pub fn is_running(&self) -> bool {
        self.steps.iter().any(|run| run.result == StepResult::Running)
    }

    /// Whether every step that was asked for is done.
    pub fn all_succeeded(&self) -> bool {
        all_succeeded(&self.steps)
    }
}

/// Whether every one of these steps is done.
pub fn all_succeeded(steps: &[StepRun]) -> bool {
    steps.iter().all(|run| run.result == StepResult::Succeeded)
}

/// The first of these steps that failed.
pub fn first_failure(steps: &[StepRun]) -> Option<(Step, &Failure)> {
    steps.iter().find_map(|run| match &run.result {
        StepResult::Failed(failure) => Some((run.step, failure)),
        StepResult::Pending | StepResult::Running | StepResult::Succeeded => None,
    })
}
