//! The status of a Tenant, computed from what a reconcile read, decided and did. Pure.

mod access;
mod account;
mod condition_update;
mod conditions;
mod summary;
#[cfg(test)]
mod tests;
pub mod usage;
mod workflow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use self::{conditions::describe_past_trial_end, summary::Summary};
use crate::{
    api::{
        conditions::same_ignoring_times,
        reason::Reason,
        tenant_adoption::{AdoptionState, AdoptionStatus},
        tenant_credentials::{CredentialsStatus, ReaderStatus},
        tenant_status::{Binding, ModuleStatus, TenantState, TenantStatus},
    },
    domain::{
        access::gates,
        observed::RegistryStatus,
        rotation::PreviousState,
        spec::{SpecError, reader_secret_name},
        subject::Subject,
        usage::entitlements::Entitlements,
        workflow::{BlockedReason, attempt::Progress},
    },
};

/// What ended a reconcile before everything was in force, apart from a failed step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The spec cannot be acted on.
    InvalidSpec(SpecError),
    /// The next action is blocked.
    Blocked(BlockedReason),
    /// The server is not ready.
    ServerNotReady {
        /// The message of the `DatabaseServer`'s `Ready` condition.
        message: String,
    },
}

/// What the status is computed from.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// The tenant.
    pub subject: &'a Subject<'a>,
    /// What was done.
    pub progress: &'a Progress,
    /// What ended the reconcile, if something did.
    pub obstacle: Option<&'a Obstacle>,
    /// Why the registry or the server could not be read, if one could not.
    pub unread: Option<Reason>,
}

impl Outcome<'_> {
    /// Whether every step that was asked for is done, and nothing blocked the rest.
    fn is_settled(&self) -> bool {
        self.obstacle.is_none() && self.progress.all_succeeded()
    }

    /// Whether the tenant that the status names is that of another Tenant.
    fn is_elsewhere(&self) -> bool {
        self.obstacle == Some(&Obstacle::Blocked(BlockedReason::Elsewhere))
    }

    /// Whether the tenant waits for what a person has to do before a database is taken over.
    fn waits_for_adoption(&self) -> bool {
        matches!(self.obstacle, Some(Obstacle::Blocked(BlockedReason::NotAdopted(_))))
    }

    /// Whether PostgreSQL was observed. Access is restricted even for a spec that cannot be acted on.
    fn was_observed(&self) -> bool {
        matches!(self.obstacle, None | Some(Obstacle::InvalidSpec(_)))
    }

    /// The entitlements in force. Outer `None`: the row was not read; inner `None`: none are in force.
    fn entitlements_in_force(&self) -> Option<Option<&Entitlements>> {
        Some(self.subject.record.as_ref()?.entitlements.as_ref())
    }
}

/// The status after, or during, a reconcile. `modules` are the tenant's modules with their target versions.
pub fn next_status(outcome: &Outcome<'_>, modules: Vec<ModuleStatus>, now: Timestamp) -> TenantStatus {
    let subject = outcome.subject;
    let before = subject.previous.clone();
    let summary = Summary::of(outcome);
    let state = state(outcome, &summary);
    let changed = before.state != Some(state);
    let record = subject.record.as_ref();
    let in_force = outcome.entitlements_in_force();
    let evaluated = subject.access().filter(|_| record.is_some());
    // The dates before may be of a time when the tenant was this Tenant's.
    let before_leaving = |date: Option<Time>| date.filter(|_| !outcome.is_elsewhere());
    let updates = conditions::updates(outcome, &summary, &modules);
    TenantStatus {
        observed_generation: subject.tenant.metadata.generation,
        state: Some(state),
        plan: plan(outcome).or(before.plan),
        granted_plan: record.map_or(before.granted_plan, |record| {
            record.account.granted_plan(subject.declared).map(|grant| grant.plan.clone())
        }),
        access: Some(access::level(outcome, before.access)),
        tenant_id: record.map(|record| record.id.to_string()).or(before.tenant_id),
        slug: match record {
            // What is deprovisioned keeps its slug, whatever the spec says.
            Some(record) => Some(record.slug.clone()).filter(|slug| *slug != subject.tenant.spec.slug),
            None => before.slug,
        },
        server: record.map(|record| record.placement.server.clone()).or(before.server),
        database: record.map(|record| record.placement.database.clone()).or(before.database),
        adoption: adoption(outcome, before.adoption),
        credentials: credentials(outcome, before.credentials, now),
        binding: if subject.is_deprovisioning() { None } else { binding(outcome).or(before.binding) },
        modules: if modules.is_empty() { before.modules } else { modules },
        limits: in_force
            .map_or(before.limits, |plan| plan.map(Entitlements::limit_values).unwrap_or_default()),
        features: in_force
            .map_or(before.features, |plan| plan.map(|plan| plan.features.clone()).unwrap_or_default()),
        open_gates: open_gates(outcome).unwrap_or(before.open_gates),
        usage: usage::shown(outcome, before.usage),
        holds: access::holds(outcome).unwrap_or(before.holds),
        trial_ends_at: evaluated
            .map_or(before.trial_ends_at, |evaluation| evaluation.trial_ends_at.map(whole_seconds)),
        suspended_at: record.map_or(before.suspended_at, |record| record.suspended_at.map(whole_seconds)),
        state_updated_at: if changed { Some(Time(now)) } else { before.state_updated_at },
        state_updated_by: record.map(|record| record.status_updated_by.clone()).or(before.state_updated_by),
        // Absent again after an undelete.
        deprovisioned_at: record.map_or(before_leaving(before.deprovisioned_at), |record| {
            record.deprovisioned_at.map(whole_seconds)
        }),
        purge_after: record
            .map_or(before_leaving(before.purge_after), |record| record.purge_after.map(whole_seconds)),
        workflow: workflow::status(outcome, before.workflow, now),
        conditions: conditions::merge(before.conditions, updates, outcome, now),
        // Fields of later versions are left out, not written as empty.
        ..TenantStatus::default()
    }
}

/// Whether two statuses are the same apart from their times. A status is written only when they are not.
pub fn same(a: &TenantStatus, b: &TenantStatus) -> bool {
    let strip = |status: &TenantStatus| {
        let mut status = status.clone();
        status.state_updated_at = None;
        if let Some(workflow) = &mut status.workflow {
            (workflow.started_at, workflow.finished_at, workflow.next_attempt_at) = (None, None, None);
            for step in &mut workflow.steps {
                (step.started_at, step.finished_at) = (None, None);
            }
        }
        let conditions = std::mem::take(&mut status.conditions);
        (status, conditions)
    };
    let ((a, a_conditions), (b, b_conditions)) = (strip(a), strip(b));
    a == b && same_ignoring_times(&a_conditions, &b_conditions)
}

/// A time as the API has it: in whole seconds, so that it is the same when it is read back.
fn whole_seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn state(outcome: &Outcome<'_>, summary: &Summary) -> TenantState {
    let deprovisioning = outcome.subject.is_deprovisioning();
    let Some(status) = outcome.subject.recorded_status() else {
        if outcome.is_elsewhere() {
            return TenantState::Failed;
        }
        // A row that was not read is not known to have changed.
        let before = outcome.subject.previous.state.filter(|_| outcome.unread.is_some());
        return if let Some(before) =
            before.filter(|state| !deprovisioning || *state == TenantState::Deprovisioned)
        {
            before
        } else if deprovisioning {
            TenantState::Deprovisioning
        } else if summary.is_stalled() && !outcome.waits_for_adoption() {
            TenantState::Failed
        } else {
            TenantState::Provisioning
        };
    };
    match status {
        RegistryStatus::Deprovisioned => TenantState::Deprovisioned,
        RegistryStatus::Deprovisioning => TenantState::Deprovisioning,
        _ if deprovisioning => TenantState::Deprovisioning,
        RegistryStatus::Provisioning | RegistryStatus::Failed if summary.is_stalled() => TenantState::Failed,
        RegistryStatus::Provisioning | RegistryStatus::Failed => TenantState::Provisioning,
        RegistryStatus::Trial => TenantState::Trial,
        RegistryStatus::Active => TenantState::Active,
        RegistryStatus::Suspended => TenantState::Suspended,
    }
}

/// The plan in force, or the one that comes into force with the first provisioning.
fn plan(outcome: &Outcome<'_>) -> Option<String> {
    if let Some(Some(in_force)) = outcome.entitlements_in_force() {
        return Some(in_force.plan.clone());
    }
    outcome.subject.desired.as_ref()?;
    outcome.subject.access().map(|evaluation| evaluation.plan.clone())
}

/// The gates that block the tenant's access.
fn open_gates(outcome: &Outcome<'_>) -> Option<Vec<String>> {
    outcome.subject.record.as_ref()?;
    let evaluation = outcome.subject.access()?;
    let deprovisioning = outcome.subject.is_deprovisioning();
    Some(if deprovisioning { Vec::new() } else { gates::open(&evaluation.gates) })
}

/// The adoption of a database: as it was read now, else as it was reported, with how far it is.
fn adoption(outcome: &Outcome<'_>, before: Option<AdoptionStatus>) -> Option<AdoptionStatus> {
    let record = outcome.subject.record.as_ref();
    let takeover = record.and_then(|record| record.takeover);
    if takeover.is_none() && outcome.subject.tenant.spec.adopt.is_none() {
        return None;
    }
    let mut shown = outcome.progress.adoption.clone().or(before)?;
    if let Some(record) = record {
        let is_refused = outcome.progress.adoption.is_some() && !record.database_exists;
        shown.state = match takeover {
            Some(_) if record.activated_at.is_some() => Some(AdoptionState::Adopted),
            Some(_) if !is_refused => Some(AdoptionState::Adopting),
            _ => shown.state,
        };
    }
    Some(shown)
}

/// The credentials that are published, and the previous login. Until a password is recorded, what was shown before stays.
fn credentials(
    outcome: &Outcome<'_>,
    before: Option<CredentialsStatus>,
    now: Timestamp,
) -> Option<CredentialsStatus> {
    let record = outcome.subject.record.as_ref().filter(|record| record.password_verifier.is_some());
    let Some(record) = record else { return before };
    let known = &record.credentials;
    let previous_since = known.previous.as_ref().and_then(|previous| previous.since);
    let reader_issued_at = known.reader.as_ref().and_then(|reader| reader.issued_at);
    if known.issued_at.or(previous_since).or(reader_issued_at).is_none() {
        // After an upgrade, nothing is written for a password whose age is not known.
        return before.map(|shown| CredentialsStatus { reader: None, ..shown });
    }
    let valid_until = match record.rotation(outcome.subject.tenant, now).previous {
        PreviousState::ValidUntil(at) => Some(whole_seconds(at)),
        PreviousState::Absent | PreviousState::Needed | PreviousState::Over => None,
    };
    Some(CredentialsStatus {
        login: Some(record.placement.login.clone()),
        issued_at: record.credentials.issued_at.map(whole_seconds),
        previous_login: record.placement.previous_login.clone(),
        previous_valid_until: valid_until,
        reader: record.placement.reader_login.clone().zip(reader_issued_at).map(|(login, issued_at)| {
            ReaderStatus {
                login,
                secret_name: reader_secret_name(outcome.subject.tenant),
                issued_at: Some(whole_seconds(issued_at)),
            }
        }),
    })
}

fn binding(outcome: &Outcome<'_>) -> Option<Binding> {
    let desired = outcome.subject.desired.as_ref()?;
    let active = outcome.subject.recorded_status()?.was_active();
    (active && outcome.is_settled()).then(|| Binding { name: desired.connection_secret.clone() })
}
