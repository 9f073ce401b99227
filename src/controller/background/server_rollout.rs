//! Rolls the change of a server out to its tenants, a few at a time, so that a server that comes back does not get the work
//! of all of them at once, and other tenants do not wait behind them.

use kube::runtime::reflector::ObjectRef;

use crate::{api::tenant::Tenant, controller::context::SharedContext, domain::backoff::ends_with_server};

/// Requests the reconciles of the queued tenants until it is dropped: at most a quarter of the slots of each server at once.
pub async fn run(context: SharedContext) {
    let maximum = usize::from(context.config.concurrency / 4).max(1);
    let rollouts = &context.state.server_rollouts;
    loop {
        for tenant in rollouts.start(maximum) {
            if !wake(&tenant, &context) {
                rollouts.remove(&tenant);
            }
        }
        rollouts.wait().await;
    }
}

/// Requests the reconcile of a tenant. One that failed for a reason that no server changes waits for its next attempt.
/// Returns whether it exists.
fn wake(tenant: &ObjectRef<Tenant>, context: &SharedContext) -> bool {
    if context.state.retries.failure(tenant).is_none_or(ends_with_server) {
        context.state.retries.retry_now(tenant.clone());
    }
    context.stores.scopes.requeue(tenant.namespace.as_deref().unwrap_or_default(), &tenant.name)
}
