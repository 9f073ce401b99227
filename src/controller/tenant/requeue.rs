//! What time leads to: the next reconcile, the timer for the next change of access, and the warning before an end.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt, runtime::controller::Action};
use tokio::time::timeout;
use tracing::warn;

use super::{failure::StepError, history, secrets};
use crate::{
    api::reason::Reason,
    controller::{
        context::{Context, SharedContext},
        state::tombstones,
        watch::secrets::watch_conflict,
    },
    domain::{
        access::{AccessLevel, evaluate::ExpiryKind},
        backoff,
        seed_record::SeedRecord,
        status::{Obstacle, Outcome, Summary},
        subject::Subject,
        workflow::step::Step,
    },
};

/// Requeues at a time.
pub fn requeue_at(at: Timestamp, now: Timestamp) -> Action {
    Action::requeue(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// When a Tenant is reconciled after this outcome, unless something changes before.
pub fn next_reconcile(outcome: &Outcome<'_>, summary: &Summary, now: Timestamp) -> Action {
    match summary {
        Summary::InForce | Summary::Paused => Action::await_change(),
        // A step was planned and not run.
        Summary::Working { .. } => Action::requeue(Duration::from_millis(100)),
        Summary::Waiting { .. } => match outcome.progress.next_attempt_at {
            Some(at) => requeue_at(at, now),
            // A watch resolves these; the slow retry is for a change that a watch missed.
            None if matches!(outcome.obstacle, Some(Obstacle::InvalidSpec(_))) => {
                Action::requeue(backoff::PERMANENT)
            }
            // When the server is Ready again, its rollout comes to this tenant in its turn. A restriction does not wait for it.
            None if matches!(outcome.obstacle, Some(Obstacle::ServerNotReady { .. }))
                && !outcome.subject.must_restrict() =>
            {
                Action::requeue(backoff::PERMANENT)
            }
            None => Action::requeue(backoff::temporary(4, rand::random())),
        },
        Summary::Stuck { .. } => Action::requeue(backoff::PERMANENT),
    }
}

/// The earliest time of the next work on a tombstone; none: as soon as it is due. After a failure it is the next attempt,
/// behind an obstacle a backoff.
pub fn next_tombstone_reconcile(outcome: &Outcome<'_>, context: &Context) -> Option<Timestamp> {
    let now = context.clock.now();
    let progress = outcome.progress;
    let record = outcome.subject.record.as_ref()?;
    let access_left = record.access != Some(AccessLevel::Blocked);
    let kept = record.legal_hold().is_some() && record.purge_started_at.is_none();
    let due =
        access_left || !kept && record.terms().is_some_and(|terms| !terms.held && terms.purge_after <= now);
    if progress.next_attempt_at.is_some() || !due {
        return progress.next_attempt_at;
    }
    let wait = if outcome.obstacle.is_some() {
        backoff::temporary(4, rand::random())
    } else if progress.has_done(Step::Tombstone) && !access_left {
        return None;
    } else {
        tombstones::RECHECK.unsigned_abs()
    };
    Some(now + SignedDuration::try_from(wait).unwrap_or(SignedDuration::ZERO))
}

/// Whether a Secret blocked the last attempt and does not any more. A process that started after the conflict watches that
/// Secret from here on.
pub async fn conflict_is_resolved(subject: &Subject<'_>, context: &SharedContext) -> bool {
    let (Some(desired), Some(record)) = (&subject.desired, &subject.record) else { return false };
    if record.last_failure != Some(Reason::SecretConflict) {
        return false;
    }
    let admin_secret = (!desired.admins.is_empty()).then_some(&desired.admin_secret);
    let namespace = subject.tenant.namespace().unwrap_or_default();
    for name in [&desired.connection_secret].into_iter().chain(admin_secret) {
        if let Err(error) = secrets::find(context, &namespace, name, record).await {
            watch_conflict(subject.tenant, &error, context);
            return false;
        }
    }
    true
}

/// Sets the timer for the next change by time, and warns of an end that is near.
pub async fn set_timer(subject: &Subject<'_>, context: &Context) {
    let access = subject.access().filter(|_| !subject.is_deprovisioning());
    let seed = subject.record.as_ref().and_then(|record| record.seed_digest.as_deref());
    let expires_at = seed.and_then(|seed| Some(SeedRecord::parse(seed).issued?.expires_at));
    let record = subject.record.as_ref().filter(|record| record.status.was_active());
    let rotates_at =
        record.and_then(|record| record.rotation(subject.tenant, context.clock.now()).changes_at);
    let changes_at =
        access.map(|access| access.changes_at.into_iter().chain(expires_at).chain(rotates_at).min());
    context.state.timers.set(subject.tenant, changes_at.flatten());
    if access.is_some()
        && let Err(error) = timeout(history::TIMEOUT, warn_once(subject, context))
            .await
            .unwrap_or(Err(StepError::TimedOut(history::TIMEOUT)))
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
