//! The conditions that a reconcile leads to. The outcome of each step shows in one condition; `Ready` sums up.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Obstacle, Outcome, Summary, access, account, condition_update::ConditionUpdate, usage};
use crate::{
    api::{
        conditions::{
            self as api,
            ConditionStatus::{False, True, Unknown},
            remove_condition, set_condition,
        },
        reason::Reason,
        tenant_status::{ModuleState, ModuleStatus},
    },
    domain::{
        access::{AccessLevel, inputs::past_trial_end},
        account::account_namespace,
        module_status::describe_behind,
        observed::RegistryStatus,
        spec,
        workflow::{BlockedReason, attempt::StepResult},
    },
};

/// Conditions that exist only while True (kstatus): absent means False.
const ONLY_WHILE_TRUE: [&str; 2] = [api::RECONCILING, api::STALLED];

/// The conditions of a tenant that is not being deprovisioned, apart from the summary, with their message when True.
const PARTS: [(&str, &str); 6] = [
    (api::REGISTERED, "the registry has a row for this tenant, which owns the slug"),
    (api::DATABASE_READY, "the database exists under its final name"),
    (api::MIGRATIONS_APPLIED, "all modules are at their target versions"),
    (api::SEEDED, "settings, admins and demo data are in the database"),
    (api::CREDENTIALS_PUBLISHED, "the connection Secret holds a password that works"),
    (api::ACCESS_ENFORCED, "PostgreSQL was read: the login has exactly the rights of status.access"),
];

/// Every condition that this reconcile can report on. The others keep their state.
pub(super) fn updates(
    outcome: &Outcome<'_>,
    summary: &Summary,
    modules: &[ModuleStatus],
) -> Vec<ConditionUpdate> {
    let mut updates = vec![ready(outcome, summary)];
    match summary {
        Summary::Working { message } => {
            updates.push(ConditionUpdate::new(api::RECONCILING, True, working_reason(outcome), message));
        }
        Summary::Waiting { reason, message } => {
            updates.push(ConditionUpdate::new(api::RECONCILING, True, *reason, message));
        }
        Summary::Stuck { reason, message } => {
            updates.push(ConditionUpdate::new(api::STALLED, True, *reason, message));
        }
        Summary::InForce | Summary::Paused => {}
    }
    if outcome.subject.is_deprovisioning() {
        updates.push(deprovisioned(outcome, summary));
        if let (true, Summary::Stuck { reason, message }) = (outcome.is_elsewhere(), summary) {
            updates.push(ConditionUpdate::new(api::REGISTERED, False, *reason, message));
        }
    } else {
        updates.extend(PARTS.iter().filter_map(|(type_, message)| part(outcome, summary, type_, message)));
        updates.extend(usage::within_limits(outcome));
        report_behind(&mut updates, modules);
        report_awaited(&mut updates, modules);
    }
    updates.extend(account::condition(outcome));
    updates
}

/// New versions that the tenant waits for: nothing failed, and nothing was asked for yet.
fn report_behind(updates: &mut [ConditionUpdate], modules: &[ModuleStatus]) {
    let applied = updates.iter_mut().find(|update| update.type_ == api::MIGRATIONS_APPLIED);
    if let (Some(applied), Some(message)) = (applied, describe_behind(modules))
        && applied.status == True
    {
        *applied = ConditionUpdate::new(api::MIGRATIONS_APPLIED, False, Reason::Waiting, &message);
    }
}

/// Versions that a team's own pipeline has not reported: the application cannot work with what is there.
fn report_awaited(updates: &mut [ConditionUpdate], modules: &[ModuleStatus]) {
    let awaits = |module: &&ModuleStatus| module.state == Some(ModuleState::AwaitingReport);
    let Some(module) = modules.iter().find(awaits) else { return };
    let message = format!("module {}: {}", module.name, module.message.as_deref().unwrap_or_default());
    let parts = [api::READY, api::MIGRATIONS_APPLIED];
    let is_part = |update: &&mut ConditionUpdate| parts.contains(&update.type_);
    for update in updates.iter_mut().filter(is_part) {
        if update.status == True
            || update.reason == Reason::Waiting && update.type_ == api::MIGRATIONS_APPLIED
        {
            *update = ConditionUpdate::new(update.type_, False, Reason::NotReported, &message);
        }
    }
}

/// New conditions over old ones. A transition time is kept while the status is the same; conditions that exist only while
/// True are removed.
pub(super) fn merge(
    mut before: Vec<Condition>,
    updates: Vec<ConditionUpdate>,
    outcome: &Outcome<'_>,
    now: Timestamp,
) -> Vec<Condition> {
    before.retain(|condition| {
        !ONLY_WHILE_TRUE.contains(&condition.type_.as_str())
            || updates.iter().any(|update| update.type_ == condition.type_)
    });
    if !outcome.subject.is_deprovisioning() {
        remove_condition(&mut before, api::DEPROVISIONED);
    }
    if account_namespace(outcome.subject.declared).is_none() {
        remove_condition(&mut before, api::ACCOUNT_SHOWN);
    }
    for update in updates {
        set_condition(&mut before, update.into_condition(outcome.subject.tenant.metadata.generation, now));
    }
    before
}

/// While the tenant is in its grace period, or kept after it: the reason, and what happens to the database and when.
fn grace_period(outcome: &Outcome<'_>) -> Option<(Reason, String)> {
    let record = outcome.subject.record.as_ref();
    let record = record.filter(|record| record.status == RegistryStatus::Deprovisioning)?;
    let ending = if record.retain { "kept and the tenant closed" } else { "dropped" };
    let frozen = record.frozen_by.is_some() && !record.retain;
    let when = match (record.purge_held.is_some(), frozen, record.purge_after) {
        (true, _, _) | (_, _, None) => "once spec.paused is unset".to_owned(),
        (_, true, Some(at)) => {
            format!("after {at:.0}, once an operator acknowledges the breaker of mass deletions")
        }
        (_, false, Some(at)) => format!("after {at:.0}"),
    };
    let access = revocation(outcome);
    let end = format!("the database is {ending} {when}; until then the tenant can be restored");
    if let Some(holds) = record.legal_holds().filter(|_| record.purge_started_at.is_none()) {
        let message = format!("{access}; the data is kept by {holds}; without that, {end}");
        return Some((Reason::LegalHold, message));
    }
    let reason = if record.frozen_by.is_some() { Reason::PurgesFrozen } else { Reason::GracePeriod };
    Some((reason, format!("{access}; {end}")))
}

/// Whether the access of a tenant that is being deprovisioned is revoked.
fn revocation(outcome: &Outcome<'_>) -> &'static str {
    match outcome.subject.record.as_ref().and_then(|record| record.access) {
        Some(AccessLevel::Blocked) => "access is revoked",
        _ => "access is not proven to be revoked",
    }
}

fn working_reason(outcome: &Outcome<'_>) -> Reason {
    if outcome.subject.is_deprovisioning() { Reason::Deprovisioning } else { Reason::Provisioning }
}

fn ready(outcome: &Outcome<'_>, summary: &Summary) -> ConditionUpdate {
    let ready = |status, reason, message: &str| ConditionUpdate::new(api::READY, status, reason, message);
    match summary {
        Summary::InForce if outcome.subject.is_deprovisioning() => match grace_period(outcome) {
            // The breaker and its reason are shown by the condition Deprovisioned.
            Some((Reason::LegalHold, message)) => ready(True, Reason::LegalHold, &message),
            Some((_, message)) => ready(True, Reason::GracePeriod, &message),
            None => ready(True, Reason::Deprovisioned, "the tenant is deprovisioned"),
        },
        Summary::InForce => {
            let remarks = remarks(outcome);
            let evaluation = outcome.subject.access();
            if let Some((access, why)) = evaluation.and_then(|found| Some((found.access, found.summary()?))) {
                return ready(True, Reason::Suspended, &format!("access is {access}: {why}{remarks}"));
            }
            let in_trial = evaluation.is_some_and(|found| found.state == RegistryStatus::Trial);
            let placement = outcome.subject.record.as_ref().map(|record| &record.placement);
            let (database, server) =
                placement.map_or(("", ""), |placement| (&placement.database, &placement.server));
            let message = format!("database {database} on server {server} is in use{remarks}");
            ready(True, if in_trial { Reason::Trial } else { Reason::Active }, &message)
        }
        Summary::Working { message } => ready(False, working_reason(outcome), message),
        Summary::Waiting { reason, message } | Summary::Stuck { reason, message } => {
            ready(False, *reason, message)
        }
        Summary::Paused => {
            ready(False, Reason::Paused, "spec.paused is set and work is pending: unset it to continue")
        }
    }
}

/// What is in force as the spec asks for it, and probably not what its author expects.
fn remarks(outcome: &Outcome<'_>) -> String {
    let paused = spec::is_paused(outcome.subject.tenant);
    let paused = paused.then(|| "; spec.paused is set: changes wait, and nothing is repaired".to_owned());
    let record = outcome.subject.record.as_ref();
    let past = record.and_then(|record| past_trial_end(outcome.subject.tenant, record.activated_at?));
    let past = past.map(|at| format!("; {}", describe_past_trial_end(at)));
    paused.into_iter().chain(past).collect()
}

/// The end of a trial that was over before it could begin, for a condition and an Event.
pub fn describe_past_trial_end(at: Timestamp) -> String {
    format!(
        "spec.trial.endsAt, {at}, was over when the tenant was activated first: correct it, or leave trial out"
    )
}

fn deprovisioned(outcome: &Outcome<'_>, summary: &Summary) -> ConditionUpdate {
    let deprovisioned =
        |status, reason, message: &str| ConditionUpdate::new(api::DEPROVISIONED, status, reason, message);
    match summary {
        Summary::InForce => match grace_period(outcome) {
            Some((reason, message)) => deprovisioned(False, reason, &message),
            None => deprovisioned(True, Reason::Deprovisioned, "the tenant is deprovisioned"),
        },
        Summary::Working { message } => deprovisioned(False, working_reason(outcome), message),
        Summary::Waiting { reason, message } | Summary::Stuck { reason, message } => {
            deprovisioned(False, *reason, message)
        }
        Summary::Paused => {
            let access = revocation(outcome);
            let message = format!("{access}; spec.paused holds the purge: unset it to continue");
            deprovisioned(False, Reason::Paused, &message)
        }
    }
}

/// The condition of one part; absent where this reconcile shows nothing new about it.
fn part(
    outcome: &Outcome<'_>,
    summary: &Summary,
    type_: &'static str,
    message_when_true: &str,
) -> Option<ConditionUpdate> {
    let unknown = |reason, message: &str| ConditionUpdate::new(type_, Unknown, reason, message);
    if let Some(obstacle) = outcome.obstacle {
        return part_of_obstacle(outcome, obstacle, summary, type_, message_when_true);
    }
    let progress = outcome.progress;
    let runs: Vec<_> = progress.steps.iter().filter(|run| run.step.condition() == Some(type_)).collect();
    for run in &runs {
        if let StepResult::Failed(failure) = &run.result {
            let message = format!("{}: {}", run.step, failure.message);
            return Some(ConditionUpdate::new(type_, False, failure.reason, message));
        }
    }
    if type_ == api::ACCESS_ENFORCED && is_enforced_whatever_failed(outcome) {
        return Some(ConditionUpdate::new(type_, True, Reason::Verified, message_when_true));
    }
    if let Some(open) = runs.iter().find(|run| run.result != StepResult::Succeeded) {
        return Some(match progress.failure() {
            Some(_) => unknown(Reason::NotReached, "an earlier step failed"),
            None => {
                let message = format!("{} is not done yet", open.step);
                ConditionUpdate::new(type_, False, Reason::Provisioning, message)
            }
        });
    }
    // No step was asked for: the part is in force, unless the reconcile ended before anything was observed.
    let is_doubted = type_ == api::ACCESS_ENFORCED
        && outcome
            .subject
            .record
            .as_ref()
            .is_some_and(|record| record.status.was_active() && record.access.is_none());
    let observed = outcome.subject.record.is_some()
        && !is_doubted
        && (outcome.is_settled() || !runs.is_empty() || progress.workflow.is_some());
    Some(match observed {
        true => ConditionUpdate::new(type_, True, Reason::Verified, message_when_true),
        false => unknown(Reason::NotReached, "not reached yet"),
    })
}

/// Whether access was proven to be in force although another step failed. A login that was not verified since it was found
/// wrong proves nothing.
fn is_enforced_whatever_failed(outcome: &Outcome<'_>) -> bool {
    let Some(record) = &outcome.subject.record else { return false };
    let is_verified = record.access == Some(AccessLevel::Blocked) || !record.verification_required;
    outcome.progress.failure().is_some()
        && record.status.was_active()
        && is_verified
        && access::is_proven(outcome)
}

/// The condition of one part after an obstacle.
fn part_of_obstacle(
    outcome: &Outcome<'_>,
    obstacle: &Obstacle,
    summary: &Summary,
    type_: &'static str,
    message_when_true: &str,
) -> Option<ConditionUpdate> {
    let first_reconcile = outcome.subject.previous.conditions.is_empty();
    match (obstacle, summary) {
        (
            Obstacle::ServerNotReady { .. } | Obstacle::Blocked(BlockedReason::ServerUnknown(_)),
            Summary::Waiting { reason, message },
        ) if type_ != api::REGISTERED => Some(ConditionUpdate::new(type_, Unknown, *reason, message)),
        (Obstacle::Blocked(BlockedReason::RegistryUnknown(_)), Summary::Waiting { reason, message }) => {
            Some(ConditionUpdate::new(type_, Unknown, *reason, message))
        }
        // Nothing says any more which access the tenant should have, and its login may work.
        (
            Obstacle::Blocked(BlockedReason::RowMissing | BlockedReason::Elsewhere),
            Summary::Stuck { reason, message },
        ) => {
            let status = if type_ == api::REGISTERED { False } else { Unknown };
            Some(ConditionUpdate::new(type_, status, *reason, message))
        }
        (Obstacle::Blocked(BlockedReason::NotAdopted(_)), Summary::Stuck { reason, message })
            if type_ == api::REGISTERED =>
        {
            Some(ConditionUpdate::new(type_, False, *reason, message))
        }
        (
            Obstacle::Blocked(BlockedReason::DatabaseMissing | BlockedReason::ForeignDatabase),
            Summary::Stuck { reason, message },
        ) if type_ == api::DATABASE_READY => Some(ConditionUpdate::new(type_, False, *reason, message)),
        (Obstacle::Blocked(_), Summary::Stuck { .. })
            if type_ == api::ACCESS_ENFORCED && access::is_proven(outcome) =>
        {
            Some(ConditionUpdate::new(type_, True, Reason::Verified, message_when_true))
        }
        (
            Obstacle::Blocked(BlockedReason::ForeignLogin | BlockedReason::Unrepairable(_)),
            Summary::Stuck { reason, message },
        ) if type_ == api::ACCESS_ENFORCED => Some(ConditionUpdate::new(type_, False, *reason, message)),
        _ if first_reconcile => {
            Some(ConditionUpdate::new(type_, Unknown, Reason::NotReached, "not checked yet"))
        }
        _ => None,
    }
}
