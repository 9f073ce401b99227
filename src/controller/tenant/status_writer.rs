//! Writes the status of a Tenant when it changes, and publishes an Event for what changed.

use std::time::{Duration, Instant};

use kube::{Api, Resource, ResourceExt};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{evaluate::module_statuses, load::REGISTRY_TIMEOUT};
use crate::{
    api::{
        conditions::{READY, WITHIN_LIMITS, find_condition},
        reason::Reason,
        tenant::Tenant,
        tenant_status::{Access, TenantState, TenantStatus},
    },
    controller::{apply_status::apply_status, context::SharedContext, events::MAX_NOTE_BYTES},
    domain::{
        access::{AccessLevel, inputs::past_trial_end},
        observed::RegistryStatus,
        offboarding::PurgeTerms,
        record::TenantRecord,
        status::{Outcome, Summary, describe_past_trial_end, next_status, same, usage},
        workflow::step::Step,
    },
    registry,
};

/// The minimum time between two writes while a workflow runs.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// The status could not be written. Every other failure is part of the status.
#[derive(Debug, thiserror::Error)]
#[error("could not write the status: {0}")]
pub struct ReconcileError(#[source] pub kube::Error);

/// Writes the status when it changes, and at most once a second while a workflow runs.
pub struct StatusWriter {
    /// Whether there is an object to write to.
    has_object: bool,
    last: TenantStatus,
    last_at: Option<Instant>,
}

impl StatusWriter {
    /// A writer that continues from a status.
    pub fn new(before: TenantStatus) -> Self {
        Self { has_object: true, last: before, last_at: None }
    }

    /// A writer for a tenant whose object does not exist any more: it writes nothing.
    pub fn silent() -> Self {
        Self { has_object: false, last: TenantStatus::default(), last_at: None }
    }

    /// Writes progress, unless there was a write within the last second. A failure does not stop the work: the last write of
    /// the reconcile contains everything.
    pub async fn progress(&mut self, outcome: &Outcome<'_>, context: &SharedContext) {
        if self.has_object
            && self.last_at.is_none_or(|at| at.elapsed() >= WRITE_INTERVAL)
            && let Err(error) = self.write(outcome, context).await
        {
            warn!(%error, "could not show progress");
        }
    }

    /// Writes the status, if it changes.
    pub async fn write(
        &mut self,
        outcome: &Outcome<'_>,
        context: &SharedContext,
    ) -> Result<(), ReconcileError> {
        let subject = outcome.subject;
        let tenant = subject.tenant;
        if outcome.progress.has_done(Step::ReleaseFinalizer) {
            context.state.latest_status.forget(tenant);
            context.state.retries.forget(tenant);
            let closed =
                subject.recorded_status().is_none_or(|status| status == RegistryStatus::Deprovisioned);
            let state = if closed { TenantState::Deprovisioned } else { TenantState::Deprovisioning };
            report_transition(self.last.state, state, outcome, context);
            report_deprovisioning(outcome, context);
            return Ok(());
        }
        let status = next_status(outcome, module_statuses(outcome, context), context.clock.now());
        if same(&self.last, &status) {
            return Ok(());
        }
        let api = Api::<Tenant>::namespaced(context.client.clone(), &tenant.namespace().unwrap_or_default());
        // Without metadata, the object does not exist any more, or another one has its name.
        if let Some(written) = apply_status(&api, tenant, &status).await.map_err(ReconcileError)? {
            context.state.latest_status.remember(&written, status.clone());
        }
        report_transition(
            self.last.state,
            status.state.unwrap_or(TenantState::Provisioning),
            outcome,
            context,
        );
        if !outcome.progress.is_running() {
            report_access(&status, outcome, context);
            report_deprovisioning(outcome, context);
            report_limits(&status, outcome, context).await;
        }
        self.last = status;
        self.last_at = Some(Instant::now());
        Ok(())
    }
}

/// Publishes an Event for a tombstone that was recorded, and for a finalizer that was released before revocation of access
/// was verified.
fn report_deprovisioning(outcome: &Outcome<'_>, context: &SharedContext) {
    let record = outcome.subject.record.as_ref();
    let Some(record) = record.filter(|record| record.status == RegistryStatus::Deprovisioning) else {
        return;
    };
    let about = outcome.subject.tenant.object_ref(&());
    let released = outcome.progress.has_done(Step::ReleaseFinalizer);
    if record.access != Some(AccessLevel::Blocked) && released {
        let note = format!("finalizer released; {}", deprovisioning_terms(record));
        context.events.warning(about, "Release", Reason::AccessNotCut, note);
    } else if outcome.progress.has_done(Step::Tombstone) {
        context.events.normal(about, "Tombstone", Reason::GracePeriod, deprovisioning_terms(record));
    }
}

/// Publishes an Event for a change of access that is no transition: from ReadOnly to Blocked, or access that is verified
/// again. That it is not known is a failure, which has its own Event.
fn report_access(status: &TenantStatus, outcome: &Outcome<'_>, context: &SharedContext) {
    let previous = &outcome.subject.previous;
    let (Some(state), Some(access), Some(before)) = (status.state, status.access, previous.access) else {
        return;
    };
    if previous.state != Some(state) || access == before || access == Access::Unknown {
        return;
    }
    let why = match state {
        TenantState::Suspended => {
            outcome.subject.record.as_ref().and_then(|record| record.status_reason.as_deref())
        }
        _ => None,
    };
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let note = format!("access is {access}, and was {before}{why}");
    let note = with_actor(note, outcome.subject.record.as_ref());
    context.events.normal(outcome.subject.tenant.object_ref(&()), "ChangeAccess", state.into(), note);
}

/// What happens to a tenant that is being deprovisioned, for the Event.
fn deprovisioning_terms(record: &TenantRecord) -> String {
    let access = match record.access {
        Some(AccessLevel::Blocked) => "access is revoked",
        _ => "revocation of access is not verified yet and is retried",
    };
    let database = &record.placement.database;
    if let Some(holds) = record.legal_holds() {
        return format!("{access}; database {database} is kept by {holds}");
    }
    match record.terms() {
        Some(PurgeTerms { retain: true, .. }) => format!("{access}; database {database} is retained"),
        Some(PurgeTerms { held: true, .. }) => format!("{access}; spec.paused holds the purge"),
        Some(terms) => format!(
            "{access}; database {database} is dropped after {:.0}: until then, apply the same Tenant again to restore it",
            terms.purge_after
        ),
        None => access.to_owned(),
    }
}

/// Publishes an Event when usage comes near a limit, exceeds one, or is below all of them again, and records which limits
/// were reported.
async fn report_limits(status: &TenantStatus, outcome: &Outcome<'_>, context: &SharedContext) {
    let (Some(record), Some(condition)) =
        (&outcome.subject.record, find_condition(&status.conditions, WITHIN_LIMITS))
    else {
        return;
    };
    let Some(change) = usage::change(record, &outcome.subject.previous) else { return };
    let about = outcome.subject.tenant.object_ref(&());
    let note = condition.message.clone();
    match change.notice {
        Some(usage::LimitNotice::Exceeded) => {
            context.events.warning(about, "Measure", Reason::LimitExceeded, note);
        }
        Some(usage::LimitNotice::Near) => context.events.warning(about, "Measure", Reason::NearLimit, note),
        Some(usage::LimitNotice::Cleared) => {
            context.events.normal(about, "Measure", Reason::WithinLimits, note);
        }
        None => {}
    }
    context.state.warned_limits.set(record.id, &change.warned);
    if change.warned != record.warned_limits {
        let recorded = context.registry.record_warned_limits(record.id, &change.warned);
        // A lost connection would keep the tenant's lock for ever.
        let recorded = timeout(REGISTRY_TIMEOUT, recorded).await.unwrap_or(Err(registry::Error::NoAnswer));
        if let Err(error) = recorded {
            warn!(%error, "could not record which limits were reported; the Event will be repeated");
        }
        context.state.snapshot.forget(&record.resource_uid);
    }
}

/// Publishes an Event for a transition, and for a failure with a new reason.
fn report_transition(
    before: Option<TenantState>,
    after: TenantState,
    outcome: &Outcome<'_>,
    context: &SharedContext,
) {
    let subject = outcome.subject;
    let about = subject.tenant.object_ref(&());
    if before != Some(after) {
        info!(from = before.map(|state| state.as_str()), to = after.as_str(), "state changed");
        let note = with_actor(transition_note(subject.record.as_ref(), after), subject.record.as_ref());
        context.events.normal(about.clone(), "Transition", after.into(), note);
    }
    if before != Some(after)
        && outcome.progress.has_done(Step::Activate)
        && let Some(activated_at) = subject.record.as_ref().and_then(|record| record.activated_at)
        && let Some(at) = past_trial_end(subject.tenant, activated_at)
    {
        let note = describe_past_trial_end(at);
        context.events.warning(about.clone(), "Activate", Reason::TrialAlreadyEnded, note);
    }
    if let Some((reason, message)) = Summary::of(outcome).failure() {
        // The same failure was published when the status first showed it.
        let ready = find_condition(&subject.previous.conditions, READY);
        if ready.is_none_or(|ready| ready.reason != reason) {
            context.events.warning(about, "Reconcile", reason, message.to_owned());
        }
    }
}

/// A note with who changed the status on record. The actor is not what is cut off from a long one.
fn with_actor(mut note: String, record: Option<&TenantRecord>) -> String {
    let Some(record) = record else { return note };
    let actor = format!("; changed by {}", record.status_updated_by);
    note.truncate(note.floor_char_boundary(MAX_NOTE_BYTES.saturating_sub(actor.len())));
    note + &actor
}

fn transition_note(record: Option<&TenantRecord>, state: TenantState) -> String {
    let Some(record) = record else { return format!("the tenant is {}", state.as_str()) };
    let (database, server) = (&record.placement.database, &record.placement.server);
    match state {
        TenantState::Active | TenantState::Trial => {
            format!("database {database} on server {server} is in use")
        }
        TenantState::Suspended => {
            let why = record.status_reason.as_deref().unwrap_or("no reason is recorded");
            format!("access is {}: {why}", record.access.map_or("Unknown", AccessLevel::as_str))
        }
        TenantState::Deprovisioned if record.retain => {
            format!("database {database} on server {server} is retained without access")
        }
        TenantState::Deprovisioned => format!("database {database} is dropped"),
        TenantState::Deprovisioning => "access is being revoked".to_owned(),
        TenantState::Provisioning | TenantState::Failed => format!("the tenant is {}", state.as_str()),
    }
}
