//! One visit to one Tenant: what was read, what was decided, what was done. The status is computed from this.

use std::time::Duration;

use crate::{
    api::{
        tenant::{DesiredState, Tenant},
        tenant_status::{TenantStatus, WorkflowKind},
    },
    controller::context::Context,
    domain::{
        access::AccessLevel,
        departure::{Departure, departure},
        desired::{Desired, Invalid},
        limits::Entitlements,
        plan::{Blocked, Presence},
        standing::Standing,
        steps::Step,
    },
    registry::{TenantRow, Workflow},
};
use k8s_openapi::jiff::Timestamp;

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// Not reached yet.
    Pending,
    /// Under way.
    Running,
    /// Done.
    Succeeded,
    /// Failed.
    Failed(Failure),
}

/// A failure as a value, for the status and the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The condition reason.
    pub reason: &'static str,
    /// For people; never a secret.
    pub message: String,
    /// PostgreSQL's code, where it gave one.
    pub sql_state: Option<String>,
    /// Whether only a change by a person can help.
    pub permanent: bool,
    /// How long the other side asks to be left alone.
    pub rest: Option<Duration>,
}

/// A step of this visit.
#[derive(Clone, Debug)]
pub struct StepRun {
    /// Which.
    pub step: Step,
    /// How it ended.
    pub result: StepResult,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// The workflow that the visit's steps belong to.
#[derive(Clone, Debug)]
pub struct WorkflowRun {
    /// Which kind.
    pub kind: WorkflowKind,
    /// As the registry has it: the correlation id, the attempt, the failures so far.
    pub record: Workflow,
    /// Where in the visit's steps its own begin.
    pub first: usize,
}

/// What a visit found in its way, if anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The spec cannot be acted on.
    Invalid(Invalid),
    /// The plan is blocked.
    Blocked(Blocked),
    /// The server is not ready; reason and message are the `DatabaseServer`'s.
    ServerNotReady {
        /// For people.
        message: String,
    },
}

/// One visit.
pub struct Visit<'a> {
    /// The Tenant, as it was read.
    pub tenant: &'a Tenant,
    /// Where the object is.
    pub presence: Presence,
    /// The newest status known, which may be newer than the Tenant's copy.
    pub before: TenantStatus,
    /// What it should be, unless it is deleted or invalid.
    pub desired: Option<Desired>,
    /// Its registry row, as far as known.
    pub row: Option<TenantRow>,
    /// Where it stands: what it may do, and why not more.
    pub standing: Option<Standing>,
    /// What its plan gives it; none while there is no plan, or one that leaves open what the tenant does not say.
    pub entitlements: Option<Entitlements>,
    /// What the seed of a new database has put there already, before the admins.
    pub seeded_limits: Option<Entitlements>,
    /// Limits in its spec that have no effect, as its plan does not leave them to the tenant.
    pub without_effect: Vec<String>,
    /// The workflow, once there is one.
    pub workflow: Option<WorkflowRun>,
    /// The steps, in order.
    pub steps: Vec<StepRun>,
    /// What was in the way.
    pub obstacle: Option<Obstacle>,
    /// Its server was restored: what is in its database may be older than what is recorded.
    pub unverified: bool,
    /// Why something could not be looked at: a condition reason.
    pub unseen: Option<&'static str>,
    /// What was found changed by hand.
    pub drift: Vec<String>,
    /// It failed before and waits: nothing was looked at.
    pub waits_until: Option<Timestamp>,
    /// When the next attempt is, after a failure.
    pub next_attempt_at: Option<Timestamp>,
}

impl<'a> Visit<'a> {
    /// A visit that has seen only the object.
    pub fn new(tenant: &'a Tenant, before: TenantStatus, presence: Presence) -> Self {
        Self {
            tenant,
            presence,
            before,
            desired: None,
            row: None,
            standing: None,
            entitlements: None,
            seeded_limits: None,
            without_effect: Vec::new(),
            workflow: None,
            steps: Vec::new(),
            obstacle: None,
            unverified: false,
            unseen: None,
            drift: Vec::new(),
            waits_until: None,
            next_attempt_at: None,
        }
    }

    /// Whether the tenant goes away: its object was deleted or is gone, or its spec says so.
    pub fn is_leaving(&self) -> bool {
        self.presence != Presence::Living || self.tenant.spec.state == Some(DesiredState::Deprovisioned)
    }

    /// The access level that should be in force.
    pub fn wanted_access(&self) -> AccessLevel {
        match &self.standing {
            Some(standing) if !self.is_leaving() => standing.access,
            // What is not judged is not let in.
            _ => AccessLevel::Blocked,
        }
    }

    /// How it leaves, by its spec and its plan.
    pub fn departure(&self, context: &Context) -> Departure {
        context.with_plan_grace(&self.tenant.spec.plan, |plan| departure(self.tenant, plan))
    }

    /// The failed step, if one failed.
    pub fn failure(&self) -> Option<(Step, &Failure)> {
        self.steps.iter().find_map(|run| match &run.result {
            StepResult::Failed(failure) => Some((run.step, failure)),
            StepResult::Pending | StepResult::Running | StepResult::Succeeded => None,
        })
    }

    /// The steps of the workflow at hand: those of one before it in the same visit are not its own.
    pub fn current_steps(&self) -> &[StepRun] {
        &self.steps[self.workflow.as_ref().map_or(0, |workflow| workflow.first)..]
    }

    /// Whether a step was run in this visit, and is done.
    pub fn has_done(&self, step: Step) -> bool {
        self.steps.iter().any(|run| run.step == step && run.result == StepResult::Succeeded)
    }

    /// Whether no step is left to be run.
    pub fn is_over(&self) -> bool {
        !self.steps.iter().any(|run| run.result == StepResult::Running)
    }

    /// Whether every step that was asked for is done, and nothing was in the way.
    pub fn is_settled(&self) -> bool {
        self.obstacle.is_none() && self.steps.iter().all(|run| run.result == StepResult::Succeeded)
    }
}
