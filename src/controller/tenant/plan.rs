//! The third phase of a reconcile: which steps bring what was observed to what is wanted. The decision itself is in
//! `domain::workflow`; this hands it what it needs.

use k8s_openapi::jiff::Timestamp;

use super::observe::Observed;
use crate::{
    controller::context::SharedContext,
    domain::{
        breaker::PurgeContext,
        declaration::Declaration,
        observed::RegistryStatus,
        offboarding::{OffboardingPolicy, PurgeTerms, offboarding_policy},
        record::TenantRecord,
        subject::Subject,
        usage::entitlements::Entitlements,
        workflow::{
            NextAction, ObjectState, ProvisionTarget, TenantObject, attempt::Progress, plan_deprovision,
            plan_provision, plan_restriction, step::Step,
        },
    },
};

/// What to do next.
pub fn plan(observed: &Observed<'_>, progress: &Progress, context: &SharedContext) -> NextAction {
    let (subject, facts) = (&observed.subject, &observed.facts);
    let object = current_object(subject, progress);
    if subject.is_deprovisioning() {
        let now = context.clock.now();
        let purges = PurgeContext { now, breaker: context.state.breaker.state() };
        return plan_deprovision(object, purge_terms(subject, context, now), facts, purges);
    }
    match &subject.desired {
        Some(desired) => {
            let action = plan_provision(object, target(subject, &desired.seed_digest()), facts);
            let inspection = observed.takeover.as_ref();
            action.unless_refused(inspection.and_then(|inspection| inspection.refusal.clone()))
        }
        // Access is restricted even for a spec that cannot be acted on.
        None => plan_restriction(subject.object, target(subject, ""), facts),
    }
}

/// How the tenant is deprovisioned, by its spec and its plan.
pub fn policy(subject: &Subject<'_>, context: &SharedContext) -> OffboardingPolicy {
    let declared = subject.record.as_ref().and_then(|record| record.declaration.as_ref());
    context.with_plan_grace(&subject.tenant.spec.plan, |grace| {
        let reason = Declaration::state_reason(subject.tenant, declared);
        offboarding_policy(subject.tenant, reason, grace)
    })
}

/// The object with what this reconcile has changed on it.
fn current_object(subject: &Subject<'_>, progress: &Progress) -> TenantObject {
    let object = subject.object;
    TenantObject { has_finalizer: object.has_finalizer || progress.has_done(Step::ClaimFinalizer), ..object }
}

/// What an active tenant should be.
fn target<'a>(subject: &Subject<'_>, seed_digest: &'a str) -> ProvisionTarget<'a> {
    let recorded = subject.record.as_ref().and_then(|record| record.entitlements.as_ref());
    let entitlements = subject.entitlements().or(recorded);
    ProvisionTarget {
        seed_digest,
        access: subject.wanted_access(),
        connections: entitlements.map_or(-1, Entitlements::connections),
        state: subject.access().map_or(RegistryStatus::Suspended, |access| access.state),
    }
}

/// When and whether the database is dropped: by the object and its plan while the object exists, then as recorded.
fn purge_terms(subject: &Subject<'_>, context: &SharedContext, now: Timestamp) -> PurgeTerms {
    let record = subject.record.as_ref();
    match record.and_then(TenantRecord::terms) {
        Some(recorded) if subject.object.state == ObjectState::Deleted => recorded,
        recorded => {
            let began = record.and_then(|record| record.deprovisioned_at).unwrap_or(now);
            let activated = record.is_some_and(|record| record.activated_at.is_some());
            policy(subject, context).terms(began, activated, recorded)
        }
    }
}
