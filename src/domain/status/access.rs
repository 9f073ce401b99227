//! What the status shows of access: the level and the holds in force. Both are shown only after PostgreSQL was read.

use super::{Obstacle, Outcome, whole_seconds};
use crate::{
    api::tenant_status::{Access, HoldMode, HoldStatus},
    domain::{
        access::{AccessLevel, evaluate::RestrictionCause},
        workflow::{BlockedReason, attempt::StepResult, step::Step},
    },
};

/// The level in force.
pub(super) fn level(outcome: &Outcome<'_>, before: Option<Access>) -> Access {
    let Some(record) = &outcome.subject.record else {
        // A tenant that never had a row has no login; one whose row was not read, or was lost, may have any level.
        let is_lost = outcome.subject.object.was_registered;
        let is_known = outcome.unread.is_none() && !is_lost || before.is_none();
        return if is_known { Access::Blocked } else { Access::Unknown };
    };
    if outcome.subject.is_deprovisioning() {
        return match (record.access, outcome.obstacle, before) {
            // The registry records Blocked once it is proven, and withdraws it as soon as it is doubtful.
            (Some(AccessLevel::Blocked), ..) => Access::Blocked,
            // Nothing was changed.
            (_, Some(Obstacle::Blocked(BlockedReason::Paused)), Some(before))
                if before != Access::Blocked =>
            {
                before
            }
            _ => Access::Unknown,
        };
    }
    if !record.status.was_active() {
        // Without a password no client can log in, whatever the login's group.
        let has_password = record.password_verifier.is_some();
        return record.access.filter(|_| has_password).map_or(Access::Blocked, in_status);
    }
    // A level that is not on record is not proven, or was withdrawn.
    if enforcement_failed(outcome) || record.access.is_none() {
        return Access::Unknown;
    }
    if is_proven(outcome) || outcome.was_observed() && outcome.progress.all_succeeded() {
        return record.access.map_or(Access::Unknown, in_status);
    }
    match (outcome.obstacle, before) {
        (None, Some(before)) => before,
        _ => Access::Unknown,
    }
}

/// The holds in force, once that is proven; absent while it is not.
pub(super) fn holds(outcome: &Outcome<'_>) -> Option<Vec<HoldStatus>> {
    let (record, evaluation) = (outcome.subject.record.as_ref()?, outcome.subject.access()?);
    if enforcement_failed(outcome) {
        return Some(Vec::new());
    }
    let proven = record.access.is_some_and(|access| access <= evaluation.access);
    let is_settled = outcome.was_observed() && outcome.progress.failure().is_none();
    if !proven || !(is_settled || is_proven(outcome)) {
        return None;
    }
    let in_force = record.holds.iter().filter_map(|hold| {
        let restriction = evaluation.restrictions.iter().find(|restriction| match &restriction.cause {
            RestrictionCause::Hold(name) => *name == hold.name,
            _ => false,
        });
        let mode = match restriction.map(|restriction| restriction.level) {
            Some(AccessLevel::Blocked) => HoldMode::Blocked,
            Some(AccessLevel::ShrinkOnly) => HoldMode::ShrinkOnly,
            Some(AccessLevel::ReadOnly | AccessLevel::ReadWrite) => HoldMode::ReadOnly,
            None if hold.is_unrestricting() => HoldMode::None,
            None => return None,
        };
        Some(HoldStatus {
            name: hold.name.clone(),
            mode,
            preserve: hold.preserve.as_ref().map(|_| true),
            trigger: hold.trigger,
            reason: Some(hold.reason.clone()),
            placed_by: record.placed_by(hold).map(str::to_owned),
            since: Some(whole_seconds(hold.since)),
        })
    });
    Some(in_force.collect())
}

/// Whether the recorded level was proven in this reconcile, whatever failed after that: EnforceAccess succeeded, or PostgreSQL
/// was observed and shows it, so that EnforceAccess was not needed.
pub(super) fn is_proven(outcome: &Outcome<'_>) -> bool {
    let Some(access) = outcome.subject.record.as_ref().and_then(|record| record.access) else { return false };
    let mut enforced = outcome.progress.steps.iter().filter(|run| run.step == Step::EnforceAccess);
    match enforced.next_back() {
        Some(last) => last.result == StepResult::Succeeded,
        None => outcome.progress.observed_access == Some(access),
    }
}

/// Whether the access level could not be brought into force.
fn enforcement_failed(outcome: &Outcome<'_>) -> bool {
    let steps = &outcome.progress.steps;
    steps.iter().any(|run| run.step == Step::EnforceAccess && matches!(run.result, StepResult::Failed(_)))
}

fn in_status(level: AccessLevel) -> Access {
    match level {
        AccessLevel::Blocked => Access::Blocked,
        AccessLevel::ReadOnly => Access::ReadOnly,
        AccessLevel::ShrinkOnly => Access::ShrinkOnly,
        AccessLevel::ReadWrite => Access::ReadWrite,
    }
}
