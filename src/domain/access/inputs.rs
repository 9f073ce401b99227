//! The inputs of an access evaluation, and what follows from each: the level that a hold allows, the gates that apply,
//! the end of the trial.

use jiff::{SignedDuration, Timestamp};

use super::{
    AccessLevel,
    gates::{self, EffectiveGate},
    holds::{Hold, Party},
};
use crate::api::{
    plan::{TenantPlanSpec, TrialEndAction},
    tenant::{SuspensionMode, SuspensionTrigger, Tenant},
    tenant_hold::TenantHoldMode,
};

/// What an access evaluation is based on.
#[derive(Clone, Copy, Debug)]
pub struct AccessInputs<'a> {
    /// The Tenant.
    pub tenant: &'a Tenant,
    /// The reason of the state that it declares.
    pub state_reason: Option<&'a str>,
    /// The plan that it names, if that exists.
    pub plan: Option<&'a TenantPlanSpec>,
    /// The holds in the registry.
    pub holds: &'a [Hold],
    /// When the tenant was activated first.
    pub activated_at: Option<Timestamp>,
    /// The gates that its plan had at the first activation; none before that, where the plan's present gates apply.
    pub default_gates: Option<&'a [String]>,
    /// The gates as they were recorded last.
    pub recorded_gates: &'a [EffectiveGate],
    /// When all gates were done for the first time.
    pub gates_done_at: Option<Timestamp>,
    /// The last known end of the trial, which applies while the plan does not exist.
    pub known_trial_end: Option<Timestamp>,
}

/// The end of a trial in the spec that was over before the tenant was activated first.
pub fn past_trial_end(tenant: &Tenant, activated_at: Timestamp) -> Option<Timestamp> {
    let stated = tenant.spec.trial.as_ref()?.ends_at.as_ref()?.0;
    (stated <= activated_at).then_some(stated)
}

impl AccessInputs<'_> {
    /// The level of a suspension: its mode, else the plan's for the trigger, else the strictest.
    pub(super) fn level(
        &self,
        mode: Option<SuspensionMode>,
        trigger: Option<SuspensionTrigger>,
    ) -> AccessLevel {
        let planned = || self.plan?.suspension_mode.as_ref()?.of(trigger?);
        match mode.or_else(planned).unwrap_or(SuspensionMode::Blocked) {
            SuspensionMode::Blocked => AccessLevel::Blocked,
            SuspensionMode::ReadOnly => AccessLevel::ReadOnly,
        }
    }

    /// The level that a hold allows; none if it does not restrict access.
    pub(super) fn level_of(&self, hold: &Hold) -> Option<AccessLevel> {
        match hold.party {
            Party::Quota { .. } => Some(AccessLevel::ShrinkOnly),
            Party::TenantHold | Party::Tenantry { .. } if hold.is_unrestricting() => None,
            Party::TenantHold | Party::Tenantry { .. } => {
                Some(self.level(hold.mode.and_then(TenantHoldMode::suspension), hold.trigger))
            }
        }
    }

    /// The gates that apply.
    pub(super) fn gates(&self) -> Vec<EffectiveGate> {
        let from_plan = || self.plan.map(|plan| plan.gates.iter().map(|gate| gate.name.clone()).collect());
        let defaults = self.default_gates.map(<[String]>::to_vec).or_else(from_plan).unwrap_or_default();
        gates::gates(&defaults, &self.tenant.spec.gates, self.recorded_gates)
    }

    /// When the trial ends: as the Tenant states, else the plan's trialDays after the first activation, or after the
    /// last of these `gates` was done, so that no trial is over before the tenant could use it.
    pub(super) fn trial_end(&self, gates: &[EffectiveGate], now: Timestamp) -> Option<Timestamp> {
        let stated = self.tenant.spec.trial.as_ref().and_then(|trial| trial.ends_at.as_ref());
        if let Some(at) = stated {
            return Some(at.0);
        }
        let Some(plan) = self.plan else { return self.known_trial_end };
        let days = plan.trial_days.filter(|days| *days > 0)?;
        let length = SignedDuration::from_hours(24 * i64::from(days));
        let done_at = match self.gates_done_at {
            None if !gates::open(gates).is_empty() => return None,
            // The last gate has just been done.
            None if !gates::open(self.recorded_gates).is_empty() => Some(now),
            recorded => recorded,
        };
        let begins = self.activated_at?.max(done_at.unwrap_or(Timestamp::MIN));
        Some(begins.checked_add(length).unwrap_or(Timestamp::MAX))
    }

    /// The plan that follows a trial, if the plan changes at its end.
    pub(super) fn plan_after_trial(&self) -> Option<String> {
        let end = self.plan?.trial_end.as_ref()?;
        end.plan.clone().filter(|_| end.action == TrialEndAction::ChangePlan)
    }

    /// `spec.validity.notBefore`.
    pub(super) fn not_before(&self) -> Option<Timestamp> {
        Some(self.tenant.spec.validity.as_ref()?.not_before.as_ref()?.0)
    }

    /// `spec.validity.notAfter`.
    pub(super) fn not_after(&self) -> Option<Timestamp> {
        Some(self.tenant.spec.validity.as_ref()?.not_after.as_ref()?.0)
    }
}
