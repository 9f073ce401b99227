//! What time alone changes: the timer of a tenant, and the warning before a trial or a validity ends.

use kube::Resource;
use tracing::warn;

use super::failure::StepError;
use crate::{
    api::reason::Reason,
    controller::context::Context,
    domain::{access::evaluate::ExpiryKind, subject::Subject},
};

/// Sets the timer for the next change by time, and warns of an end that is near.
pub async fn schedule(subject: &Subject<'_>, context: &Context) {
    let access = subject.access().filter(|_| !subject.is_deprovisioning());
    context.state.timers.set(subject.tenant, access.and_then(|access| access.changes_at));
    if access.is_some()
        && let Err(error) = warn_once(subject, context).await
    {
        warn!(%error, "could not record the expiry warning; it will be repeated");
    }
}

/// Publishes the warning before an end, once.
async fn warn_once(subject: &Subject<'_>, context: &Context) -> Result<(), StepError> {
    let (Some(record), Some(access)) = (&subject.record, subject.access()) else { return Ok(()) };
    let Some(warning) = access.warning.filter(|warning| warning.from <= context.clock.now()) else {
        return Ok(());
    };
    let warned = record.warned_of.is_some_and(|of| of.as_microsecond() == warning.at.as_microsecond());
    if warned || !record.status.was_active() {
        return Ok(());
    }
    let (reason, what) = match warning.kind {
        ExpiryKind::Trial => (Reason::TrialEnding, "the trial ends"),
        ExpiryKind::Validity => (Reason::ValidityEnding, "the validity ends"),
    };
    let note =
        format!("{what} at {}; from then on {}", warning.at, consequence(subject, warning.kind, context));
    context.events.warning(subject.tenant.object_ref(&()), "Warn", reason, note);
    context.registry.record_end_warning(record.id, warning.at).await?;
    context.state.snapshot.forget(&record.resource_uid);
    Ok(())
}

/// What an end leads to, for the Event.
fn consequence(subject: &Subject<'_>, ending: ExpiryKind, context: &Context) -> String {
    let plan = context.plan(&subject.tenant.spec.plan);
    let end = plan.as_ref().and_then(|plan| plan.spec.trial_end.as_ref());
    match (ending, end.and_then(|end| end.plan.as_deref()), end.and_then(|end| end.mode)) {
        (ExpiryKind::Trial, Some(plan), _) => format!("its plan is {plan}"),
        (ExpiryKind::Trial, None, Some(mode)) => format!("its access is {mode}"),
        (ExpiryKind::Validity, _, _) | (ExpiryKind::Trial, None, None) => "its access is Blocked".to_owned(),
    }
}
