//! A reconcile in one value: what its conditions, Events and the next reconcile follow from.

use super::{Obstacle, Outcome};
use crate::{
    api::{ANNOTATION_ADOPT_ROW, FINALIZER, reason::Reason},
    domain::{
        drift::Mismatch,
        modules::ModuleError,
        named_row::describe_elsewhere,
        observed::RegistryStatus,
        settings::SettingsError,
        spec::SpecError,
        workflow::{
            BlockedReason,
            attempt::{Failure, StepResult},
        },
    },
};

/// How a reconcile ended, or how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Summary {
    /// What the spec asks for is in force.
    InForce,
    /// Steps are running.
    Working {
        /// Which step runs.
        message: String,
    },
    /// Something blocks the tenant that may pass without a person.
    Waiting {
        /// Why.
        reason: Reason,
        /// Why, for a person.
        message: String,
    },
    /// Something blocks the tenant that a person has to change.
    Stuck {
        /// Why.
        reason: Reason,
        /// Why and what to do, for a person.
        message: String,
    },
    /// `spec.paused` holds the work: neither working nor stuck.
    Paused,
}

impl Summary {
    /// Sums up a reconcile.
    pub fn of(outcome: &Outcome<'_>) -> Self {
        if let Some(obstacle) = outcome.obstacle {
            return match obstacle {
                Obstacle::InvalidSpec(error) => Self::of_invalid_spec(error),
                Obstacle::ServerNotReady { message } => {
                    Self::Waiting { reason: Reason::ServerNotReady, message: message.clone() }
                }
                Obstacle::Blocked(blocked) => Self::of_blocked(blocked, outcome),
            };
        }
        let progress = outcome.progress;
        if let Some((step, Failure { reason, message, permanent, .. })) = progress.failure() {
            let (reason, message) = (*reason, format!("{step}: {message}"));
            return if *permanent {
                Self::Stuck { reason, message }
            } else {
                Self::Waiting { reason, message }
            };
        }
        let all = progress.steps.len();
        let mut open = progress.steps.iter().filter(|run| run.result != StepResult::Succeeded);
        match open.next() {
            None => Self::InForce,
            Some(next) => {
                let done = all - 1 - open.count();
                Self::Working { message: format!("{}: step {} of {all}", next.step, done + 1) }
            }
        }
    }

    fn of_invalid_spec(error: &SpecError) -> Self {
        let message = error.to_string();
        match error {
            // Objects can be applied in any order: the one that is named may exist a moment later.
            SpecError::PlanNotFound(_) | SpecError::TrialPlanNotFound { .. } => {
                Self::Waiting { reason: Reason::PlanNotFound, message }
            }
            SpecError::ServerNotFound(_) => Self::Waiting { reason: Reason::ServerNotFound, message },
            SpecError::NamespaceNotAllowed { .. } => {
                Self::Stuck { reason: Reason::NamespaceNotAllowed, message }
            }
            SpecError::Settings(SettingsError::TooLarge { .. }) => {
                Self::Stuck { reason: Reason::SettingsTooLarge, message }
            }
            SpecError::LimitNotSet(_) => Self::Stuck { reason: Reason::LimitNotSet, message },
            SpecError::Module(ModuleError::NotFound { .. }) => {
                Self::Stuck { reason: Reason::ModuleNotFound, message }
            }
            SpecError::Module(ModuleError::VersionNotFound { .. }) => {
                Self::Stuck { reason: Reason::VersionNotFound, message }
            }
            SpecError::Module(ModuleError::DependencyTooOld { .. }) => {
                Self::Stuck { reason: Reason::DependencyTooOld, message }
            }
            SpecError::Module(ModuleError::PurgeRefused { .. }) => {
                Self::Stuck { reason: Reason::ModulePurgeRefused, message }
            }
            SpecError::Module(ModuleError::NotReady { .. }) => {
                Self::Waiting { reason: Reason::ModuleNotReady, message }
            }
            SpecError::Slug { .. } | SpecError::Settings(_) => {
                Self::Stuck { reason: Reason::InvalidSpec, message }
            }
        }
    }

    fn of_blocked(blocked: &BlockedReason, outcome: &Outcome<'_>) -> Self {
        let waiting = |reason, message: String| Self::Waiting { reason, message };
        let stuck = |reason, message: String| Self::Stuck { reason, message };
        let database =
            outcome.subject.record.as_ref().map_or("", |record| record.placement.database.as_str());
        match blocked {
            BlockedReason::NotAdopted(refusal) => stuck(refusal.reason(), refusal.to_string()),
            BlockedReason::RegistryUnknown(why) => {
                waiting(outcome.unread.unwrap_or(Reason::RegistryUnreachable), why.clone())
            }
            BlockedReason::ServerUnknown(why) => {
                waiting(outcome.unread.unwrap_or(Reason::DatabaseUnreachable), why.clone())
            }
            BlockedReason::ForeignDatabase => stuck(
                Reason::Conflict,
                format!(
                    "database {database:?} exists and belongs to another owner; it is not changed: rename it, or use another slug or server"
                ),
            ),
            BlockedReason::ForeignLogin => stuck(
                Reason::Conflict,
                format!(
                    "role \"{database}_app\" exists and belongs to another owner; it is not changed: rename it, or use another slug or server"
                ),
            ),
            BlockedReason::DatabaseMissing => stuck(
                Reason::DatabaseMissing,
                format!(
                    "database {database:?} does not exist any more; it is not recreated, since it would be empty: restore it under this name, or delete the Tenant"
                ),
            ),
            // A tenant that waits for the slug is requeued when it is free; this one has the row itself.
            BlockedReason::RowClosed(RegistryStatus::Deprovisioning) => waiting(
                Reason::Purging,
                "the purge of this tenant has begun and cannot be undone: delete this Tenant; one that is applied after that is a new tenant".into(),
            ),
            BlockedReason::RowClosed(status) => stuck(
                Reason::Conflict,
                format!(
                    "the registry records this tenant as {}: delete this Tenant and apply it again",
                    status.as_str()
                ),
            ),
            BlockedReason::RowMissing => stuck(
                Reason::RegistryRowMissing,
                format!(
                    "the registry had a row for this Tenant, with the id {}, and has none now: restore the registry, or have the row written again from the tenant's database: kubectl annotate tenant -n {} {} {ANNOTATION_ADOPT_ROW}={0}; to give up the tenant's data, delete the Tenant and remove its finalizer {FINALIZER} by hand",
                    outcome.subject.previous.tenant_id.as_deref().unwrap_or_default(),
                    outcome.subject.tenant.metadata.namespace.as_deref().unwrap_or_default(),
                    outcome.subject.tenant.metadata.name.as_deref().unwrap_or_default()
                ),
            ),
            BlockedReason::Elsewhere => {
                let row = outcome.subject.elsewhere.as_deref();
                let message = row.map(|row| describe_elsewhere(row, outcome.subject.tenant));
                stuck(Reason::BoundElsewhere, message.unwrap_or_default())
            }
            BlockedReason::Unrepairable(mismatches) => {
                let reason = mismatches.first().map_or(Reason::MissingRight, Mismatch::reason);
                let list: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
                stuck(reason, list.join("; "))
            }
            BlockedReason::Paused => Self::Paused,
        }
    }

    /// Whether a person has to change something.
    pub fn is_stalled(&self) -> bool {
        matches!(self, Self::Stuck { .. })
    }

    /// The label of the metric.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::InForce => "in_force",
            Self::Working { .. } => "working",
            Self::Waiting { .. } => "waiting",
            Self::Stuck { .. } => "stuck",
            Self::Paused => "paused",
        }
    }

    /// Reason and message of a failure.
    pub fn failure(&self) -> Option<(Reason, &str)> {
        match self {
            Self::Waiting { reason, message } | Self::Stuck { reason, message } => Some((*reason, message)),
            Self::InForce | Self::Working { .. } | Self::Paused => None,
        }
    }
}
