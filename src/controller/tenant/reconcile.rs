//! The driver: one visit to one Tenant, from what is read to the status that is written.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt, runtime::controller::Action};
use tokio::time::timeout;
use tracing::{Instrument, warn};

use super::{
    conditions::Summary,
    execute::{Order, execute},
    failure::{api_reason, rest},
    holds::settle_own,
    observe::{LIMIT, Seen, observe, row},
    report::{ReconcileError, StatusWriter},
    secrets,
    standing::warn as warn_of_end,
    tombstones,
    visit::{Failure, Obstacle, Visit, WorkflowRun},
};
use crate::{
    api::{
        FINALIZER,
        conditions::{READY, find_condition, reason},
        tenant::Tenant,
        tenant_status::{TenantState, WorkflowKind},
    },
    controller::{
        context::{Context, SharedContext},
        servers::Work,
    },
    domain::{
        access::AccessLevel,
        backoff,
        breaker::Moment,
        departure::Terms,
        desired::{self, DEFAULT_SERVER, Invalid},
        identity::TenantId,
        limits::Entitlements,
        observed::RegistryStatus,
        plan::{Blocked, ObjectFacts, Plan, Presence, Wanted, plan_leaving, plan_living, plan_narrowing},
        steps::Step,
    },
    registry::{Outcome, TenantRow},
    telemetry::tenant_span,
};

/// Visits a Tenant.
pub async fn reconcile(tenant: Arc<Tenant>, context: SharedContext) -> Result<Action, ReconcileError> {
    let span = tenant_span(&tenant.namespace().unwrap_or_default(), &tenant.name_any());
    let started = Instant::now();
    async move {
        context.rollout.begun(&tenant);
        let (visit, written) = visit(&tenant, &context).await;
        if context.rollout.ended(&tenant) {
            context.plan_news.notify_one();
        }
        if let Some(at) = visit.waits_until {
            return Ok(Action::requeue(until(at, context.clock.now())));
        }
        let summary = Summary::of(&visit);
        let outcome = outcome(&summary);
        context.metrics.reconciled(outcome, started.elapsed());
        if let Summary::Waiting { reason, .. } | Summary::Stuck { reason, .. } = &summary {
            context.metrics.reconcile_failed(reason);
        }
        written?;
        Ok(next_visit(&visit, &summary, context.clock.now()))
    }
    .instrument(span)
    .await
}

/// What to do when even the status could not be written.
pub fn after_error(_: Arc<Tenant>, error: &ReconcileError, context: SharedContext) -> Action {
    warn!(%error, "visit failed");
    context.metrics.reconcile_failed(api_reason(&error.0));
    Action::requeue(backoff::temporary(3, rand::random()).max(rest(&error.0).unwrap_or_default()))
}

async fn visit<'a>(tenant: &'a Tenant, context: &SharedContext) -> (Visit<'a>, Result<(), ReconcileError>) {
    let server = tenant.spec.server.as_deref().unwrap_or(DEFAULT_SERVER);
    let kind = if has_failed(tenant) { Work::Failed } else { Work::Tenants };
    let _place = context.servers.place(server, kind, context.concurrency).await;
    let _turn = context.turns.take((tenant.namespace().unwrap_or_default(), tenant.name_any())).await;
    let mut object =
        ObjectFacts { unverified: context.attempts.is_unverified(tenant), ..object_facts(tenant) };
    let mut visit = Visit::new(tenant, context.written.newest(tenant), object.presence);
    object.was_registered = visit.before.tenant_id.is_some();
    // What a restore took away is not forgotten with the process that saw it.
    let told = find_condition(&visit.before.conditions, READY).map(|ready| ready.reason.as_str());
    object.unverified |= told == Some(reason::SCHEMA_BEHIND);
    visit.unverified = object.unverified;
    let living = object.presence == Presence::Living;
    if !living && !object.has_finalizer {
        return (visit, Ok(()));
    }
    ignored_change(&visit, context);
    match row(tenant, context).await {
        Ok(row) => visit.row = row,
        Err(error) => {
            visit.unseen = Some(error.reason());
            visit.obstacle = Some(Obstacle::Blocked(Blocked::RegistryUnknown(error.to_string())));
        }
    }
    let mut invalid = None;
    if living {
        match desired::desired(tenant, context.as_ref()) {
            Ok(desired) => visit.desired = Some(desired),
            // Going away needs no valid spec.
            Err(_) if visit.is_leaving() => {}
            Err(error) => invalid = Some(error),
        }
    }
    visit.judge(context);
    if let Err(error) = settle_own(&mut visit, context).await {
        warn!(%error, "the operator's own holds stay as they are for now");
    }
    visit.judge(context);
    invalid = invalid.or_else(|| unusable_plan(&mut visit, context));
    let mut status = StatusWriter::new(visit.before.clone());
    let now = context.clock.now();
    visit.waits_until = context.attempts.wait(tenant, &visit.before, visit.row.as_ref(), now);
    // What is to be taken does not wait for what failed.
    let in_use = visit.row.as_ref().filter(|row| row.status.was_active() && !visit.is_leaving());
    let narrows =
        in_use.is_some_and(|row| visit.wanted_access() < row.access.unwrap_or(AccessLevel::ReadWrite));
    if visit.waits_until.is_some() && !narrows && !conflict_is_over(&visit, context).await {
        look_ahead(&visit, context).await;
        return (visit, Ok(()));
    }
    visit.waits_until = None;
    let registry_is_away = visit.obstacle.is_some();
    if object.was_registered && visit.row.is_none() && has_row(&visit, context).await {
        // Bound to another object of this name: it is not lost, and registering finds it.
        object.was_registered = false;
    }
    if !registry_is_away {
        work(&mut visit, object, context, &mut status).await;
    }
    if let Some(invalid) = invalid
        && (registry_is_away || visit.obstacle.is_none())
        && (visit.desired.is_none() || visit.failure().is_none())
    {
        visit.obstacle = Some(Obstacle::Invalid(invalid));
    }
    let written = status.write(&visit, context).await;
    if let Some(row) = &visit.row {
        context.tombstones.see(row, next_look(&visit, context));
    }
    look_ahead(&visit, context).await;
    (visit, written)
}

/// A plan that a trial's end puts in force, and that does not exist, or a plan that leaves open what the tenant does not
/// say, or names a module that is not there: the tenant stays as it is. In the latter cases one that was handed out keeps
/// what it was given, and everything else goes on.
fn unusable_plan(visit: &mut Visit<'_>, context: &SharedContext) -> Option<Invalid> {
    if visit.is_leaving() {
        return None;
    }
    let plan = &visit.standing.as_ref()?.plan;
    visit.desired.as_ref()?;
    let invalid = match context.entitlements(visit.tenant, plan) {
        Some(Ok(_)) => return None,
        Some(Err(invalid)) => invalid,
        None => Invalid::TrialPlanNotFound { plan: plan.clone(), of: visit.tenant.spec.plan.clone() },
    };
    let keeps = matches!(invalid, Invalid::LimitNotSet(_) | Invalid::ModuleNotFound(_))
        && visit.row.as_ref().is_some_and(|row| row.status.was_active());
    if !keeps {
        visit.desired = None;
    }
    Some(invalid)
}

/// What time alone will change is met when it comes, and told before.
async fn look_ahead(visit: &Visit<'_>, context: &SharedContext) {
    if visit.row.is_none() && visit.unseen.is_some() {
        // The registry is away: what is known already counts.
        return;
    }
    let standing = visit.standing.as_ref().filter(|_| !visit.is_leaving());
    context.alarms.set(visit.tenant, standing.and_then(|standing| standing.changes_at));
    if standing.is_some()
        && let Err(error) = warn_of_end(visit, context).await
    {
        warn!(%error, "that somebody was warned of an end is not recorded: the Event comes again");
    }
}

/// Whether the last attempt failed: such a tenant makes way for those that have not failed.
fn has_failed(tenant: &Tenant) -> bool {
    let workflow = tenant.status.as_ref().and_then(|status| status.workflow.as_ref());
    workflow.is_some_and(|workflow| workflow.next_attempt_at.is_some())
}

/// Whether a Secret was in the tenant's way and no longer is. A process that began after that watches it from here on.
async fn conflict_is_over(visit: &Visit<'_>, context: &SharedContext) -> bool {
    let told = find_condition(&visit.before.conditions, READY);
    let told = told.is_some_and(|ready| ready.reason == reason::SECRET_CONFLICT);
    let (true, Some(desired), Some(row)) = (told, &visit.desired, &visit.row) else { return false };
    let admin_secret = (!desired.admins.is_empty()).then_some(&desired.admin_secret);
    let namespace = visit.tenant.namespace().unwrap_or_default();
    for name in [&desired.connection_secret].into_iter().chain(admin_secret) {
        if let Err(error) = secrets::find(context, &namespace, name, row).await {
            context.watch_conflict(visit.tenant, &error);
            return false;
        }
    }
    true
}

/// Whether the tenant that the status names is in the registry, whatever object it is bound to.
async fn has_row(visit: &Visit<'_>, context: &SharedContext) -> bool {
    let id = visit.before.tenant_id.as_deref().and_then(|id| uuid::Uuid::try_parse(id).ok());
    let Some(id) = id.map(TenantId) else { return false };
    matches!(timeout(LIMIT, context.registry.by_id(id)).await, Ok(Ok(Some(_))))
}

/// Says so when somebody changes the spec of a Tenant that is being deleted: it does not come back by that.
fn ignored_change(visit: &Visit<'_>, context: &SharedContext) {
    let generation = visit.tenant.metadata.generation;
    let known = visit.before.state == Some(TenantState::Deprovisioning)
        && visit.before.observed_generation.is_some_and(|seen| Some(seen) < generation);
    // A deletion is a change of its own.
    if visit.presence != Presence::Living && context.attempts.was_deleted(visit.tenant) && known {
        context.events.warning(
            visit.tenant.object_ref(&()),
            "Reconcile",
            "ChangeIgnored",
            "this Tenant is being deleted, and no change of its spec brings it back: to undo the deletion, apply the same Tenant again when this object is gone; only offboarding, deletionPolicy and paused still count".into(),
        );
    }
}

/// Observes, plans and executes until there is nothing more to do, or something is in the way.
pub async fn work(
    visit: &mut Visit<'_>,
    object: ObjectFacts,
    context: &SharedContext,
    status: &mut StatusWriter,
) {
    loop {
        let Seen { observed, server, not_ready } = observe(visit, context).await;
        let plan = match &visit.desired {
            Some(desired) if !visit.is_leaving() => {
                let seed_digest = desired.seed_digest();
                plan_living(object_now(object, visit), wanted(visit, &seed_digest), &observed)
            }
            None if !visit.is_leaving() => plan_narrowing(object, wanted(visit, ""), &observed),
            _ => {
                let moment = Moment { now: context.clock.now(), purges: context.breaker.purges() };
                plan_leaving(object_now(object, visit), terms(visit, context, moment.now), &observed, moment)
            }
        };
        match plan {
            Plan::Nothing => {
                settle(visit, context).await;
                return;
            }
            Plan::Blocked(Blocked::ServerUnknown(why)) if not_ready => {
                visit.obstacle = Some(Obstacle::ServerNotReady { message: why });
                return;
            }
            Plan::Blocked(blocked) => {
                visit.obstacle = Some(Obstacle::Blocked(blocked));
                return;
            }
            Plan::Run { kind, steps, again } => {
                let drift = std::mem::take(&mut visit.drift);
                execute(visit, Order { kind, steps: &steps, again }, server, context, status).await;
                if kind == WorkflowKind::Repair && !drift.is_empty() && visit.failure().is_none() {
                    let about = visit.tenant.object_ref(&());
                    let note = format!("changed by hand, and put right: {}", drift.join("; "));
                    context.events.warning(about, "Repair", "DriftRepaired", note);
                }
                // What a failed first provisioning made is removed in the same visit.
                let roll_back =
                    visit.row.as_ref().is_some_and(|row| row.rolling_back) && kind == WorkflowKind::Provision;
                if !roll_back && (visit.failure().is_some() || !again) {
                    return;
                }
            }
        }
    }
}

/// What a tenant that lives should be.
fn wanted<'a>(visit: &Visit<'_>, seed_digest: &'a str) -> Wanted<'a> {
    let state = visit.standing.as_ref().map_or(RegistryStatus::Suspended, |standing| standing.state);
    let recorded = visit.row.as_ref().and_then(|row| row.entitlements.as_ref());
    let connections = visit.entitlements.as_ref().or(recorded).map_or(-1, Entitlements::connections);
    Wanted { seed_digest, access: visit.wanted_access(), connections, state }
}

/// All is done; a process that was killed before it could say so left its workflow open, or a status without it.
async fn settle(visit: &mut Visit<'_>, context: &SharedContext) {
    if let Some(workflow) = visit.workflow.as_ref().filter(|_| visit.failure().is_none()) {
        // There was to be more, and there is nothing.
        if let Err(error) = context.registry.finish_workflow(&workflow.record, Outcome::Succeeded).await {
            warn!(%error, "the workflow is left open until the next visit");
        }
        return;
    }
    let untold = visit.before.workflow.is_none();
    let open = visit.row.as_ref().filter(|row| row.has_open_workflow || untold);
    let Some(row) = open.filter(|_| visit.workflow.is_none()) else { return };
    match context.registry.settle_workflow(row.id).await {
        Ok(Some((kind, record))) => {
            let known = WorkflowKind::ALL.iter().find(|known| known.as_str() == kind);
            visit.workflow = known.map(|&kind| WorkflowRun { kind, record, first: visit.steps.len() });
        }
        Ok(None) => {}
        Err(error) => {
            warn!(%error, "the workflow's history is not complete: the registry did not take it");
        }
    }
}

fn object_facts(tenant: &Tenant) -> ObjectFacts {
    ObjectFacts {
        has_finalizer: tenant.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
        presence: tenant
            .meta()
            .deletion_timestamp
            .as_ref()
            .map_or(Presence::Living, |at| Presence::Deleted(at.0)),
        paused: desired::is_paused(tenant),
        ..ObjectFacts::default()
    }
}

/// The terms on which a tenant goes away: as its object and its plan say while it exists, then as recorded.
fn terms(visit: &Visit<'_>, context: &SharedContext, now: Timestamp) -> Terms {
    let row = visit.row.as_ref();
    match row.and_then(TenantRow::terms) {
        Some(recorded) if visit.presence == Presence::Gone => recorded,
        recorded => {
            let began = row.and_then(|row| row.deprovisioned_at).unwrap_or(now);
            let handed_out = row.is_some_and(|row| row.activated_at.is_some());
            visit.departure(context).terms(began, handed_out, recorded)
        }
    }
}

/// The object's facts in a later round of the same visit: what this visit did to it counts.
fn object_now(object: ObjectFacts, visit: &Visit<'_>) -> ObjectFacts {
    ObjectFacts { has_finalizer: object.has_finalizer || visit.has_done(Step::ClaimFinalizer), ..object }
}

fn outcome(summary: &Summary) -> &'static str {
    match summary {
        Summary::InForce => "in_force",
        Summary::Working { .. } => "working",
        Summary::Waiting { .. } => "waiting",
        Summary::Stuck { .. } => "stuck",
        Summary::Paused => "paused",
    }
}

fn next_visit(visit: &Visit<'_>, summary: &Summary, now: Timestamp) -> Action {
    match summary {
        Summary::InForce | Summary::Paused => Action::await_change(),
        // Something that was to be done in this visit was not: at once.
        Summary::Working { .. } => Action::requeue(Duration::from_millis(100)),
        Summary::Waiting { .. } => match visit.next_attempt_at {
            Some(at) => Action::requeue(until(at, now)),
            // A watch resolves these; the slow look is for a watch that missed something.
            None if matches!(visit.obstacle, Some(Obstacle::Invalid(_))) => {
                Action::requeue(backoff::PERMANENT)
            }
            None => Action::requeue(backoff::temporary(4, rand::random())),
        },
        Summary::Stuck { .. } => Action::requeue(backoff::PERMANENT),
    }
}

/// When a tombstone is looked at again, if its time has come and it is there all the same: a failure waits as long as it
/// says, what is in the way for a while; only what was just recorded is acted on at once.
pub fn next_look(visit: &Visit<'_>, context: &Context) -> Option<Timestamp> {
    let now = context.clock.now();
    let row = visit.row.as_ref()?;
    let uncut = row.access != Some(AccessLevel::Blocked);
    let due = uncut || row.terms().is_some_and(|terms| !terms.held && terms.purge_after <= now);
    let wait = match () {
        () if visit.next_attempt_at.is_some() || !due => return visit.next_attempt_at,
        () if visit.obstacle.is_some() => backoff::temporary(4, rand::random()),
        () if visit.has_done(Step::Tombstone) && !uncut => return None,
        () => tombstones::AGAIN.unsigned_abs(),
    };
    Some(now + SignedDuration::try_from(wait).unwrap_or(SignedDuration::ZERO))
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

/// When the next attempt is, after `attempt` failed ones: not before the other side wants to be asked again.
pub fn next_attempt(attempt: i32, failure: &Failure, context: &SharedContext) -> Timestamp {
    let wait = if failure.permanent {
        backoff::PERMANENT
    } else {
        backoff::temporary(u32::try_from(attempt).unwrap_or(1), rand::random())
    };
    let wait = wait.max(failure.rest.unwrap_or_default());
    context.clock.now() + SignedDuration::try_from(wait).unwrap_or(SignedDuration::ZERO)
}
