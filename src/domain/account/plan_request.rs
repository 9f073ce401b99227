//! Whether another plan is granted without asking.

use super::{Allowed, RecordedPlanRequest};
use crate::domain::usage::entitlements::{Amounts, Entitlements};

/// What is decided about a request for another plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanAnswer {
    /// Nothing is left to decide.
    Nothing,
    /// The plan is in force: that is as good as granted.
    InForce,
    /// The plan in force allows it.
    Grant,
    /// A platform operator decides.
    Wait,
}

impl RecordedPlanRequest {
    /// Decides. A request is granted once: what a platform operator decides after that stays. `fits` is whether the tenant can
    /// have the plan.
    pub fn answer(&self, in_force: &str, allowed: &Allowed, fits: impl FnOnce() -> bool) -> PlanAnswer {
        if self.answered {
            PlanAnswer::Nothing
        } else if self.plan == in_force {
            PlanAnswer::InForce
        } else if allowed.plans.contains(&self.plan) && fits() {
            PlanAnswer::Grant
        } else {
            PlanAnswer::Wait
        }
    }
}

/// Whether what a tenant uses is within the limits of another plan.
pub fn fits(offered: &Entitlements, usage: &Amounts) -> bool {
    usage.iter().all(|(name, amount)| {
        offered.limits.get(name).copied().flatten().is_none_or(|maximum| *amount <= maximum)
    })
}
