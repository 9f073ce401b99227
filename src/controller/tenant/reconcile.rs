//! The driver: one visit to one Tenant, from what is read to the status that is written.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::json;
use tokio::time::timeout;
use tracing::{Instrument, info, warn};

use super::{
    conditions::Summary,
    execute::{Order, execute},
    observe::{LIMIT, Seen, module_statuses, observe, row},
    status::{next_status, same},
    tombstones,
    visit::{Obstacle, Visit, WorkflowRun},
};
use crate::{
    api::{
        FINALIZER,
        conditions::{READY, find_condition, reason},
        tenant::Tenant,
        tenant_status::{TenantState, TenantStatus, WorkflowKind},
    },
    controller::{
        context::{Context, SharedContext},
        servers::Work,
    },
    domain::{
        access::AccessLevel,
        backoff,
        departure::Terms,
        desired::{self, DEFAULT_SERVER},
        identity::TenantId,
        observed::RegistryStatus,
        plan::{Blocked, ObjectFacts, Plan, Presence, plan_leaving, plan_living},
        steps::Step,
    },
    registry::TenantRow,
    telemetry::tenant_span,
};

/// Field manager of the status. There is one writer.
const STATUS_MANAGER: &str = "tenantry/status";

/// A visit's own failure: the status could not be written. Everything else is in the status.
#[derive(Debug, thiserror::Error)]
#[error("could not write the status: {0}")]
pub struct ReconcileError(#[source] kube::Error);

/// Visits a Tenant.
pub async fn reconcile(tenant: Arc<Tenant>, context: SharedContext) -> Result<Action, ReconcileError> {
    let span = tenant_span(&tenant.namespace().unwrap_or_default(), &tenant.name_any());
    let started = Instant::now();
    async move {
        let (visit, written) = visit(&tenant, &context).await;
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
    context.metrics.reconcile_failed(reason::KUBERNETES_API_ERROR);
    Action::requeue(backoff::temporary(3, rand::random()))
}

async fn visit<'a>(tenant: &'a Tenant, context: &SharedContext) -> (Visit<'a>, Result<(), ReconcileError>) {
    let server = tenant.spec.server.as_deref().unwrap_or(DEFAULT_SERVER);
    let _place = context.servers.place(server, Work::Tenants, context.concurrency).await;
    let _turn = context.turns.take((tenant.namespace().unwrap_or_default(), tenant.name_any())).await;
    let mut object =
        ObjectFacts { unverified: context.attempts.is_unverified(tenant), ..object_facts(tenant) };
    let mut visit = Visit::new(tenant, context.written.newest(tenant), object.presence);
    object.was_registered = visit.before.tenant_id.is_some();
    let living = object.presence == Presence::Living;
    if !living && !object.has_finalizer {
        return (visit, Ok(()));
    }
    ignored_change(&visit, context);
    if living {
        match desired::desired(tenant, context.as_ref()) {
            Ok(desired) => visit.desired = Some(desired),
            // Going away needs no valid spec.
            Err(_) if visit.is_leaving() => {}
            Err(invalid) => visit.obstacle = Some(Obstacle::Invalid(invalid)),
        }
    }
    let mut status = StatusWriter::new(visit.before.clone());
    if visit.obstacle.is_none() {
        visit.row = row(tenant, context).await.ok().flatten();
        let now = context.clock.now();
        visit.waits_until = context.attempts.wait(tenant, &visit.before, visit.row.as_ref(), now);
        if visit.waits_until.is_some() {
            return (visit, Ok(()));
        }
    }
    if object.was_registered && visit.row.is_none() && has_row(&visit, context).await {
        // Bound to another object of this name: it is not lost, and registering finds it.
        object.was_registered = false;
    }
    if visit.obstacle.is_none() {
        work(&mut visit, object, context, &mut status).await;
    } else {
        // For its names only: what the spec asks for is not acted on.
        visit.row = row(tenant, context).await.ok().flatten();
    }
    let written = status.write(&visit, context).await;
    if let Some(row) = &visit.row {
        context.tombstones.see(row, next_look(&visit, context));
    }
    (visit, written)
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
    if known && visit.presence != Presence::Living {
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
                plan_living(object_now(object, visit), &desired.seed_digest(), &observed)
            }
            _ => {
                plan_leaving(object_now(object, visit), terms(visit, context), &observed, context.clock.now())
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

/// All is done; a process that was killed before it could say so left its workflow open, or a status without it.
async fn settle(visit: &mut Visit<'_>, context: &SharedContext) {
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
fn terms(visit: &Visit<'_>, context: &SharedContext) -> Terms {
    let row = visit.row.as_ref();
    match row.and_then(TenantRow::terms) {
        Some(recorded) if visit.presence == Presence::Gone => recorded,
        recorded => {
            let began = row.and_then(|row| row.deprovisioned_at).unwrap_or_else(|| context.clock.now());
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

/// When the next attempt is, after `attempt` failed ones.
pub fn next_attempt(attempt: i32, permanent: bool, context: &SharedContext) -> Timestamp {
    let wait = if permanent {
        backoff::PERMANENT
    } else {
        backoff::temporary(u32::try_from(attempt).unwrap_or(1), rand::random())
    };
    context.clock.now() + SignedDuration::try_from(wait).unwrap_or(SignedDuration::ZERO)
}

/// Writes the status when it says something new, and at most once a second while a workflow runs.
pub struct StatusWriter {
    /// Whether there is an object to write to.
    heard: bool,
    last: TenantStatus,
    last_at: Option<Instant>,
}

/// The least time between two writes while a workflow runs.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

impl StatusWriter {
    fn new(before: TenantStatus) -> Self {
        Self { heard: true, last: before, last_at: None }
    }

    /// One that writes nothing: for a tenant whose object is gone.
    pub fn silent() -> Self {
        Self { heard: false, last: TenantStatus::default(), last_at: None }
    }

    /// Writes progress, if there was no write within the last second. A failure is not worth stopping the work for:
    /// the last write of the visit tells it all again.
    pub async fn progress(&mut self, visit: &Visit<'_>, context: &SharedContext) {
        if self.heard
            && self.last_at.is_none_or(|at| at.elapsed() >= WRITE_INTERVAL)
            && let Err(error) = self.write(visit, context).await
        {
            warn!(%error, "progress is not shown");
        }
    }

    async fn write(&mut self, visit: &Visit<'_>, context: &SharedContext) -> Result<(), ReconcileError> {
        let tenant = visit.tenant;
        if visit.has_done(Step::ReleaseFinalizer) {
            context.written.forget(tenant);
            context.attempts.forget(tenant);
            let gone = visit.row.as_ref().is_none_or(|row| row.status == RegistryStatus::Deprovisioned);
            let state = if gone { TenantState::Deprovisioned } else { TenantState::Deprovisioning };
            tell(self.last.state, state, visit, context);
            return Ok(());
        }
        let modules = module_statuses(visit, &context.modules);
        let status = next_status(visit, modules, context.clock.now());
        if same(&self.last, &status) {
            return Ok(());
        }
        let api = Api::<Tenant>::namespaced(context.client.clone(), &tenant.namespace().unwrap_or_default());
        let patch = json!({
            "apiVersion": Tenant::api_version(&()),
            "kind": Tenant::kind(&()),
            // With the uid, a Tenant that was deleted and made anew meanwhile does not get this one's status.
            "metadata": {"name": tenant.name_any(), "uid": tenant.uid()},
            "status": status,
        });
        let written = api
            .patch_status(
                &tenant.name_any(),
                &PatchParams::apply(STATUS_MANAGER).force(),
                &Patch::Apply(patch),
            )
            .await;
        match written {
            Ok(tenant) => context.written.remember(&tenant, status.clone()),
            // The object is gone, or another has its name: there is nobody to tell.
            Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => {}
            Err(error) => return Err(ReconcileError(error)),
        }
        tell(self.last.state, status.state.unwrap_or(TenantState::Provisioning), visit, context);
        self.last = status;
        self.last_at = Some(Instant::now());
        Ok(())
    }
}

/// What a tenant that goes away is told of.
fn departing(row: &TenantRow) -> String {
    let cut = match row.access {
        Some(AccessLevel::Blocked) => "access is cut",
        _ => "access is not proven to be cut yet, and will be",
    };
    match row.terms() {
        Some(Terms { retain: true, .. }) => format!("{cut}; database {} is kept", row.database_name),
        Some(Terms { held: true, .. }) => format!("{cut}; spec.paused holds the purge back"),
        Some(terms) => format!(
            "{cut}; database {} is dropped after {}: until then, apply the same Tenant again to bring it back",
            row.database_name, terms.purge_after
        ),
        None => cut.to_owned(),
    }
}

/// An Event for a transition, and for a failure whose reason is new.
fn tell(before: Option<TenantState>, after: TenantState, visit: &Visit<'_>, context: &SharedContext) {
    let about = visit.tenant.object_ref(&());
    let summary = Summary::of(visit);
    if before != Some(after) {
        info!(from = before.map(|s| s.as_str()), to = after.as_str(), "state changed");
        let note = match (&visit.row, after) {
            (Some(row), TenantState::Active) => {
                format!("database {} on server {} is in use", row.database_name, row.server)
            }
            (Some(row), TenantState::Deprovisioned) if row.retain => {
                format!("database {} on server {} is kept, cut off", row.database_name, row.server)
            }
            (Some(row), TenantState::Deprovisioned) => format!("database {} is gone", row.database_name),
            (Some(row), TenantState::Deprovisioning) => departing(row),
            (_, after) => format!("the tenant is {}", after.as_str()),
        };
        context.events.normal(about.clone(), "Transition", after.as_str(), note);
    }
    if let Summary::Waiting { reason, message } | Summary::Stuck { reason, message } = &summary {
        let known =
            find_condition(&visit.before.conditions, READY).is_some_and(|ready| ready.reason == *reason);
        if !known {
            context.events.warning(about, "Reconcile", reason, message.clone());
        }
    }
}
