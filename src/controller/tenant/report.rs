//! Tells of a visit: its status, written when it says something new, and an Event for what has changed.

use std::time::{Duration, Instant};

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tracing::{info, warn};

use super::{
    conditions::Summary,
    limits::worse,
    observe::module_statuses,
    status::{next_status, same},
    visit::Visit,
};
use crate::{
    api::{
        conditions::{READY, WITHIN_LIMITS, find_condition, reason},
        tenant::Tenant,
        tenant_status::{TenantState, TenantStatus},
    },
    controller::context::SharedContext,
    domain::{access::AccessLevel, departure::Terms, observed::RegistryStatus, steps::Step},
    registry::TenantRow,
};

/// Field manager of the status. There is one writer.
const STATUS_MANAGER: &str = "tenantry/status";

/// A visit's own failure: the status could not be written. Everything else is in the status.
#[derive(Debug, thiserror::Error)]
#[error("could not write the status: {0}")]
pub struct ReconcileError(#[source] pub kube::Error);

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
    /// One that goes on from a status.
    pub fn new(before: TenantStatus) -> Self {
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

    /// Writes the status, if it says something new.
    pub async fn write(&mut self, visit: &Visit<'_>, context: &SharedContext) -> Result<(), ReconcileError> {
        let tenant = visit.tenant;
        if visit.has_done(Step::ReleaseFinalizer) {
            context.written.forget(tenant);
            context.attempts.forget(tenant);
            let gone = visit.row.as_ref().is_none_or(|row| row.status == RegistryStatus::Deprovisioned);
            let state = if gone { TenantState::Deprovisioned } else { TenantState::Deprovisioning };
            tell(self.last.state, state, visit, context);
            tell_of_departure(visit, context);
            return Ok(());
        }
        let modules = module_statuses(visit, context);
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
        tell_of_limits(&self.last, &status, visit, context);
        if visit.is_over() {
            tell_of_departure(visit, context);
        }
        self.last = status;
        self.last_at = Some(Instant::now());
        Ok(())
    }
}

/// An Event for what a visit did to a tenant that goes away: the terms that it has, and an object that is let go although
/// its access is not proven to be cut.
fn tell_of_departure(visit: &Visit<'_>, context: &SharedContext) {
    let Some(row) = visit.row.as_ref().filter(|row| row.status == RegistryStatus::Deprovisioning) else {
        return;
    };
    let about = visit.tenant.object_ref(&());
    if row.access != Some(AccessLevel::Blocked) && visit.has_done(Step::ReleaseFinalizer) {
        let note = format!("the object is let go, and {}", departing(row));
        context.events.warning(about, "Release", "AccessNotCut", note);
    } else if visit.has_done(Step::Tombstone) {
        context.events.normal(about, "Tombstone", reason::GRACE_PERIOD, departing(row));
    }
}

/// An Event when a tenant comes near a limit, or is beyond one, of each limit by itself; and when there is room again.
fn tell_of_limits(before: &TenantStatus, after: &TenantStatus, visit: &Visit<'_>, context: &SharedContext) {
    let Some(now) = find_condition(&after.conditions, WITHIN_LIMITS) else { return };
    let about = visit.tenant.object_ref(&());
    let told = find_condition(&before.conditions, WITHIN_LIMITS).map(|told| told.reason.as_str());
    let exceeded = now.reason == reason::LIMIT_EXCEEDED;
    if !worse(before, after).is_empty() || exceeded && told != Some(reason::LIMIT_EXCEEDED) {
        let reason = if exceeded { reason::LIMIT_EXCEEDED } else { reason::NEAR_LIMIT };
        context.events.warning(about, "Measure", reason, now.message.clone());
    } else if now.reason == reason::WITHIN_LIMITS
        && matches!(told, Some(reason::NEAR_LIMIT | reason::LIMIT_EXCEEDED))
    {
        context.events.normal(about, "Measure", reason::WITHIN_LIMITS, now.message.clone());
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
            "{cut}; database {} is dropped after {:.0}: until then, apply the same Tenant again to bring it back",
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
            (Some(row), TenantState::Active | TenantState::Trial) => {
                format!("database {} on server {} is in use", row.database_name, row.server)
            }
            (Some(row), TenantState::Suspended) => {
                let why = row.status_reason.as_deref().unwrap_or("its access is cut");
                format!("access is {}: {why}", row.access.map_or("Unknown", AccessLevel::as_str))
            }
            (Some(row), TenantState::Deprovisioned) if row.retain => {
                format!("database {} on server {} is kept, cut off", row.database_name, row.server)
            }
            (Some(row), TenantState::Deprovisioned) => format!("database {} is gone", row.database_name),
            (Some(_), TenantState::Deprovisioning) => "access is being cut".to_owned(),
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
