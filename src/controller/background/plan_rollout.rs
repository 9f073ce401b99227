//! Rolls a changed plan out to its tenants, a few at a time, so that other tenants do not wait behind them.

use crate::controller::{context::SharedContext, watch::requeue::requeue_tenant};

/// Requests the reconciles of the queued tenants until it is dropped: at most a quarter of the slots of one server at once.
pub async fn run(context: SharedContext) {
    let maximum = usize::from(context.config.concurrency / 4).max(1);
    let rollout = &context.state.plan_rollout;
    rollout.remember_plans(context.stores.plans.state().iter().map(AsRef::as_ref));
    loop {
        for tenant in rollout.start(maximum) {
            let namespace = tenant.namespace.clone().unwrap_or_default();
            if context.stores.scopes.tenant(&namespace, &tenant.name).is_some() {
                requeue_tenant(&namespace, &tenant.name, &context);
            } else {
                rollout.remove(&tenant);
            }
        }
        rollout.wait().await;
    }
}
