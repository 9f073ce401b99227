//! Which failed tenants may be tried now. A failure waits for its next attempt, whatever visits its tenant meanwhile,
//! and whether or not the operator was restarted, unless something changed that can make a difference.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::watch::interest;
use crate::{
    api::{tenant::Tenant, tenant_status::TenantStatus},
    registry::TenantRow,
};

#[derive(Default)]
struct Known {
    /// What was last acted on, by uid.
    acted_on: HashMap<String, Option<u64>>,
    /// Those for whom something changed.
    woken: HashSet<ObjectRef<Tenant>>,
    /// Those whose database is to be looked into.
    unverified: HashSet<ObjectRef<Tenant>>,
    /// Those that were seen to be deleted, by uid.
    deleted: HashSet<String>,
}

/// What was tried, and what changed since. Cheap to clone: all clones are one.
#[derive(Clone, Default)]
pub struct Attempts {
    known: Arc<Mutex<Known>>,
}

impl Attempts {
    /// Something that this tenant may have waited for has changed.
    pub fn wake(&self, tenant: ObjectRef<Tenant>) {
        self.lock().woken.insert(tenant);
    }

    /// The databases of these tenants are to be looked into: their server was restored.
    pub fn verify_all<'t>(&self, tenants: impl Iterator<Item = &'t Arc<Tenant>>) {
        self.lock().unverified.extend(tenants.map(|tenant| ObjectRef::from_obj(tenant.as_ref())));
    }

    /// Whether a tenant's database is to be looked into.
    pub fn is_unverified(&self, tenant: &Tenant) -> bool {
        self.lock().unverified.contains(&ObjectRef::from_obj(tenant))
    }

    /// A tenant's database was looked into.
    pub fn verified(&self, tenant: &Tenant) {
        self.lock().unverified.remove(&ObjectRef::from_obj(tenant));
    }

    /// Until when a tenant has to wait; none if it may be tried. `before` is its newest status.
    pub fn wait(
        &self,
        tenant: &Tenant,
        before: &TenantStatus,
        row: Option<&TenantRow>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let mut known = self.lock();
        let woken = known.woken.remove(&ObjectRef::from_obj(tenant));
        let seen = interest(tenant);
        let changed = match known.acted_on.insert(tenant.uid().unwrap_or_default(), seen) {
            Some(acted_on) => acted_on != seen,
            // Not since this process began: the status says which spec was acted on.
            None => before.observed_generation != tenant.metadata.generation,
        };
        let next = row?.next_attempt_at.filter(|next| *next > now)?;
        (!woken && !changed).then_some(next)
    }

    /// Whether a Tenant that is deleted was seen to be before.
    pub fn was_deleted(&self, tenant: &Tenant) -> bool {
        !self.lock().deleted.insert(tenant.uid().unwrap_or_default())
    }

    /// Forgets a Tenant that is gone.
    pub fn forget(&self, tenant: &Tenant) {
        let mut known = self.lock();
        known.deleted.remove(&tenant.uid().unwrap_or_default());
        known.acted_on.remove(&tenant.uid().unwrap_or_default());
        known.woken.remove(&ObjectRef::from_obj(tenant));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
