//! Which failed tenants may be tried now. A failed tenant waits for its next attempt, across restarts of the operator,
//! unless something changed that can make a difference.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::fingerprint;
use crate::{
    api::{ANNOTATION_RECONCILE_REQUESTED_AT, reason::Reason, tenant::Tenant, tenant_status::TenantStatus},
    domain::record::TenantRecord,
};

#[derive(Default)]
struct RetryMemory {
    /// Fingerprints of the Tenants that were last acted on, by uid.
    acted_on: HashMap<String, u64>,
    /// Tenants whose next attempt does not wait.
    retry_now: HashSet<ObjectRef<Tenant>>,
    /// The requests by annotation that were seen, by uid.
    requests: HashMap<String, Option<String>>,
    /// Uids of Tenants whose reconcile was requested, and that were not verified since.
    requested: HashSet<String>,
    /// Uids of Tenants that are known to be deleted.
    deleted: HashSet<String>,
    /// Why each Tenant's last reconcile did not succeed.
    failures: HashMap<ObjectRef<Tenant>, Reason>,
}

/// What was tried, with which result, and what changed since. Cheap to clone: all clones share one memory.
#[derive(Clone, Default)]
pub struct Retries {
    memory: Arc<Mutex<RetryMemory>>,
}

impl Retries {
    /// Something changed that this tenant may have waited for: its next attempt does not wait.
    pub fn retry_now(&self, tenant: ObjectRef<Tenant>) {
        self.lock().retry_now.insert(tenant);
    }

    /// Until when a tenant has to wait; none if it may be tried. `before` is its newest status.
    pub fn wait(
        &self,
        tenant: &Tenant,
        before: &TenantStatus,
        row: Option<&TenantRecord>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let mut memory = self.lock();
        let retry_now = memory.retry_now.remove(&ObjectRef::from_obj(tenant));
        let uid = tenant.uid().unwrap_or_default();
        let request = tenant.annotations().get(ANNOTATION_RECONCILE_REQUESTED_AT).cloned();
        // What was requested of an earlier process was done, or is repeated by the user.
        let is_new = request.is_some() && memory.requests.get(&uid).is_some_and(|before| *before != request);
        memory.requests.insert(uid.clone(), request);
        if is_new {
            memory.requested.insert(uid.clone());
        }
        let current = fingerprint::of_tenant(tenant);
        let changed = match memory.acted_on.insert(uid, current) {
            Some(acted_on) => acted_on != current,
            // Not reconciled by this process yet: the status shows which spec was acted on.
            None => before.observed_generation != tenant.metadata.generation,
        };
        let next = row?.next_attempt_at.filter(|next| *next > now)?;
        (!retry_now && !changed).then_some(next)
    }

    /// Whether a reconcile was requested by annotation, and the tenant was not verified since.
    pub fn is_requested(&self, tenant: &Tenant) -> bool {
        self.lock().requested.contains(&tenant.uid().unwrap_or_default())
    }

    /// Records that the tenant is verified now. Returns whether it was requested.
    pub fn take_request(&self, tenant: &Tenant) -> bool {
        self.lock().requested.remove(&tenant.uid().unwrap_or_default())
    }

    /// Records how the reconcile of a Tenant ended: the reason it could not succeed, or none. Every reconcile that was
    /// not postponed reports it.
    pub fn record_result(&self, tenant: &Tenant, failure: Option<Reason>) {
        let (reference, mut memory) = (ObjectRef::from_obj(tenant), self.lock());
        match failure {
            Some(reason) => memory.failures.insert(reference, reason),
            None => memory.failures.remove(&reference),
        };
    }

    /// Why the last reconcile of a Tenant by this process did not succeed; none if it did, or there was none.
    pub fn failure(&self, tenant: &ObjectRef<Tenant>) -> Option<Reason> {
        self.lock().failures.get(tenant).copied()
    }

    /// Records that a Tenant is deleted. Returns whether that was known.
    pub fn was_deleted(&self, tenant: &Tenant) -> bool {
        !self.lock().deleted.insert(tenant.uid().unwrap_or_default())
    }

    /// Forgets a Tenant that does not exist any more.
    pub fn forget(&self, tenant: &Tenant) {
        let (uid, reference) = (tenant.uid().unwrap_or_default(), ObjectRef::from_obj(tenant));
        let mut memory = self.lock();
        memory.deleted.remove(&uid);
        memory.requests.remove(&uid);
        memory.requested.remove(&uid);
        memory.acted_on.remove(&uid);
        memory.retry_now.remove(&reference);
        memory.failures.remove(&reference);
    }

    fn lock(&self) -> MutexGuard<'_, RetryMemory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_failure_is_known_until_a_reconcile_succeeds() {
        let (retries, tenant) = (Retries::default(), Tenant::new("a", Default::default()));
        let reference = ObjectRef::from_obj(&tenant);
        assert_eq!(retries.failure(&reference), None);
        retries.record_result(&tenant, Some(Reason::PlanNotFound));
        assert_eq!(retries.failure(&reference), Some(Reason::PlanNotFound));
        retries.record_result(&tenant, None);
        assert_eq!(retries.failure(&reference), None);
        retries.record_result(&tenant, Some(Reason::Conflict));
        retries.forget(&tenant);
        assert_eq!(retries.failure(&reference), None);
    }
}
