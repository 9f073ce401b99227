//! When the previous login of a tenant was last seen with a session, for the Event at its end. Known from the samples of usage
//! since this process leads: an earlier use is not known.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use k8s_openapi::jiff::Timestamp;

use crate::domain::identity::TenantId;

/// The last use of previous logins, by tenant.
#[derive(Default)]
pub struct PreviousLoginUse {
    by_tenant: Mutex<HashMap<TenantId, Timestamp>>,
}

impl PreviousLoginUse {
    /// Remembers that it had a session.
    pub fn record(&self, id: TenantId, at: Timestamp) {
        self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner).insert(id, at);
    }

    /// Forgets the last use, and returns it.
    pub fn take(&self, id: TenantId) -> Option<Timestamp> {
        self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}
