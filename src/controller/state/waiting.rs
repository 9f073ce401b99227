//! The Tenants whose reconciles wait for a slot: a new request for one of them may be a restriction of its access, which
//! has slots of its own. And those whose access was regained by hand, which neither the object nor the row shows.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::runtime::reflector::ObjectRef;
use tokio::sync::Notify;

use crate::api::tenant::Tenant;

/// Waiting reconciles, by Tenant. At most one reconcile of a Tenant runs at a time.
#[derive(Default)]
pub struct Waiting {
    by_tenant: Mutex<HashMap<ObjectRef<Tenant>, Arc<Notify>>>,
    regained: Mutex<HashSet<ObjectRef<Tenant>>>,
}

/// A waiting reconcile, until this is dropped.
pub struct Waiter<'a> {
    waiting: &'a Waiting,
    reference: ObjectRef<Tenant>,
    requested: Arc<Notify>,
}

impl Waiting {
    /// A reconcile begins to wait.
    pub fn begin(&self, reference: ObjectRef<Tenant>) -> Waiter<'_> {
        let requested = Arc::new(Notify::new());
        self.lock().insert(reference.clone(), Arc::clone(&requested));
        Waiter { waiting: self, reference, requested }
    }

    /// Another reconcile of this Tenant is requested.
    pub fn requested(&self, reference: &ObjectRef<Tenant>) {
        if let Some(requested) = self.lock().get(reference) {
            requested.notify_one();
        }
    }

    /// A restricted tenant has more access in PostgreSQL than it should have.
    pub fn access_regained(&self, reference: ObjectRef<Tenant>) {
        self.lock_regained().insert(reference);
    }

    /// Whether access that a tenant regained has to be revoked.
    pub fn has_regained_access(&self, reference: &ObjectRef<Tenant>) -> bool {
        self.lock_regained().contains(reference)
    }

    /// A reconcile has its slot, and revokes what was regained. The drift check finds what is left.
    pub fn begun(&self, reference: &ObjectRef<Tenant>) {
        self.lock_regained().remove(reference);
    }

    fn lock_regained(&self) -> MutexGuard<'_, HashSet<ObjectRef<Tenant>>> {
        self.regained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef<Tenant>, Arc<Notify>>> {
        self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter<'_> {
    /// Returns once another reconcile of this Tenant is requested.
    pub async fn requested(&self) {
        self.requested.notified().await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.reference);
    }
}
