//! Offboarding: its cause, its grace period, and what happens to the database. The Tenant's spec decides, else its
//! plan, else the defaults. It needs no valid spec and no plan.

use jiff::{SignedDuration, Timestamp};

use crate::api::{
    plan::GraceSeconds,
    tenant::{DeletionPolicy, DesiredState, OffboardingTrigger, Tenant},
};

/// The minimum grace period of a tenant whose object vanished without a deletion, in seconds.
const VANISHED_GRACE: i64 = 24 * 3600;

/// How a tenant is offboarded, as its object and its plan specify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffboardingPolicy {
    /// The cause.
    pub trigger: OffboardingTrigger,
    /// The reason, as text for the audit trail.
    pub reason: Option<String>,
    /// The grace period in seconds; none where only the plan would specify it, and the plan does not exist.
    pub grace_seconds: Option<i64>,
    /// Whether the database is kept, without access.
    pub retain: bool,
    /// Whether the purge is held, after the grace period too.
    pub paused: bool,
}

/// The grace periods of a tenant's plan.
#[derive(Clone, Copy, Debug)]
pub enum PlanGrace<'a> {
    /// The plan does not exist.
    NoPlan,
    /// The plan's grace periods, if it has any.
    Plan(Option<&'a GraceSeconds>),
}

/// The terms of a deprovisioning, as the registry stores them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeTerms {
    /// From when on the database may be dropped.
    pub purge_after: Timestamp,
    /// Whether the database is kept instead.
    pub retain: bool,
    /// Whether the purge is held, after the grace period too.
    pub held: bool,
}

impl OffboardingPolicy {
    /// The terms of a deprovisioning that began at `began`. A tenant that was never active has no grace period. While
    /// the plan that specifies the grace period does not exist, the `recorded` terms stay, and without them the period
    /// is at least a day: deleting a plan shortens no customer's grace period.
    pub fn terms(&self, began: Timestamp, activated: bool, recorded: Option<PurgeTerms>) -> PurgeTerms {
        let purge_after = match (activated, self.grace_seconds, recorded) {
            (false, ..) => began,
            (true, Some(grace), _) => purge_after(began, grace),
            (true, None, Some(recorded)) => recorded.purge_after,
            (true, None, None) => purge_after(began, default_grace(self.trigger).max(VANISHED_GRACE)),
        };
        PurgeTerms { purge_after, retain: self.retain, held: self.paused }
    }
}

/// The policy of a Tenant. `state_reason` is the reason of the state that it declares.
pub fn offboarding_policy(
    tenant: &Tenant,
    state_reason: Option<String>,
    plan: PlanGrace<'_>,
) -> OffboardingPolicy {
    let offboarding = tenant.spec.offboarding.as_ref();
    // A bare `kubectl delete` counts as the customer's request.
    let trigger = offboarding.and_then(|o| o.trigger).unwrap_or(OffboardingTrigger::CustomerRequest);
    let own = offboarding.and_then(|o| o.grace_period_seconds);
    let reason = offboarding.and_then(|o| o.reason.clone()).filter(|reason| !reason.is_empty());
    // The reason of another state, in force or ended, is none for a deletion.
    let deprovisioned = tenant.spec.state == Some(DesiredState::Deprovisioned);
    let of_state = state_reason.filter(|_| deprovisioned);
    OffboardingPolicy {
        trigger,
        reason: reason.or(of_state).filter(|reason| !reason.is_empty()),
        grace_seconds: own.or_else(|| planned(plan, trigger)).map(|seconds| seconds.max(0)),
        retain: tenant.spec.deletion_policy.unwrap_or_default() == DeletionPolicy::Retain,
        paused: tenant.spec.paused.unwrap_or(false),
    }
}

/// The grace period of a plan for a trigger, in seconds: the default if the plan does not set it, none without a plan.
fn planned(plan: PlanGrace<'_>, trigger: OffboardingTrigger) -> Option<i64> {
    let PlanGrace::Plan(grace) = plan else { return None };
    let own = grace.and_then(|grace| match trigger {
        OffboardingTrigger::CustomerRequest => grace.customer_request,
        OffboardingTrigger::ContractEnd => grace.contract_end,
        OffboardingTrigger::NonPayment => grace.non_payment,
        OffboardingTrigger::TermsViolation => grace.terms_violation,
    });
    Some(own.unwrap_or_else(|| default_grace(trigger)))
}

/// The default grace period for a trigger, in seconds.
fn default_grace(trigger: OffboardingTrigger) -> i64 {
    const DAY: i64 = 24 * 3600;
    match trigger {
        OffboardingTrigger::CustomerRequest | OffboardingTrigger::ContractEnd => 30 * DAY,
        OffboardingTrigger::NonPayment => 60 * DAY,
        OffboardingTrigger::TermsViolation => 0,
    }
}

/// The grace period of a tenant whose object vanished without a deletion, in seconds.
pub fn vanished_grace(plan: PlanGrace<'_>) -> i64 {
    let trigger = OffboardingTrigger::CustomerRequest;
    planned(plan, trigger).unwrap_or_else(|| default_grace(trigger)).max(VANISHED_GRACE)
}

/// When a grace period that began at `began` ends; at most the maximum timestamp.
pub fn purge_after(began: Timestamp, grace_seconds: i64) -> Timestamp {
    began.checked_add(SignedDuration::from_secs(grace_seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(spec: Value, plan: Option<GraceSeconds>) -> OffboardingPolicy {
        under(spec, PlanGrace::Plan(plan.as_ref()))
    }

    fn under(spec: Value, plan: PlanGrace<'_>) -> OffboardingPolicy {
        let mut all = json!({"slug": "acme", "displayName": "Acme", "plan": "starter"});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let tenant: Tenant = serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": all,
        }))
        .unwrap();
        offboarding_policy(&tenant, tenant.spec.state_reason.clone(), plan)
    }

    #[test]
    fn bare_deletion_is_customer_request_with_thirty_days() {
        let bare = of(json!({}), None);
        assert_eq!(
            (bare.trigger, bare.grace_seconds),
            (OffboardingTrigger::CustomerRequest, Some(30 * 86_400))
        );
        assert!(!bare.retain && !bare.paused && bare.reason.is_none());
    }

    #[test]
    fn reason_of_a_suspension_is_not_that_of_a_deletion() {
        let reason = |spec| of(spec, None).reason;
        assert_eq!(reason(json!({"stateReason": "unpaid"})), None);
        assert_eq!(reason(json!({"state": "Active", "stateReason": "unpaid"})), None);
        assert_eq!(reason(json!({"state": "Suspended", "stateReason": "unpaid"})), None);
        let left = json!({"state": "Deprovisioned", "stateReason": "left"});
        assert_eq!(reason(left.clone()).as_deref(), Some("left"));
        let own = json!({"stateReason": "unpaid", "offboarding": {"reason": "contract ended"}});
        assert_eq!(reason(own).as_deref(), Some("contract ended"));
    }

    #[test]
    fn each_trigger_has_its_default_grace() {
        for (trigger, days) in
            [("CustomerRequest", 30), ("ContractEnd", 30), ("NonPayment", 60), ("TermsViolation", 0)]
        {
            let got = of(json!({"offboarding": {"trigger": trigger}}), None);
            assert_eq!(got.grace_seconds, Some(days * 86_400), "{trigger}");
        }
    }

    #[test]
    fn tenant_overrides_plan_and_plan_overrides_default() {
        let plan = || Some(GraceSeconds { contract_end: Some(7), ..GraceSeconds::default() });
        let trigger = json!({"offboarding": {"trigger": "ContractEnd"}});
        assert_eq!(of(trigger, plan()).grace_seconds, Some(7));
        let own = json!({"offboarding": {"trigger": "ContractEnd", "gracePeriodSeconds": 0}});
        assert_eq!(of(own, plan()).grace_seconds, Some(0));
        assert_eq!(of(json!({}), plan()).grace_seconds, Some(30 * 86_400));
    }

    #[test]
    fn deleted_plan_does_not_shorten_the_grace_period() {
        const BEGAN: Timestamp = Timestamp::constant(1_000_000, 0);
        let violation = json!({"offboarding": {"trigger": "TermsViolation"}});
        let without = under(violation.clone(), PlanGrace::NoPlan);
        let seconds = |terms: PurgeTerms| terms.purge_after.as_second() - BEGAN.as_second();
        assert_eq!(seconds(without.terms(BEGAN, true, None)), VANISHED_GRACE, "a day at least");
        let recorded =
            PurgeTerms { purge_after: purge_after(BEGAN, 90 * 86_400), retain: false, held: false };
        assert_eq!(without.terms(BEGAN, true, Some(recorded)), recorded);
        // What the Tenant itself specifies still applies, and an existing plan may specify less.
        let more = json!({"deletionPolicy": "Retain", "paused": true});
        let changed = under(more, PlanGrace::NoPlan).terms(BEGAN, true, Some(recorded));
        assert_eq!(changed, PurgeTerms { retain: true, held: true, ..recorded });
        let own = json!({"offboarding": {"gracePeriodSeconds": 5}});
        assert_eq!(seconds(under(own, PlanGrace::NoPlan).terms(BEGAN, true, Some(recorded))), 5);
        assert_eq!(seconds(of(violation, None).terms(BEGAN, true, Some(recorded))), 0);
        // A tenant that was never active has no grace period.
        assert_eq!(seconds(without.terms(BEGAN, false, Some(recorded))), 0);
        assert_eq!(vanished_grace(PlanGrace::NoPlan), 30 * 86_400);
        let none = GraceSeconds { customer_request: Some(0), ..GraceSeconds::default() };
        assert_eq!(vanished_grace(PlanGrace::Plan(Some(&none))), VANISHED_GRACE);
    }

    #[test]
    fn purge_time_is_capped_at_maximum() {
        assert_eq!(purge_after(Timestamp::MAX, 1), Timestamp::MAX);
        assert_eq!(purge_after(Timestamp::UNIX_EPOCH, 60).as_second(), 60);
    }
}
