//! Requests reconciles: of the Tenants and TenantHolds that a change concerns.

use std::sync::Arc;

use kube::{ResourceExt, runtime::reflector::ObjectRef};

use crate::{
    api::tenant::Tenant,
    controller::context::Context,
    domain::{backoff::ends_with_server, spec::DEFAULT_SERVER},
};

/// Requests the reconcile of a Tenant. A failed one does not wait for its next attempt.
pub fn requeue_tenant(namespace: &str, name: &str, context: &Context) {
    context.state.retries.retry_now(ObjectRef::new(name).within(namespace));
    context.stores.scopes.requeue(namespace, name);
}

/// Requests the reconcile of the Tenants for which something changed that they may have waited for.
pub fn requeue_tenants_where(wanted: impl Fn(&Tenant) -> bool, context: &Context) {
    context.stores.scopes.requeue_where(|tenant| {
        let wanted = wanted(tenant);
        if wanted {
            context.state.retries.retry_now(ObjectRef::from_obj(tenant));
        }
        wanted
    });
}

/// Requests the reconcile of the tenants that are or should be on a server, a few at a time, and of its tombstones. Tenants
/// that did not succeed, and may wait for the server, are first.
pub fn requeue_tenants_on(server: &str, context: &Context) {
    context.state.tombstones.retry_on(server);
    // A rehearsal may wait for it.
    context.state.modules.sources_changed.notify_one();
    let tenants = tenants_on(server, context).into_iter().map(|tenant| {
        let tenant = ObjectRef::from_obj(tenant.as_ref());
        let is_urgent = context.state.retries.failure(&tenant).is_some_and(ends_with_server);
        (tenant, is_urgent)
    });
    context.state.server_rollouts.add(server, tenants);
}

/// The tenants that are or should be on a server.
pub fn tenants_on(server: &str, context: &Context) -> Vec<Arc<Tenant>> {
    let mut tenants = context.stores.scopes.tenants();
    tenants.retain(|tenant| {
        let recorded = tenant.status.as_ref().and_then(|status| status.server.as_deref());
        recorded.or(tenant.spec.server.as_deref()).unwrap_or(DEFAULT_SERVER) == server
    });
    tenants
}

/// Requests the reconcile of the Tenants that wait for a slug, other than the one that had it.
pub fn requeue_tenants_with_slug(slug: &str, former_owner_uid: &str, context: &Context) {
    let waits =
        |tenant: &Tenant| tenant.spec.slug == slug && tenant.uid().as_deref() != Some(former_owner_uid);
    requeue_tenants_where(waits, context);
}

/// Requests the reconcile of the holds and support accesses of a Tenant that changed or was deleted, and of the plans.
pub fn requeue_holds_and_plans_of(tenant: &Tenant, context: &Context) {
    context.state.plans_changed.notify_one();
    context.state.modules.status_changed.notify_one();
    context.stores.scopes.requeue_holds_of(tenant);
    context.stores.scopes.requeue_supports_of(tenant);
}

/// Requests the reconcile of all holds, of all support accesses and of the plans, after a list: Tenants may have been created or deleted while the
/// watch was down.
pub fn requeue_all_holds_and_plans(context: &Context) {
    context.state.plans_changed.notify_one();
    context.state.modules.status_changed.notify_one();
    for scope in &context.stores.scopes.0 {
        scope.requeue_holds(|_| true);
        scope.requeue_supports(|_| true);
    }
}
