//! The reconcile of a Tenant: load → observe → plan → execute → status.
//!
//! [`load`] reads the row and evaluates the spec; [`converge`] observes, plans and executes; the status is computed from the
//! outcome. Everything is planned from what was observed, never from what a status
//! shows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt, runtime::controller::Action};
use tracing::{Instrument, warn};

use super::{
    converge::{Converged, converge},
    declaration::record_changes,
    failure::{api_reason, retry_after},
    load::{Loaded, load, tenant_object},
    read::read_tenant,
    requeue::{conflict_is_resolved, next_reconcile, next_tombstone_reconcile, requeue_at, set_timer},
    slots::wait_for_slot,
    span,
    status_writer::{ReconcileError, StatusWriter},
};
use crate::{
    api::tenant::Tenant,
    controller::{
        context::SharedContext,
        state::servers::Slot,
        tenant_account::{
            in_force::in_force,
            settle::{is_misplaced, settle},
            show::show,
        },
    },
    domain::{
        backoff,
        status::{Obstacle, Outcome, Summary},
        workflow::{BlockedReason, ObjectState, attempt::Progress},
    },
    telemetry::tenant_span,
    traces,
};

/// Reconciles a Tenant.
pub async fn reconcile(tenant: Arc<Tenant>, context: SharedContext) -> Result<Action, ReconcileError> {
    let span = tenant_span(&tenant.namespace().unwrap_or_default(), &tenant.name_any());
    context.state.plan_rollout.begun(&tenant);
    context.state.server_rollouts.begun(&tenant);
    context.state.module_rollouts.begun_in_turn(&tenant);
    let work = reconcile_tenant(tenant.clone(), &context).instrument(span);
    let (namespace, name) = (tenant.namespace().unwrap_or_default(), tenant.name_any());
    let result = traces::reconcile("Tenant", &namespace, &name, work).await;
    context.state.server_rollouts.ended(&tenant);
    context.state.module_rollouts.ended(&tenant);
    if context.state.plan_rollout.ended(&tenant) {
        context.state.plans_changed.notify_one();
    }
    result
}

/// When to try again after even the status could not be written.
pub fn after_error(_: Arc<Tenant>, error: &ReconcileError, context: SharedContext) -> Action {
    warn!(%error, "reconcile failed");
    context.metrics.reconcile_failed(api_reason(&error.0).as_str());
    Action::requeue(backoff::temporary(3, rand::random()).max(retry_after(&error.0).unwrap_or_default()))
}

async fn reconcile_tenant(tenant: Arc<Tenant>, context: &SharedContext) -> Result<Action, ReconcileError> {
    let started = Instant::now();
    let (mut slot, tenant) = wait_for_slot(tenant, context).await;
    let tenant = tenant.as_ref();
    let key = (tenant.namespace().unwrap_or_default(), tenant.name_any());
    let _lock = context.state.tenant_locks.take(key).await;
    let object = tenant_object(tenant);
    if object.state != ObjectState::Present && !object.has_finalizer {
        return Ok(Action::await_change());
    }

    let (counted, read) = read_tenant(tenant, context).await;
    let loaded = load(read, &counted, tenant, object, context).await;
    if let Some(at) = postponed_until(&loaded, context).await {
        set_timer(&loaded.subject, context).await;
        return Ok(requeue_at(at, context.clock.now()));
    }

    let mut status = StatusWriter::new(loaded.subject.previous.clone());
    let mut converged = act(loaded, &mut slot, context, &mut status).await;
    // Changes that led to no work too.
    if let Err(error) = record_changes(&mut converged.subject, None, context).await {
        warn!(%error, "could not record the changes of the spec; the next reconcile does");
    }
    // A tenant has one from its activation on, and with a new slug, at another place.
    if let Some(row) = &mut converged.subject.record
        && (converged.subject.account.is_none() || is_misplaced(row))
    {
        converged.subject.account = settle(tenant, row, context).await;
    }

    let outcome = converged.outcome();
    let summary = Summary::of(&outcome);
    span::describe(&converged.subject, &summary);
    let written = status.write(&outcome, context).await;
    if let Some(record) = &converged.subject.record {
        // Nothing is kept of a row that is no tombstone.
        context.state.tombstones.record(record, next_tombstone_reconcile(&outcome, context));
    }
    if converged.subject.record.is_some() || converged.unread.is_none() {
        set_timer(&converged.subject, context).await;
    }
    context.metrics.reconciled(summary.as_str(), started.elapsed());
    let failure = summary.failure().map(|(reason, _)| reason);
    context.state.retries.record_result(tenant, failure);
    if let Some(reason) = failure {
        context.metrics.reconcile_failed(reason.as_str());
    }
    let next = next_reconcile(&outcome, &summary, context.clock.now());
    let after_account = show_account(&outcome, &counted, context).await;
    written?;
    Ok(if next == Action::await_change() { after_account } else { next })
}

/// Shows the tenant in its account. Returns when a tenant is reconciled again of which nothing else is left to do: if its
/// account is not there yet, or counts only since its row is known.
async fn show_account(outcome: &Outcome<'_>, counted: &Tenant, context: &SharedContext) -> Action {
    let subject = outcome.subject;
    let shown = show(outcome, context).await;
    if let Err(error) = &shown {
        warn!(%error, "could not write the status of a TenantAccount; it is tried again");
    }
    let account = subject.account.as_ref();
    if shown.is_err() || account.is_some_and(|account| account.situation.is_pending()) {
        return Action::requeue(backoff::temporary(5, rand::random()));
    }
    // Without a row, it may have counted as its former one did, and does so the next time too.
    let has_other = subject
        .record
        .as_ref()
        .is_some_and(|record| in_force(subject.declared, Some(record), context).spec != counted.spec);
    match has_other {
        true => Action::requeue(Duration::from_millis(100)),
        false => Action::await_change(),
    }
}

/// Until when a failed tenant waits. Restricting access waits for nothing.
async fn postponed_until(loaded: &Loaded<'_>, context: &SharedContext) -> Option<Timestamp> {
    let subject = &loaded.subject;
    let (record, now) = (subject.record.as_ref(), context.clock.now());
    let at = context.state.retries.wait(subject.tenant, &subject.previous, record, now)?;
    (!subject.must_narrow() && !conflict_is_resolved(subject, context).await).then_some(at)
}

/// Acts on what was loaded, as far as the registry and the spec allow.
async fn act<'a>(
    loaded: Loaded<'a>,
    slot: &mut Slot,
    context: &SharedContext,
    status: &mut StatusWriter,
) -> Converged<'a> {
    let Loaded { subject, spec_error, registry_error } = loaded;
    let mut converged = match registry_error {
        None => converge(subject, slot, context, status).await,
        Some(error) => Converged {
            subject,
            progress: Progress::default(),
            obstacle: Some(Obstacle::Blocked(BlockedReason::RegistryUnknown(error.to_string()))),
            unread: Some(error.reason()),
        },
    };
    if let Some(error) = spec_error.filter(|_| shows_spec_error(&converged)) {
        converged.obstacle = Some(Obstacle::InvalidSpec(error));
    }
    converged
}

/// An invalid spec is reported unless something else blocks the tenant, or a step failed that did not depend on the spec.
fn shows_spec_error(converged: &Converged<'_>) -> bool {
    let registry_unknown =
        matches!(&converged.obstacle, Some(Obstacle::Blocked(BlockedReason::RegistryUnknown(_))));
    (registry_unknown || converged.obstacle.is_none())
        && (converged.subject.desired.is_none() || converged.progress.failure().is_none())
}
