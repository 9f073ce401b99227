//! How a tenant leaves: why, after how long, and what becomes of its database. What the tenant says counts, else what
//! its plan says, else the defaults. It needs no valid spec and no plan.

use jiff::{SignedDuration, Timestamp};

use crate::api::{
    plan::GraceSeconds,
    tenant::{DeletionPolicy, OffboardingTrigger, Tenant},
};

/// The least grace of a tenant that nobody asked to take down, in seconds: its object vanished.
const VANISHED_GRACE: i64 = 24 * 3600;

/// How a tenant leaves, as far as its object and its plan say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// What it is caused by.
    pub trigger: OffboardingTrigger,
    /// Why, in words, for the audit trail.
    pub reason: Option<String>,
    /// For how many seconds it can be undone; none where only the plan would say, and there is no such plan.
    pub grace_seconds: Option<i64>,
    /// Whether the database is kept, cut off.
    pub retain: bool,
    /// Whether the purge waits, whatever the time.
    pub paused: bool,
}

/// What a tenant's plan says of its grace.
#[derive(Clone, Copy, Debug)]
pub enum PlanGrace<'a> {
    /// There is no such plan (any more).
    NoPlan,
    /// The plan's words, if it has any.
    Says(Option<&'a GraceSeconds>),
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
    /// grace. While nobody says how long it is, since the plan is gone, what is `recorded` stays, and the first time
    /// there is a day at least: a plan that was deleted takes no customer's time away.
    pub fn terms(&self, began: Timestamp, handed_out: bool, recorded: Option<Terms>) -> Terms {
        let purge_after = match (handed_out, self.grace_seconds, recorded) {
            (false, ..) => began,
            (true, Some(grace), _) => purge_after(began, grace),
            (true, None, Some(recorded)) => recorded.purge_after,
            (true, None, None) => purge_after(began, default_grace(self.trigger).max(VANISHED_GRACE)),
        };
        Terms { purge_after, retain: self.retain, held: self.paused }
    }
}

/// Reads it off an object.
pub fn departure(tenant: &Tenant, plan: PlanGrace<'_>) -> Departure {
    let offboarding = tenant.spec.offboarding.as_ref();
    // A bare `kubectl delete` counts as the customer's request.
    let trigger = offboarding.and_then(|o| o.trigger).unwrap_or(OffboardingTrigger::CustomerRequest);
    let own = offboarding.and_then(|o| o.grace_period_seconds);
    let words = offboarding.and_then(|o| o.reason.clone()).filter(|reason| !reason.is_empty());
    Departure {
        trigger,
        reason: words.or_else(|| tenant.spec.state_reason.clone()).filter(|reason| !reason.is_empty()),
        grace_seconds: own.or_else(|| planned(plan, trigger)).map(|seconds| seconds.max(0)),
        retain: tenant.spec.deletion_policy.unwrap_or_default() == DeletionPolicy::Retain,
        paused: tenant.spec.paused.unwrap_or(false),
    }
}

/// The grace of a plan for a trigger, in seconds: the default where it says nothing, none where it is not there.
fn planned(plan: PlanGrace<'_>, trigger: OffboardingTrigger) -> Option<i64> {
    let PlanGrace::Says(words) = plan else { return None };
    let said = words.and_then(|words| match trigger {
        OffboardingTrigger::CustomerRequest => words.customer_request,
        OffboardingTrigger::ContractEnd => words.contract_end,
        OffboardingTrigger::NonPayment => words.non_payment,
        OffboardingTrigger::TermsViolation => words.terms_violation,
    });
    Some(said.unwrap_or_else(|| default_grace(trigger)))
}

/// The grace for a trigger where nobody says anything, in seconds.
fn default_grace(trigger: OffboardingTrigger) -> i64 {
    const DAY: i64 = 24 * 3600;
    match trigger {
        OffboardingTrigger::CustomerRequest | OffboardingTrigger::ContractEnd => 30 * DAY,
        OffboardingTrigger::NonPayment => 60 * DAY,
        OffboardingTrigger::TermsViolation => 0,
    }
}

/// The grace of a tenant that nobody asked to take down, in seconds.
pub fn vanished_grace(plan: PlanGrace<'_>) -> i64 {
    let trigger = OffboardingTrigger::CustomerRequest;
    planned(plan, trigger).unwrap_or_else(|| default_grace(trigger)).max(VANISHED_GRACE)
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
        under(spec, PlanGrace::Says(plan.as_ref()))
    }

    fn under(spec: Value, plan: PlanGrace<'_>) -> Departure {
        let mut all = json!({"slug": "acme", "displayName": "Acme", "plan": "starter"});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let tenant = serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": all,
        }));
        departure(&tenant.unwrap(), plan)
    }

    #[test]
    fn a_bare_deletion_is_the_customers_request_and_has_thirty_days() {
        let bare = of(json!({}), None);
        assert_eq!(
            (bare.trigger, bare.grace_seconds),
            (OffboardingTrigger::CustomerRequest, Some(30 * 86_400))
        );
        assert!(!bare.retain && !bare.paused && bare.reason.is_none());
    }

    #[test]
    fn each_trigger_has_its_default() {
        for (trigger, days) in
            [("CustomerRequest", 30), ("ContractEnd", 30), ("NonPayment", 60), ("TermsViolation", 0)]
        {
            let got = of(json!({"offboarding": {"trigger": trigger}}), None);
            assert_eq!(got.grace_seconds, Some(days * 86_400), "{trigger}");
        }
    }

    #[test]
    fn the_tenant_wins_over_the_plan_and_the_plan_over_the_default() {
        let plan = || Some(GraceSeconds { contract_end: Some(7), ..GraceSeconds::default() });
        let trigger = json!({"offboarding": {"trigger": "ContractEnd"}});
        assert_eq!(of(trigger, plan()).grace_seconds, Some(7));
        let own = json!({"offboarding": {"trigger": "ContractEnd", "gracePeriodSeconds": 0}});
        assert_eq!(of(own, plan()).grace_seconds, Some(0));
        assert_eq!(of(json!({}), plan()).grace_seconds, Some(30 * 86_400));
    }

    #[test]
    fn a_plan_that_is_gone_takes_no_time_away() {
        const BEGAN: Timestamp = Timestamp::constant(1_000_000, 0);
        let violation = json!({"offboarding": {"trigger": "TermsViolation"}});
        let without = under(violation.clone(), PlanGrace::NoPlan);
        let seconds = |terms: Terms| terms.purge_after.as_second() - BEGAN.as_second();
        assert_eq!(seconds(without.terms(BEGAN, true, None)), VANISHED_GRACE, "a day at least");
        let recorded = Terms { purge_after: purge_after(BEGAN, 90 * 86_400), retain: false, held: false };
        assert_eq!(without.terms(BEGAN, true, Some(recorded)), recorded);
        // What can be told apart from the plan still counts, and a plan that is there may say less.
        let more = json!({"deletionPolicy": "Retain", "paused": true});
        let changed = under(more, PlanGrace::NoPlan).terms(BEGAN, true, Some(recorded));
        assert_eq!(changed, Terms { retain: true, held: true, ..recorded });
        let own = json!({"offboarding": {"gracePeriodSeconds": 5}});
        assert_eq!(seconds(under(own, PlanGrace::NoPlan).terms(BEGAN, true, Some(recorded))), 5);
        assert_eq!(seconds(of(violation, None).terms(BEGAN, true, Some(recorded))), 0);
        // One that was never handed out has nothing to lose.
        assert_eq!(seconds(without.terms(BEGAN, false, Some(recorded))), 0);
        assert_eq!(vanished_grace(PlanGrace::NoPlan), 30 * 86_400);
        let none = GraceSeconds { customer_request: Some(0), ..GraceSeconds::default() };
        assert_eq!(vanished_grace(PlanGrace::Says(Some(&none))), VANISHED_GRACE);
    }

    #[test]
    fn the_end_of_time_is_no_error() {
        assert_eq!(purge_after(Timestamp::MAX, 1), Timestamp::MAX);
        assert_eq!(purge_after(Timestamp::UNIX_EPOCH, 60).as_second(), 60);
    }
}
