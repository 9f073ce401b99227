//! How a tenant leaves: why, after how long, and what becomes of its database. What the tenant says counts, else what
//! its plan says, else the defaults. It needs no valid spec and no plan.

use jiff::{SignedDuration, Timestamp};

use crate::api::{
    plan::GraceSeconds,
    tenant::{DeletionPolicy, OffboardingTrigger, Tenant},
};

/// The least grace of a tenant that nobody asked to take down, in seconds: its object vanished.
pub const VANISHED_GRACE: i64 = 24 * 3600;

/// How a tenant leaves, as far as its object and its plan say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// What it is caused by.
    pub trigger: OffboardingTrigger,
    /// Why, in words, for the audit trail.
    pub reason: Option<String>,
    /// For how many seconds it can be undone.
    pub grace_seconds: i64,
    /// Whether the database is kept, cut off.
    pub retain: bool,
    /// Whether the purge waits, whatever the time.
    pub paused: bool,
}

/// What a departure comes to, as the registry keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// From when on the database may be dropped.
    pub purge_after: Timestamp,
    /// Whether it is kept instead.
    pub retain: bool,
    /// Whether that waits, whatever the time.
    pub held: bool,
}

impl Departure {
    /// The terms of a departure that began at `began`. A tenant that was never handed out has nothing to lose, and no
    /// grace.
    pub fn terms(&self, began: Timestamp, handed_out: bool) -> Terms {
        let grace = if handed_out { self.grace_seconds } else { 0 };
        Terms { purge_after: purge_after(began, grace), retain: self.retain, held: self.paused }
    }
}

/// Reads it off an object. `plan` is the grace that the tenant's plan gives, if there is such a plan.
pub fn departure(tenant: &Tenant, plan: Option<&GraceSeconds>) -> Departure {
    let offboarding = tenant.spec.offboarding.as_ref();
    // A bare `kubectl delete` counts as the customer's request.
    let trigger = offboarding.and_then(|o| o.trigger).unwrap_or(OffboardingTrigger::CustomerRequest);
    let own = offboarding.and_then(|o| o.grace_period_seconds);
    let words = offboarding.and_then(|o| o.reason.clone()).filter(|reason| !reason.is_empty());
    Departure {
        trigger,
        reason: words.or_else(|| tenant.spec.state_reason.clone()).filter(|reason| !reason.is_empty()),
        grace_seconds: own.unwrap_or_else(|| planned_grace(plan, trigger)).max(0),
        retain: tenant.spec.deletion_policy.unwrap_or_default() == DeletionPolicy::Retain,
        paused: tenant.spec.paused.unwrap_or(false),
    }
}

/// The grace of a plan for a trigger, in seconds; the default where it says nothing.
pub fn planned_grace(plan: Option<&GraceSeconds>, trigger: OffboardingTrigger) -> i64 {
    const DAY: i64 = 24 * 3600;
    let (said, default) = match trigger {
        OffboardingTrigger::CustomerRequest => (plan.and_then(|p| p.customer_request), 30 * DAY),
        OffboardingTrigger::ContractEnd => (plan.and_then(|p| p.contract_end), 30 * DAY),
        OffboardingTrigger::NonPayment => (plan.and_then(|p| p.non_payment), 60 * DAY),
        OffboardingTrigger::TermsViolation => (plan.and_then(|p| p.terms_violation), 0),
    };
    said.unwrap_or(default)
}

/// When a grace that began at `began` is over. What is beyond the end of time is the end of time.
pub fn purge_after(began: Timestamp, grace_seconds: i64) -> Timestamp {
    began.checked_add(SignedDuration::from_secs(grace_seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(spec: Value, plan: Option<GraceSeconds>) -> Departure {
        let mut all = json!({"slug": "acme", "displayName": "Acme", "plan": "starter"});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let tenant = serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": all,
        }));
        departure(&tenant.unwrap(), plan.as_ref())
    }

    #[test]
    fn a_bare_deletion_is_the_customers_request_and_has_thirty_days() {
        let bare = of(json!({}), None);
        assert_eq!((bare.trigger, bare.grace_seconds), (OffboardingTrigger::CustomerRequest, 30 * 86_400));
        assert!(!bare.retain && !bare.paused && bare.reason.is_none());
    }

    #[test]
    fn each_trigger_has_its_default() {
        for (trigger, days) in
            [("CustomerRequest", 30), ("ContractEnd", 30), ("NonPayment", 60), ("TermsViolation", 0)]
        {
            let got = of(json!({"offboarding": {"trigger": trigger}}), None);
            assert_eq!(got.grace_seconds, days * 86_400, "{trigger}");
        }
    }

    #[test]
    fn the_tenant_wins_over_the_plan_and_the_plan_over_the_default() {
        let plan = || Some(GraceSeconds { contract_end: Some(7), ..GraceSeconds::default() });
        let trigger = json!({"offboarding": {"trigger": "ContractEnd"}});
        assert_eq!(of(trigger, plan()).grace_seconds, 7);
        let own = json!({"offboarding": {"trigger": "ContractEnd", "gracePeriodSeconds": 0}});
        assert_eq!(of(own, plan()).grace_seconds, 0);
        assert_eq!(of(json!({}), plan()).grace_seconds, 30 * 86_400);
    }

    #[test]
    fn the_end_of_time_is_no_error() {
        assert_eq!(purge_after(Timestamp::MAX, 1), Timestamp::MAX);
        assert_eq!(purge_after(Timestamp::UNIX_EPOCH, 60).as_second(), 60);
    }
}
