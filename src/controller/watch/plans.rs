//! The watch on TenantPlans: a changed plan is rolled out to its tenants.

use kube::{
    Api, ResourceExt,
    runtime::reflector::{ObjectRef, store::Writer},
};
use tracing::info;

use super::{
    decode::watch,
    follow::{Change, follow},
    source::watch_config,
};
use crate::{
    api::{plan::TenantPlan, reason::Reason, tenant::Tenant},
    controller::{
        context::{Context, SharedContext},
        state::{fingerprint, invalid_objects::InvalidObjects},
    },
};

/// Keeps the store of plans up to date, and rolls out their changes. A plan itself is reconciled when its finalizers
/// change too.
pub async fn run(context: SharedContext, writer: Writer<TenantPlan>) {
    let plans = Api::all(context.watch_client.clone());
    let events = watch(plans, watch_config(), writer, InvalidObjects::default(), &context);
    let on_change = |plan: &TenantPlan, change| {
        roll_out(plan, change, &context);
        context.state.plans_changed.notify_one();
        context.state.objects_changed.notify_one();
    };
    follow(events, fingerprint::of_plan, on_change).await;
}

/// Adds the tenants that are on a plan, or come to it when their trial ends, to the rollout, if its spec changed. Tenants
/// that wait for the plan are urgent.
fn roll_out(plan: &TenantPlan, change: Change, context: &Context) {
    let rollout = &context.state.plan_rollout;
    match change {
        Change::Deleted => rollout.forget_plan(plan),
        Change::Appeared | Change::Changed if rollout.spec_changed(plan) => {}
        Change::Appeared | Change::Changed => return,
    }
    let name = plan.name_any();
    let is_it = |plan: Option<String>| plan.as_ref() == Some(&name);
    let after_trial =
        |tenant: &Tenant| context.plan(&tenant.spec.plan)?.spec.trial_end.as_ref()?.plan.clone();
    let mut count = 0_usize;
    for tenant in context.stores.scopes.tenants() {
        let status = tenant.status.as_ref();
        let in_force = status.and_then(|status| status.plan.clone());
        let granted = status.and_then(|status| status.granted_plan.clone());
        if tenant.spec.plan == name || is_it(in_force) || is_it(granted) || is_it(after_trial(&tenant)) {
            let failure = context.state.retries.failure(&ObjectRef::from_obj(tenant.as_ref()));
            rollout.add(&tenant, failure == Some(Reason::PlanNotFound));
            count += 1;
        }
    }
    if count > 0 {
        info!(plan = name, tenants = count, "the plan changed: its tenants are reconciled");
    }
    rollout.notify();
}
