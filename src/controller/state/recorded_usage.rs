//! Tenants whose usage a reconcile or a storage reclaim recorded, so that the sampler does not rely on what it recorded
//! itself.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use crate::domain::identity::TenantId;

/// Tenants whose recorded usage the sampler must not assume.
#[derive(Default)]
pub struct RecordedUsage(Mutex<HashSet<TenantId>>);

impl RecordedUsage {
    /// Adds a tenant.
    pub fn add(&self, id: TenantId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    /// Removes and returns all of them.
    pub fn take(&self) -> HashSet<TenantId> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
