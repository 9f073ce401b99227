//! Observes, plans and executes, in rounds: another round follows only where more steps can be planned then.

use kube::Resource;
use tracing::warn;

use super::{
    execute::execute,
    observe::{Observed, observe},
    plan::plan,
    rights::report_rights,
    slots::permitted,
    status_writer::StatusWriter,
    step_context::Execution,
};
use crate::{
    api::{reason::Reason, tenant_status::WorkflowKind},
    controller::{context::SharedContext, state::servers::Slot},
    domain::{
        drift::Mismatch,
        status::{Obstacle, Outcome},
        subject::Subject,
        workflow::{
            BlockedReason, NextAction,
            attempt::{Progress, StepRun, WorkflowRun},
        },
    },
    registry,
};

/// How a reconcile ended.
pub struct Converged<'a> {
    /// The tenant, with the row as it is now.
    pub subject: Subject<'a>,
    /// What was done.
    pub progress: Progress,
    /// What ended it, apart from a failed step.
    pub obstacle: Option<Obstacle>,
    /// Why something could not be read, if so.
    pub unread: Option<Reason>,
}

impl Converged<'_> {
    /// What the status is computed from.
    pub fn outcome(&self) -> Outcome<'_> {
        Outcome {
            subject: &self.subject,
            progress: &self.progress,
            obstacle: self.obstacle.as_ref(),
            unread: self.unread,
        }
    }
}

/// Works on a tenant until its planned steps are done, something blocks it, a step fails, or the rest needs a slot of
/// another class.
pub async fn converge<'a>(
    mut subject: Subject<'a>,
    slot: &mut Slot,
    context: &SharedContext,
    status: &mut StatusWriter,
) -> Converged<'a> {
    let mut progress = Progress::default();
    let mut unread = None;
    loop {
        let observed = observe(subject, context).await;
        unread = observed.unread.or(unread);
        let action = plan(&observed, &progress, context);
        let Observed { subject: found, server, server_not_ready, drift, in_force, takeover, .. } = observed;
        progress.observed_access = in_force;
        progress.adoption = takeover.and_then(|inspection| inspection.status).or(progress.adoption);
        subject = found;
        let obstacle = match action {
            NextAction::Done => {
                progress = close_workflow(&subject, progress, context).await;
                None
            }
            NextAction::Blocked(BlockedReason::ServerUnknown(message)) if server_not_ready => {
                Some(Obstacle::ServerNotReady { message })
            }
            NextAction::Blocked(blocked) => Some(Obstacle::Blocked(blocked)),
            NextAction::Run { kind, steps, again } => {
                let is_first_round = progress.steps.is_empty();
                let number = permitted(slot, &steps, is_first_round, &subject, context).await;
                if number == 0 {
                    // Planned and not run: the next reconcile waits for their slot.
                    progress.steps.extend(steps.into_iter().map(StepRun::pending));
                    return Converged { subject, progress, obstacle: None, unread };
                }
                let (steps, again) = (&steps[..number], again || number < steps.len());
                let handle = server.clone();
                let was_active = subject.record.as_ref().is_some_and(|row| row.activated_at.is_some());
                let execution = Execution { subject, progress, kind, again, server, context, status };
                (subject, progress) = execute(execution, steps).await;
                report_repair(&subject, &progress, kind, &drift, context);
                let mut is_doubted = false;
                if let (Some(server), Some(row)) = (handle, &subject.record) {
                    match report_rights(subject.tenant, row, was_active, &server, context).await {
                        Ok(Some(row)) => (subject.record, is_doubted) = (Some(row), true),
                        Ok(None) => {}
                        Err(error) => {
                            warn!(%error, "could not record that rights differ; the next check does")
                        }
                    }
                }
                // A failed first provisioning is rolled back in the same reconcile.
                let rolls_back = subject.record.as_ref().is_some_and(|record| record.rolling_back)
                    && kind == WorkflowKind::Provision;
                if rolls_back || ((again || is_doubted) && progress.failure().is_none()) {
                    continue;
                }
                None
            }
        };
        return Converged { subject, progress, obstacle, unread };
    }
}

fn report_repair(
    subject: &Subject<'_>,
    progress: &Progress,
    kind: WorkflowKind,
    drift: &[Mismatch],
    context: &SharedContext,
) {
    let is_manual = |mismatch: &&Mismatch| mismatch.repaired_by().is_some() && !mismatch.comes_with_time();
    let repaired: Vec<String> = drift.iter().filter(is_manual).map(ToString::to_string).collect();
    if kind == WorkflowKind::Repair && !repaired.is_empty() && progress.failure().is_none() {
        let note = format!("manual changes were repaired: {}", repaired.join("; "));
        context.events.warning(subject.tenant.object_ref(&()), "Repair", Reason::DriftRepaired, note);
    }
}

/// Called when nothing is left to do: closes a workflow that a killed process left open, or restores the last workflow to a
/// status that lacks it.
async fn close_workflow(subject: &Subject<'_>, mut progress: Progress, context: &SharedContext) -> Progress {
    if let Some(workflow) = &progress.workflow {
        // More steps were expected, and none are needed.
        if progress.failure().is_none()
            && let Err(error) =
                context.registry.finish_workflow(&workflow.record, registry::WorkflowOutcome::Succeeded).await
        {
            warn!(%error, "could not close the workflow; the next reconcile closes it");
        }
        return progress;
    }
    let not_in_status = subject.previous.workflow.is_none();
    let Some(record) = subject.record.as_ref().filter(|record| record.has_open_workflow || not_in_status)
    else {
        return progress;
    };
    match context.registry.settle_workflow(record.id).await {
        Ok(Some((kind, record))) => {
            let first_step = progress.steps.len();
            progress.workflow = Some(WorkflowRun { kind, record, first_step });
        }
        Ok(None) => {}
        Err(error) => warn!(%error, "could not record the end of the workflow; its history is incomplete"),
    }
    progress
}
