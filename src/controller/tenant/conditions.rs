//! Which conditions a visit leads to. Each step belongs to one condition; `Ready` sums up.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::{
    limits::within_limits,
    visit::{Failure, Obstacle, StepResult, Visit},
};
use crate::{
    api::{
        FINALIZER,
        conditions::{
            self as api,
            ConditionStatus::{self, False, True, Unknown},
            condition, reason,
        },
    },
    domain::{
        access::AccessLevel, desired::Invalid, observed::RegistryStatus, plan::Blocked,
        settings::SettingsError, steps::Step,
    },
};

/// Conditions that exist only while True (kstatus): absent is their False.
pub const ONLY_WHILE_TRUE: &[&str] = &[api::RECONCILING, api::STALLED];

/// A condition as this visit tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The type.
    pub type_: &'static str,
    /// Its status.
    pub status: ConditionStatus,
    /// CamelCase.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Told {
    fn new(
        type_: &'static str,
        status: ConditionStatus,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { type_, status, reason, message: message.into() }
    }

    /// As it is written.
    pub fn into_condition(self, generation: Option<i64>, now: Timestamp) -> Condition {
        condition(self.type_, self.status, self.reason, self.message, generation, now)
    }
}

/// The visit in one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Summary {
    /// What the spec asks for is in force.
    InForce,
    /// Work is under way.
    Working {
        /// For people.
        message: String,
    },
    /// Something is in the way that may pass by itself.
    Waiting {
        /// CamelCase.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// Something is in the way that a person has to change.
    Stuck {
        /// CamelCase.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// Held back on request: neither working nor stuck.
    Paused,
}

impl Summary {
    /// Sums up a visit.
    pub fn of(visit: &Visit<'_>) -> Self {
        if let Some(obstacle) = &visit.obstacle {
            return Self::of_obstacle(obstacle, visit);
        }
        if let Some((step, Failure { reason, message, permanent, .. })) = visit.failure() {
            let message = format!("{step}: {message}");
            return if *permanent {
                Self::Stuck { reason, message }
            } else {
                Self::Waiting { reason, message }
            };
        }
        let open: Vec<_> = visit.steps.iter().filter(|run| run.result != StepResult::Succeeded).collect();
        match open.first() {
            None => Self::InForce,
            Some(next) => Self::Working {
                message: format!(
                    "{}: step {} of {}",
                    next.step,
                    visit.steps.len() - open.len() + 1,
                    visit.steps.len()
                ),
            },
        }
    }

    fn of_obstacle(obstacle: &Obstacle, visit: &Visit<'_>) -> Self {
        let waiting = |reason, message: String| Self::Waiting { reason, message };
        let stuck = |reason, message: String| Self::Stuck { reason, message };
        let database = visit.row.as_ref().map(|row| row.database_name.as_str()).unwrap_or_default();
        match obstacle {
            // What is named may be applied a moment later, in any order: waited for, not given up on.
            Obstacle::Invalid(error @ (Invalid::PlanNotFound(_) | Invalid::TrialPlanNotFound { .. })) => {
                waiting(reason::PLAN_NOT_FOUND, error.to_string())
            }
            Obstacle::Invalid(error @ Invalid::ServerNotFound(_)) => {
                waiting(reason::SERVER_NOT_FOUND, error.to_string())
            }
            Obstacle::Invalid(error @ Invalid::NamespaceNotAllowed { .. }) => {
                stuck(reason::NAMESPACE_NOT_ALLOWED, error.to_string())
            }
            Obstacle::Invalid(error @ Invalid::Settings(SettingsError::TooLarge { .. })) => {
                stuck(reason::SETTINGS_TOO_LARGE, error.to_string())
            }
            Obstacle::Invalid(error @ Invalid::LimitNotSet(_)) => {
                stuck(reason::LIMIT_NOT_SET, error.to_string())
            }
            Obstacle::Invalid(error @ Invalid::ModuleNotFound(_)) => {
                stuck(reason::MODULE_NOT_FOUND, error.to_string())
            }
            Obstacle::Invalid(error @ (Invalid::Slug { .. } | Invalid::Settings(_))) => {
                stuck(reason::INVALID_SPEC, error.to_string())
            }
            Obstacle::ServerNotReady { message } => waiting(reason::SERVER_NOT_READY, message.clone()),
            Obstacle::Blocked(Blocked::RegistryUnknown(why)) => {
                waiting(visit.unseen.unwrap_or(reason::REGISTRY_UNREACHABLE), why.clone())
            }
            Obstacle::Blocked(Blocked::ServerUnknown(why)) => {
                waiting(visit.unseen.unwrap_or(reason::DATABASE_UNREACHABLE), why.clone())
            }
            Obstacle::Blocked(Blocked::ForeignDatabase) => stuck(
                reason::CONFLICT,
                format!(
                    "database {database:?} exists and is not this tenant's: it is left as it is; rename it, or use another slug or server"
                ),
            ),
            Obstacle::Blocked(Blocked::ForeignLogin) => stuck(
                reason::CONFLICT,
                format!(
                    "role \"{database}_app\" exists and is not this tenant's: it is left as it is; rename it, or use another slug or server"
                ),
            ),
            Obstacle::Blocked(Blocked::DatabaseMissing) => stuck(
                reason::DATABASE_MISSING,
                format!(
                    "database {database:?} is gone; it is not made again, since that would be an empty one: restore it under this name, or delete the Tenant"
                ),
            ),
            // Whoever waits for the slug is visited when it is free; this one has the row, and is not.
            Obstacle::Blocked(Blocked::RowGone(RegistryStatus::Deprovisioning)) => waiting(
                reason::PURGING,
                "the purge of this tenant has begun, and cannot be undone: delete this Tenant; one that is applied after that is a new tenant".into(),
            ),
            Obstacle::Blocked(Blocked::RowGone(status)) => stuck(
                reason::CONFLICT,
                format!(
                    "the registry says that this tenant is {}: delete this Tenant and apply it again",
                    status.as_str()
                ),
            ),
            Obstacle::Blocked(Blocked::RowMissing) => stuck(
                reason::REGISTRY_ROW_MISSING,
                format!(
                    "the registry has no row for this Tenant, and had one with the id {}: restore the registry; to give up what the tenant had, delete the Tenant and remove its finalizer {FINALIZER} by hand",
                    visit.before.tenant_id.as_deref().unwrap_or_default()
                ),
            ),
            Obstacle::Blocked(Blocked::Paused) => Self::Paused,
        }
    }

    /// Whether a person has to change something.
    pub fn is_stalled(&self) -> bool {
        matches!(self, Self::Stuck { .. })
    }
}

/// The condition that a step's outcome shows in.
fn condition_of(step: Step) -> Option<&'static str> {
    match step {
        Step::ClaimFinalizer | Step::Register => Some(api::REGISTERED),
        Step::CreateDatabase | Step::PublishDatabase => Some(api::DATABASE_READY),
        Step::ApplyMigrations => Some(api::MIGRATIONS_APPLIED),
        Step::Seed => Some(api::SEEDED),
        Step::PublishCredentials => Some(api::CREDENTIALS_PUBLISHED),
        Step::CreateRoles | Step::EnforceAccess | Step::Verify => Some(api::ACCESS_ENFORCED),
        // Whether its limits are kept is measured, not done.
        Step::ApplyPlan
        | Step::Activate
        | Step::RecordState
        | Step::Reinstate
        | Step::RecordRollback
        | Step::CutAccess
        | Step::Tombstone
        | Step::DropDatabase
        | Step::DropRoles
        | Step::RemoveSecrets
        | Step::Close
        | Step::ReleaseFinalizer => None,
    }
}

/// The conditions of a living tenant, apart from the summary, with what they say when True.
const PARTS: [(&str, &str); 6] = [
    (api::REGISTERED, "the registry has this tenant, and its slug is its own"),
    (api::DATABASE_READY, "the database is there, under its final name"),
    (api::MIGRATIONS_APPLIED, "all modules are at their target versions"),
    (api::SEEDED, "settings, admins and roles are in the database"),
    (api::CREDENTIALS_PUBLISHED, "the connection Secret holds a password that works"),
    (api::ACCESS_ENFORCED, "PostgreSQL was read: the login has exactly the rights of status.access"),
];

/// All conditions that a visit tells. Those it does not tell keep what they said.
pub fn of(visit: &Visit<'_>, summary: &Summary) -> Vec<Told> {
    let mut told = vec![ready(visit, summary)];
    match summary {
        Summary::Working { message } => {
            told.push(Told::new(api::RECONCILING, True, working_reason(visit), message.clone()));
        }
        Summary::Waiting { reason, message } => {
            told.push(Told::new(api::RECONCILING, True, reason, message.clone()));
        }
        Summary::Stuck { reason, message } => {
            told.push(Told::new(api::STALLED, True, reason, message.clone()))
        }
        Summary::InForce | Summary::Paused => {}
    }
    if visit.is_leaving() {
        told.push(deprovisioned(visit, summary));
    } else {
        told.extend(PARTS.iter().filter_map(|(type_, fulfilled)| part(visit, summary, type_, fulfilled)));
        told.extend(within_limits(visit));
    }
    told
}

/// Whether the tenant is cut off and waits for its time.
fn in_grace(visit: &Visit<'_>) -> Option<String> {
    let row = visit.row.as_ref().filter(|row| row.status == RegistryStatus::Deprovisioning)?;
    let ending = if row.retain { "kept for good, and the tenant closed," } else { "dropped" };
    let when = match (row.purge_held.is_some(), row.frozen_by.is_some() && !row.retain, row.purge_after) {
        (true, _, _) | (_, _, None) => "once spec.paused is unset".to_owned(),
        (_, true, Some(at)) => {
            format!("after {at:.0}, once somebody has acknowledged the breaker of mass deletions")
        }
        (_, false, Some(at)) => format!("after {at:.0}"),
    };
    let cut = cut(visit);
    Some(format!("{cut}; the database is {ending} {when}; until then the tenant can come back"))
}

/// Whether a tenant that goes away is cut off, in words.
fn cut(visit: &Visit<'_>) -> &'static str {
    match visit.row.as_ref().and_then(|row| row.access) {
        Some(AccessLevel::Blocked) => "access is cut",
        _ => "access is not proven to be cut",
    }
}

fn working_reason(visit: &Visit<'_>) -> &'static str {
    if visit.is_leaving() { reason::DEPROVISIONING } else { reason::PROVISIONING }
}

fn ready(visit: &Visit<'_>, summary: &Summary) -> Told {
    let told = |status, reason, message: String| Told::new(api::READY, status, reason, message);
    match summary {
        Summary::InForce if visit.is_leaving() => match in_grace(visit) {
            Some(message) => told(True, reason::GRACE_PERIOD, message),
            None => told(True, reason::DEPROVISIONED, "the tenant is gone".into()),
        },
        Summary::InForce => {
            let row = visit.row.as_ref();
            let (database, server) =
                row.map(|r| (r.database_name.as_str(), r.server.as_str())).unwrap_or_default();
            let standing = visit.standing.as_ref();
            match standing.and_then(|standing| Some((standing.access, standing.why()?))) {
                Some((access, why)) => told(True, reason::SUSPENDED, format!("access is {access}: {why}")),
                None => {
                    let in_trial = standing.is_some_and(|standing| standing.state == RegistryStatus::Trial);
                    let reason = if in_trial { reason::TRIAL } else { reason::ACTIVE };
                    told(True, reason, format!("database {database} on server {server} is in use"))
                }
            }
        }
        Summary::Working { message } => told(False, working_reason(visit), message.clone()),
        Summary::Waiting { reason, message } | Summary::Stuck { reason, message } => {
            told(False, reason, message.clone())
        }
        Summary::Paused => told(
            False,
            reason::PAUSED,
            "spec.paused is set, and there is work waiting: unset it to go on".into(),
        ),
    }
}

fn deprovisioned(visit: &Visit<'_>, summary: &Summary) -> Told {
    match summary {
        Summary::InForce => match in_grace(visit) {
            Some(message) if visit.row.as_ref().is_some_and(|row| row.frozen_by.is_some()) => {
                Told::new(api::DEPROVISIONED, False, reason::PURGES_FROZEN, message)
            }
            Some(message) => Told::new(api::DEPROVISIONED, False, reason::GRACE_PERIOD, message),
            None => Told::new(api::DEPROVISIONED, True, reason::DEPROVISIONED, "the tenant is gone"),
        },
        Summary::Working { message } => {
            Told::new(api::DEPROVISIONED, False, working_reason(visit), message.clone())
        }
        Summary::Waiting { reason, message } | Summary::Stuck { reason, message } => {
            Told::new(api::DEPROVISIONED, False, reason, message.clone())
        }
        Summary::Paused => Told::new(
            api::DEPROVISIONED,
            False,
            reason::PAUSED,
            format!("{}; spec.paused holds the rest back: unset it to go on", cut(visit)),
        ),
    }
}

/// One part's condition, or nothing where this visit says nothing new of it.
fn part(visit: &Visit<'_>, summary: &Summary, type_: &'static str, fulfilled: &str) -> Option<Told> {
    let unknown = |reason, message: &str| Told::new(type_, Unknown, reason, message);
    let first_visit = visit.before.conditions.is_empty();
    if let Some(obstacle) = &visit.obstacle {
        return match (obstacle, summary) {
            (
                Obstacle::ServerNotReady { .. } | Obstacle::Blocked(Blocked::ServerUnknown(_)),
                Summary::Waiting { reason, message },
            ) if type_ != api::REGISTERED => Some(unknown(reason, message)),
            (Obstacle::Blocked(Blocked::RegistryUnknown(_)), Summary::Waiting { reason, message }) => {
                Some(unknown(reason, message))
            }
            (
                Obstacle::Blocked(Blocked::DatabaseMissing | Blocked::ForeignDatabase),
                Summary::Stuck { reason, message },
            ) if type_ == api::DATABASE_READY => Some(Told::new(type_, False, reason, message.clone())),
            (Obstacle::Blocked(Blocked::ForeignLogin), Summary::Stuck { reason, message })
                if type_ == api::ACCESS_ENFORCED =>
            {
                Some(Told::new(type_, False, reason, message.clone()))
            }
            _ if first_visit => Some(unknown(reason::NOT_REACHED, "not looked at yet")),
            _ => None,
        };
    }
    let runs: Vec<_> = visit.steps.iter().filter(|run| condition_of(run.step) == Some(type_)).collect();
    for run in &runs {
        if let StepResult::Failed(failure) = &run.result {
            return Some(Told::new(
                type_,
                False,
                failure.reason,
                format!("{}: {}", run.step, failure.message),
            ));
        }
    }
    if let Some(open) = runs.iter().find(|run| run.result != StepResult::Succeeded) {
        return Some(if visit.failure().is_some() {
            unknown(reason::NOT_REACHED, "an earlier step failed")
        } else {
            Told::new(type_, False, reason::PROVISIONING, format!("{} is still to be done", open.step))
        });
    }
    // Nothing was asked of this part: it is in force, unless the visit ended before anything could be seen.
    let seen = visit.row.is_some() && (visit.is_settled() || !runs.is_empty() || visit.workflow.is_some());
    if seen {
        Some(Told::new(type_, True, reason::VERIFIED, fulfilled))
    } else {
        Some(unknown(reason::NOT_REACHED, "not reached yet"))
    }
}
