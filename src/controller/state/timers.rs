//! When time alone changes what a tenant may do: a trial or a validity that ends. Every reconcile sets its tenant's
//! timer.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::api::tenant::Tenant;

/// The namespace and the name of a Tenant.
type TenantKey = (String, String);

#[derive(Default)]
struct ByTimeAndTenant {
    by_time: BTreeSet<(Timestamp, TenantKey)>,
    by_tenant: HashMap<TenantKey, Timestamp>,
}

/// At most one timer per Tenant.
#[derive(Default)]
pub struct Timers {
    timers: Mutex<ByTimeAndTenant>,
}

impl Timers {
    /// Sets a Tenant's timer; none removes it.
    pub fn set(&self, tenant: &Tenant, at: Option<Timestamp>) {
        let key = (tenant.namespace().unwrap_or_default(), tenant.name_any());
        let mut timers = self.lock();
        let before = match at {
            Some(at) => timers.by_tenant.insert(key.clone(), at),
            None => timers.by_tenant.remove(&key),
        };
        if let Some(before) = before {
            timers.by_time.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            timers.by_time.insert((at, key));
        }
    }

    /// Removes the timers that are due, and returns the namespaces and names of their Tenants.
    pub fn take_due(&self, now: Timestamp) -> Vec<TenantKey> {
        let mut timers = self.lock();
        let mut due = Vec::new();
        while timers.by_time.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = timers.by_time.pop_first() else { break };
            timers.by_tenant.remove(&key);
            due.push(key);
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, ByTimeAndTenant> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        let mut tenant = Tenant::new(name, Default::default());
        tenant.metadata.namespace = Some("customers".into());
        tenant
    }

    #[test]
    fn tenant_is_due_once_at_the_time_set_last() {
        let at = |second| Timestamp::constant(second, 0);
        let timers = Timers::default();
        timers.set(&tenant("a"), Some(at(10)));
        timers.set(&tenant("b"), Some(at(20)));
        timers.set(&tenant("a"), Some(at(30)));
        timers.set(&tenant("c"), Some(at(5)));
        timers.set(&tenant("c"), None);
        assert_eq!(timers.take_due(at(19)), []);
        assert_eq!(timers.take_due(at(20)), [("customers".to_owned(), "b".to_owned())]);
        assert_eq!(timers.take_due(at(99)), [("customers".to_owned(), "a".to_owned())]);
        assert_eq!(timers.take_due(at(99)), []);
    }
}
