//! What a tenant's standing is judged by, and what follows from each of it: the level that a hold leaves, the gates that
//! count, the end of the trial.

use jiff::{SignedDuration, Timestamp};

use super::{
    access::AccessLevel,
    gates::{self, Gate},
    hold::{Hold, Party},
};
use crate::api::{
    plan::TenantPlanSpec,
    tenant::{SuspensionMode, SuspensionTrigger, Tenant},
};

/// What a standing is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// What is wanted.
    pub tenant: &'a Tenant,
    /// The plan that it names, if there is one.
    pub plan: Option<&'a TenantPlanSpec>,
    /// The holds that the registry has.
    pub holds: &'a [Hold],
    /// When it was handed out first.
    pub activated_at: Option<Timestamp>,
    /// The gates that its plan began with, once it was handed out; until then they are those of its plan.
    pub default_gates: Option<&'a [String]>,
    /// The gates as they were recorded last.
    pub recorded_gates: &'a [Gate],
    /// When all gates were done for the first time.
    pub gates_done_at: Option<Timestamp>,
    /// When its trial ends, as it was said last: it counts while there is no plan to say it.
    pub known_trial_end: Option<Timestamp>,
}

impl Given<'_> {
    /// The mode of a suspension: as said, else by the plan for its trigger, else the strictest.
    pub(super) fn level(
        &self,
        said: Option<SuspensionMode>,
        trigger: Option<SuspensionTrigger>,
    ) -> AccessLevel {
        let planned = || self.plan?.suspension_mode.as_ref()?.of(trigger?);
        match said.or_else(planned).unwrap_or(SuspensionMode::Blocked) {
            SuspensionMode::Blocked => AccessLevel::Blocked,
            SuspensionMode::ReadOnly => AccessLevel::ReadOnly,
        }
    }

    /// What a hold leaves.
    pub(super) fn level_of(&self, hold: &Hold) -> AccessLevel {
        match hold.party {
            Party::Quota { .. } => AccessLevel::ShrinkOnly,
            Party::TenantHold | Party::Tenantry { .. } => self.level(hold.mode, hold.trigger),
        }
    }

    /// The gates that count.
    pub(super) fn gates(&self) -> Vec<Gate> {
        let from_plan = || self.plan.map(|plan| plan.gates.iter().map(|gate| gate.name.clone()).collect());
        let defaults = self.default_gates.map(<[String]>::to_vec).or_else(from_plan).unwrap_or_default();
        gates::gates(&defaults, &self.tenant.spec.gates, self.recorded_gates)
    }

    /// When the trial ends: by the tenant, else by its plan from the day it was handed out, or on which the last of these
    /// `gates` was done: nobody's trial is over before it could begin.
    pub(super) fn trial_end(&self, gates: &[Gate], now: Timestamp) -> Option<Timestamp> {
        let said = self.tenant.spec.trial.as_ref().and_then(|trial| trial.ends_at.as_ref());
        if let Some(at) = said {
            return Some(at.0);
        }
        let Some(plan) = self.plan else { return self.known_trial_end };
        let days = plan.trial_days.filter(|days| *days > 0)?;
        let length = SignedDuration::from_hours(24 * i64::from(days));
        let done_at = match self.gates_done_at {
            None if !gates::open(gates).is_empty() => return None,
            // The last one is done just now.
            None if !gates::open(self.recorded_gates).is_empty() => Some(now),
            recorded => recorded,
        };
        let begins = self.activated_at?.max(done_at.unwrap_or(Timestamp::MIN));
        Some(begins.checked_add(length).unwrap_or(Timestamp::MAX))
    }
}
