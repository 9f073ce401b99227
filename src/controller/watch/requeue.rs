//! Requests reconciles: of the Tenants and TenantHolds that a change concerns.

use kube::{ResourceExt, runtime::reflector::ObjectRef};

use crate::{api::tenant::Tenant, controller::context::Context, domain::spec::DEFAULT_SERVER};

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

/// Requests the reconcile of the tenants that are or should be on a server, and of its tombstones.
pub fn requeue_tenants_on(server: &str, context: &Context) {
    context.state.tombstones.retry_on(server);
    let is_on = |tenant: &Tenant| {
        let recorded = tenant.status.as_ref().and_then(|status| status.server.as_deref());
        recorded.or(tenant.spec.server.as_deref()).unwrap_or(DEFAULT_SERVER) == server
    };
    requeue_tenants_where(is_on, context);
}

/// Requests the reconcile of the Tenants that wait for a slug, other than the one that had it.
pub fn requeue_tenants_with_slug(slug: &str, former_owner_uid: &str, context: &Context) {
    let waits =
        |tenant: &Tenant| tenant.spec.slug == slug && tenant.uid().as_deref() != Some(former_owner_uid);
    requeue_tenants_where(waits, context);
}

/// Requests the reconcile of the holds of a Tenant that changed or was deleted, and of the plans.
pub fn requeue_holds_and_plans_of(tenant: &Tenant, context: &Context) {
    context.state.plans_changed.notify_one();
    context.stores.scopes.requeue_holds_of(tenant);
}

/// Requests the reconcile of all holds and of the plans, after a list: Tenants may have been created or deleted while the
/// watch was down.
pub fn requeue_all_holds_and_plans(context: &Context) {
    context.state.plans_changed.notify_one();
    for scope in &context.stores.scopes.0 {
        scope.requeue_holds(|_| true);
    }
}
