//! Brings existing tenants up to the versions of their modules, four at a time on each server.

use kube::runtime::reflector::ObjectRef;

use crate::{
    api::{reason::Reason, tenant::Tenant},
    controller::context::SharedContext,
};

/// How many tenants of one server are brought up at once.
pub const AT_ONCE: usize = 4;

/// Requests the reconciles of the queued tenants until it is dropped.
pub async fn run(context: SharedContext) {
    let rollouts = &context.state.module_rollouts;
    loop {
        for tenant in rollouts.start(AT_ONCE) {
            if !wake(&tenant, &context) {
                rollouts.remove(&tenant);
            }
        }
        rollouts.wait().await;
    }
}

/// Requests the reconcile of a tenant. One that failed for another reason waits for its next attempt. Returns whether it
/// exists.
fn wake(tenant: &ObjectRef<Tenant>, context: &SharedContext) -> bool {
    if context.state.retries.failure(tenant).is_none_or(|failure| failure == Reason::MigrationFailed) {
        context.state.retries.retry_now(tenant.clone());
    }
    context.stores.scopes.requeue(tenant.namespace.as_deref().unwrap_or_default(), &tenant.name)
}
