//! The watched namespaces: the objects that the watches keep up to date, and the channels to their controllers.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Resource, ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::invalid_objects::InvalidObjects;
use crate::{
    api::{support_access::SupportAccess, tenant::Tenant, tenant_hold::TenantHold},
    controller::{tenant::object_match::is_object_of, watch::guarded::StatusTenant},
    domain::claims::Claims,
};

/// How often a store is asked whether it is filled: of several that wait for one store, kube notifies the last one only.
pub const STORE_POLL: Duration = Duration::from_millis(20);

/// One watched namespace, or all of them.
pub struct Scope {
    /// The namespace; none: all.
    pub namespace: Option<String>,
    /// Its Tenants.
    pub tenants: Store<Tenant>,
    /// Its Tenants that exist and cannot be decoded; a last valid version of them may be in the store.
    pub invalid_tenants: InvalidObjects<Tenant>,
    /// Its Secrets that carry a tenant's id.
    pub secrets: Store<Secret>,
    /// Its TenantHolds.
    pub holds: Store<TenantHold>,
    /// Its SupportAccesses.
    pub supports: Store<SupportAccess>,
    /// Requests to the controller of SupportAccesses.
    pub support_requests: mpsc::UnboundedSender<ObjectRef<SupportAccess>>,
    /// Requests to the controller of TenantHolds.
    pub hold_requests: mpsc::UnboundedSender<ObjectRef<TenantHold>>,
    /// Requests to the controller of Tenants.
    pub tenant_requests: mpsc::UnboundedSender<ObjectRef<Tenant>>,
}

impl Scope {
    /// Whether the namespace is part of it.
    pub fn includes(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }

    /// Requests the reconcile of some of its holds.
    pub fn requeue_holds(&self, wanted: impl Fn(&TenantHold) -> bool) {
        for hold in self.holds.state_filter(wanted) {
            // A closed channel means that the process is shutting down.
            let _ = self.hold_requests.send(ObjectRef::from_obj(hold.as_ref()));
        }
    }
}

impl Scope {
    /// Requests the reconcile of some of its support accesses.
    pub fn requeue_supports(&self, wanted: impl Fn(&SupportAccess) -> bool) {
        for access in self.supports.state_filter(wanted) {
            let _ = self.support_requests.send(ObjectRef::from_obj(access.as_ref()));
        }
    }
}

/// All that is watched.
#[derive(Default)]
pub struct Scopes(pub Vec<Scope>);

impl Scopes {
    /// Whether the namespace is watched.
    pub fn include(&self, namespace: &str) -> bool {
        self.0.iter().any(|scope| scope.includes(namespace))
    }

    /// A Secret with a tenant's id.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        let reference = ObjectRef::new(name).within(namespace);
        self.0.iter().find_map(|scope| scope.secrets.get(&reference))
    }

    /// The Tenant of this name.
    pub fn tenant(&self, namespace: &str, name: &str) -> Option<Arc<Tenant>> {
        let reference = ObjectRef::new(name).within(namespace);
        self.0.iter().find_map(|scope| scope.tenants.get(&reference))
    }

    /// The uid of the Tenant of this name, if it exists and cannot be decoded.
    pub fn invalid_tenant(&self, namespace: &str, name: &str) -> Option<String> {
        let reference = ObjectRef::new(name).within(namespace);
        self.0.iter().find_map(|scope| scope.invalid_tenants.uid(&reference))
    }

    /// Whether a Tenant exists that cannot be decoded.
    pub fn has_invalid_tenants(&self) -> bool {
        self.0.iter().any(|scope| !scope.invalid_tenants.is_empty())
    }

    /// The tenants in the statuses of the Tenants that cannot be decoded.
    pub fn invalid_statuses(&self) -> Vec<StatusTenant> {
        self.0.iter().flat_map(|scope| scope.invalid_tenants.tenants()).collect()
    }

    /// All Tenants.
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.0.iter().flat_map(|scope| scope.tenants.state()).collect()
    }

    /// Which Tenants have which id in their status, as far as the watches show it. Read once for many rows.
    pub fn claims(&self) -> Claims {
        let tenants = self.tenants();
        Claims::of(tenants.iter().map(Arc::as_ref))
    }

    /// Whether a Tenant owns the registered tenant with this uid and slug.
    pub fn has(&self, namespace: &str, name: &str, uid: &str, slug: &str) -> bool {
        self.tenant(namespace, name).is_some_and(|found| is_object_of(&found, uid, slug))
    }

    /// Requests the reconcile of the Tenant of this name. Returns whether it exists.
    pub fn requeue(&self, namespace: &str, name: &str) -> bool {
        let reference = ObjectRef::new(name).within(namespace);
        let Some(scope) = self.0.iter().find(|scope| scope.tenants.get(&reference).is_some()) else {
            return false;
        };
        scope.tenant_requests.send(reference).is_ok()
    }

    /// Requests the reconcile of all Tenants for which `wanted` holds.
    pub fn requeue_where(&self, wanted: impl Fn(&Tenant) -> bool) {
        for scope in &self.0 {
            for tenant in scope.tenants.state_filter(&wanted) {
                let _ = scope.tenant_requests.send(ObjectRef::from_obj(tenant.as_ref()));
            }
        }
    }

    /// Requests the reconcile of a Tenant's holds.
    pub fn requeue_holds_of(&self, tenant: &Tenant) {
        let (namespace, name) = (tenant.namespace(), tenant.name_any());
        for scope in &self.0 {
            scope.requeue_holds(|hold| hold.spec.tenant == name && hold.meta().namespace == namespace);
        }
    }

    /// The SupportAccess of this name.
    pub fn support_access(&self, namespace: &str, name: &str) -> Option<Arc<SupportAccess>> {
        let reference = ObjectRef::new(name).within(namespace);
        self.0.iter().find_map(|scope| scope.supports.get(&reference))
    }

    /// Requests the reconcile of a SupportAccess.
    pub fn requeue_support(&self, reference: ObjectRef<SupportAccess>) {
        for scope in self.0.iter().filter(|scope| scope.supports.get(&reference).is_some()) {
            let _ = scope.support_requests.send(reference.clone());
        }
    }

    /// Requests the reconcile of a Tenant's support accesses.
    pub fn requeue_supports_of(&self, tenant: &Tenant) {
        let (namespace, name) = (tenant.namespace(), tenant.name_any());
        for scope in &self.0 {
            scope.requeue_supports(|access| {
                access.spec.tenant == name && access.meta().namespace == namespace
            });
        }
    }

    /// Whether all SupportAccesses are known: in an empty store, each would look deleted.
    pub fn support_is_known(&self) -> bool {
        self.0
            .iter()
            .all(|scope| scope.supports.wait_until_ready().now_or_never().is_some_and(|ready| ready.is_ok()))
    }

    /// Waits until all Tenants are known: in an empty store, each would look deleted. Returns false if `shutdown` comes
    /// first.
    pub async fn are_known(&self, shutdown: &CancellationToken) -> bool {
        for scope in &self.0 {
            while timeout(STORE_POLL, scope.tenants.wait_until_ready()).await.is_err() {
                if shutdown.is_cancelled() {
                    return false;
                }
            }
        }
        true
    }
}
