//! The access evaluation of a tenant that is active or about to be activated: its access level, and why it is not full.
//! Everything that restricts access is combined here, and the strictest applies. What changes with time alone is
//! returned with the time of the change.

use jiff::{SignedDuration, Timestamp};

use super::{
    AccessLevel,
    gates::{self, EffectiveGate},
    holds::{INACTIVITY, QUOTA, is_lifted},
    inputs::AccessInputs,
};
use crate::{
    api::tenant::{DesiredState, SuspensionTrigger},
    domain::{lifecycle::Guard, observed::RegistryStatus},
};

/// A warning is published this long before an expiry, or after half of the time if that is less.
const WARNING: SignedDuration = SignedDuration::from_hours(72);

/// The reason of a suspension for which none was given: `spec.stateReason` is that of a change of the slug.
const NO_REASON: &str = "no reason was given";

/// What restricts a tenant's access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestrictionCause {
    /// `spec.state: Suspended`.
    SpecState,
    /// A hold, by name.
    Hold(String),
    /// Gates of the onboarding are not done.
    OpenGates,
    /// The trial ended at this time.
    TrialEnded(Timestamp),
    /// `spec.validity.notBefore` is in the future.
    NotYetValid(Timestamp),
    /// `spec.validity.notAfter` is in the past.
    Expired(Timestamp),
}

/// One reason why a tenant does not have full access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restriction {
    /// The cause.
    pub cause: RestrictionCause,
    /// The access level that it allows.
    pub level: AccessLevel,
    /// The trigger of the suspension or the hold.
    pub trigger: Option<SuspensionTrigger>,
    /// The reason, as text for users and for the audit trail.
    pub reason: String,
}

/// What expires with time alone, and then restricts access or changes the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryKind {
    /// The trial.
    Trial,
    /// The validity.
    Validity,
}

/// An upcoming expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiryWarning {
    /// What expires.
    pub kind: ExpiryKind,
    /// When it expires.
    pub at: Timestamp,
    /// From when on the warning is due.
    pub from: Timestamp,
}

/// The result of an access evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessEvaluation {
    /// The access level.
    pub access: AccessLevel,
    /// `Trial`, `Active` or `Suspended`.
    pub state: RegistryStatus,
    /// The plan: that of the spec, or the one that follows the trial.
    pub plan: String,
    /// When the trial ends, or ended.
    pub trial_ends_at: Option<Timestamp>,
    /// The gates of the onboarding, by name.
    pub gates: Vec<EffectiveGate>,
    /// What restricts access, strictest first.
    pub restrictions: Vec<Restriction>,
    /// When time alone changes this evaluation next.
    pub changes_at: Option<Timestamp>,
    /// The next expiry, while access is not restricted.
    pub warning: Option<ExpiryWarning>,
}

/// Evaluates a tenant's access at a time.
pub fn evaluate_access(inputs: AccessInputs<'_>, now: Timestamp) -> AccessEvaluation {
    let gates = inputs.gates();
    let trial_ends_at = inputs.trial_end(&gates, now);
    let trial_ended_at = trial_ends_at.filter(|at| *at <= now);
    let next_plan = trial_ended_at.and_then(|_| inputs.plan_after_trial());
    let suspended_at = trial_ended_at.filter(|_| next_plan.is_none());
    let mut restrictions: Vec<Restriction> = suspension(inputs)
        .into_iter()
        .chain(holds(inputs))
        .chain(open_gates(&gates))
        .chain(suspended_at.map(|at| ended_trial(inputs, at)))
        .chain(outside_validity(inputs, now))
        .collect();
    restrictions.sort_by_key(|restriction| restriction.level);
    let in_trial = trial_ends_at.is_some_and(|at| now < at);
    let state = match (restrictions.is_empty(), in_trial) {
        (false, _) => RegistryStatus::Suspended,
        (true, true) => RegistryStatus::Trial,
        (true, false) => RegistryStatus::Active,
    };
    let warning = next_expiry(inputs, trial_ends_at, now).filter(|_| restrictions.is_empty());
    let times = [trial_ends_at, inputs.not_before(), inputs.not_after(), warning.map(|warning| warning.from)];
    AccessEvaluation {
        access: restrictions.first().map_or(AccessLevel::ReadWrite, |strictest| strictest.level),
        state,
        plan: next_plan.unwrap_or_else(|| inputs.tenant.spec.plan.clone()),
        trial_ends_at,
        gates,
        restrictions,
        changes_at: times.into_iter().flatten().filter(|at| now < *at).min(),
        warning,
    }
}

fn suspension(inputs: AccessInputs<'_>) -> Option<Restriction> {
    let spec = &inputs.tenant.spec;
    let suspension = spec.suspension.as_ref();
    let trigger = suspension.and_then(|suspension| suspension.trigger);
    (spec.state == Some(DesiredState::Suspended)).then(|| Restriction {
        cause: RestrictionCause::SpecState,
        level: inputs.level(suspension.and_then(|suspension| suspension.mode), trigger),
        trigger,
        reason: inputs.state_reason.unwrap_or(NO_REASON).to_owned(),
    })
}

fn holds(inputs: AccessInputs<'_>) -> impl Iterator<Item = Restriction> {
    inputs.holds.iter().filter(move |hold| !is_lifted(hold, inputs.tenant)).filter_map(move |hold| {
        Some(Restriction {
            cause: RestrictionCause::Hold(hold.name.clone()),
            level: inputs.level_of(hold)?,
            trigger: hold.trigger,
            reason: hold.reason.clone(),
        })
    })
}

fn open_gates(gates: &[EffectiveGate]) -> Option<Restriction> {
    let open = gates::open(gates);
    (!open.is_empty())
        .then(|| blocked(RestrictionCause::OpenGates, format!("not done yet: {}", open.join(", "))))
}

fn ended_trial(inputs: AccessInputs<'_>, at: Timestamp) -> Restriction {
    let end = inputs.plan.and_then(|plan| plan.trial_end.as_ref());
    Restriction {
        cause: RestrictionCause::TrialEnded(at),
        level: inputs.level(end.and_then(|end| end.mode), None),
        trigger: None,
        reason: format!("the trial ended at {at}"),
    }
}

fn outside_validity(inputs: AccessInputs<'_>, now: Timestamp) -> impl Iterator<Item = Restriction> {
    let early = inputs.not_before().filter(|at| now < *at);
    let late = inputs.not_after().filter(|at| *at <= now);
    let early = early.map(|at| blocked(RestrictionCause::NotYetValid(at), format!("valid from {at} on")));
    let late = late.map(|at| blocked(RestrictionCause::Expired(at), format!("valid until {at}")));
    early.into_iter().chain(late)
}

fn blocked(cause: RestrictionCause, reason: String) -> Restriction {
    Restriction { cause, level: AccessLevel::Blocked, trigger: None, reason }
}

fn next_expiry(
    inputs: AccessInputs<'_>,
    trial_ends_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<ExpiryWarning> {
    let begun = inputs.activated_at.unwrap_or(now);
    [(ExpiryKind::Trial, trial_ends_at), (ExpiryKind::Validity, inputs.not_after())]
        .into_iter()
        .filter_map(|(kind, at)| Some((kind, at.filter(|at| now < *at)?)))
        .map(|(kind, at)| ExpiryWarning { kind, at, from: warn_from(begun, at) })
        .min_by_key(|warning| warning.at)
}

fn warn_from(begun: Timestamp, at: Timestamp) -> Timestamp {
    let half = at.duration_since(begun) / 2;
    at.checked_sub(WARNING.min(half.max(SignedDuration::ZERO))).unwrap_or(Timestamp::MIN)
}

impl AccessEvaluation {
    /// Whether the evaluation satisfies a guard of the lifecycle's table.
    pub fn satisfies(&self, guard: Guard) -> bool {
        match guard {
            Guard::Always => true,
            Guard::InTrial => self.state == RegistryStatus::Trial,
            Guard::Unrestricted => self.state == RegistryStatus::Active,
            Guard::Restricted => self.state == RegistryStatus::Suspended,
            Guard::WasActivated | Guard::NeverActivated | Guard::DatabaseDroppedOrRetained => false,
        }
    }

    /// Every restriction, for users and for the audit trail; none while access is not restricted.
    pub fn summary(&self) -> Option<String> {
        let describe = |restriction: &Restriction| {
            let what = match &restriction.cause {
                RestrictionCause::SpecState => "spec.state is Suspended".to_owned(),
                RestrictionCause::Hold(name) => format!("hold {name:?}"),
                RestrictionCause::OpenGates => "gates".to_owned(),
                RestrictionCause::TrialEnded(_) => "trial".to_owned(),
                RestrictionCause::NotYetValid(_) | RestrictionCause::Expired(_) => "validity".to_owned(),
            };
            let trigger = restriction.trigger.map(|trigger| format!(", {trigger}")).unwrap_or_default();
            format!("{what} ({}{trigger}): {}", restriction.level, restriction.reason)
        };
        (!self.restrictions.is_empty())
            .then(|| self.restrictions.iter().map(describe).collect::<Vec<_>>().join("; "))
    }

    /// Whether only time and the operator's own holds restrict access: no user asked for it.
    pub fn is_automatic(&self) -> bool {
        !self.restrictions.is_empty()
            && self.restrictions.iter().all(|restriction| match &restriction.cause {
                RestrictionCause::SpecState | RestrictionCause::OpenGates => false,
                // These names are reserved for the operator.
                RestrictionCause::Hold(name) => [INACTIVITY, QUOTA].contains(&name.as_str()),
                RestrictionCause::TrialEnded(_)
                | RestrictionCause::NotYetValid(_)
                | RestrictionCause::Expired(_) => true,
            })
    }
}

#[cfg(test)]
mod tests;
