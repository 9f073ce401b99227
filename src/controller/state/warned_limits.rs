//! Which limits each tenant was warned about, for the sampler. Read from the registry at start-up, updated by every reconcile.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::domain::{identity::TenantId, usage::thresholds::WarnedLimits};

/// The limits that were reported as near or exceeded, by tenant.
#[derive(Default)]
pub struct WarnedLimitsByTenant {
    by_tenant: Mutex<HashMap<TenantId, WarnedLimits>>,
}

impl WarnedLimitsByTenant {
    /// The limits that a tenant was warned about.
    pub fn get(&self, id: TenantId) -> WarnedLimits {
        self.lock().get(&id).cloned().unwrap_or_default()
    }

    /// Replaces the limits that a tenant was warned about.
    pub fn set(&self, id: TenantId, names: &WarnedLimits) {
        if names.is_empty() {
            self.lock().remove(&id);
        } else {
            self.lock().insert(id, names.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, WarnedLimits>> {
        self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
