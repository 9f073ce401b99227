//! The rollout of a server's change to its tenants, a few at a time: another address or certificate authority, which their
//! Secrets publish, another spec, or that the server can be used again or not any more.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::runtime::reflector::ObjectRef;
use tokio::{sync::Notify, time::timeout};

use crate::{api::tenant::Tenant, domain::reconcile_queue::ReconcileQueue};

/// How long a tenant may take before its slot is given to the next. Its own reconcile goes on.
const SLOT_TIMEOUT: Duration = Duration::from_secs(60);

/// The tenants that wait for a reconcile because their server changed, by the server's name.
pub struct ServerRollouts {
    queues: Mutex<HashMap<String, ReconcileQueue<ObjectRef<Tenant>>>>,
    changed: Notify,
    started: Instant,
}

impl Default for ServerRollouts {
    fn default() -> Self {
        Self { queues: Mutex::default(), changed: Notify::new(), started: Instant::now() }
    }
}

impl ServerRollouts {
    /// Adds tenants of a server; the urgent ones before the others.
    pub fn add(&self, server: &str, tenants: impl IntoIterator<Item = (ObjectRef<Tenant>, bool)>) {
        let mut queues = self.lock();
        let queue = queues.entry(server.to_owned()).or_default();
        for (tenant, urgent) in tenants {
            queue.add(tenant, urgent);
        }
        drop(queues);
        self.changed.notify_one();
    }

    /// The reconcile of a tenant begins: if it still waited, that reconcile is the one that it waited for.
    pub fn begun(&self, tenant: &Tenant) {
        let tenant = ObjectRef::from_obj(tenant);
        for queue in self.lock().values_mut() {
            queue.withdraw(&tenant);
            queue.reconcile_started(&tenant);
        }
    }

    /// The reconcile of a tenant begins. If it waits, it keeps its place: `admits` decides whether its work goes on.
    pub fn begun_in_turn(&self, tenant: &Tenant) {
        let tenant = ObjectRef::from_obj(tenant);
        for queue in self.lock().values_mut() {
            queue.reconcile_started(&tenant);
        }
    }

    /// The reconcile of a tenant has ended, with any result.
    pub fn ended(&self, tenant: &Tenant) {
        let tenant = ObjectRef::from_obj(tenant);
        let mut ended = false;
        for queue in self.lock().values_mut() {
            ended |= queue.reconcile_finished(&tenant);
        }
        if ended {
            self.changed.notify_one();
        }
    }

    /// Takes the tenants to reconcile now, so that at most `maximum` reconciles per server are requested at once.
    pub fn start(&self, maximum: usize) -> Vec<ObjectRef<Tenant>> {
        let now = self.started.elapsed();
        let mut queues = self.lock();
        queues.retain(|_, queue| !queue.is_empty());
        queues.values_mut().flat_map(|queue| queue.start(now, maximum, SLOT_TIMEOUT)).collect()
    }

    /// Removes a tenant that was started and does not exist any more.
    pub fn remove(&self, tenant: &ObjectRef<Tenant>) {
        for queue in self.lock().values_mut() {
            queue.reconcile_started(tenant);
            queue.reconcile_finished(tenant);
        }
        self.changed.notify_one();
    }

    /// Whether the work of a tenant may go on now, without a request: it was requested, or none waits before it and fewer than
    /// `maximum` are in flight. Else it waits for its turn.
    pub fn admits(&self, server: &str, tenant: &Tenant, maximum: usize) -> bool {
        let (tenant, now) = (ObjectRef::from_obj(tenant), self.started.elapsed());
        let mut queues = self.lock();
        let queue = queues.entry(server.to_owned()).or_default();
        if queue.is_started(&tenant) {
            return true;
        }
        let was_waiting = queue.has_waiting();
        queue.add(tenant.clone(), false);
        let is_started = !was_waiting && !queue.start(now, maximum, SLOT_TIMEOUT).is_empty();
        queue.reconcile_started(&tenant);
        drop(queues);
        if !is_started {
            self.changed.notify_one();
        }
        is_started
    }

    /// Whether tenants of a server still wait to be started.
    pub fn is_running(&self, server: &str) -> bool {
        self.lock().get(server).is_some_and(ReconcileQueue::has_waiting)
    }

    /// Waits until a queue has changed, or a slot is free because its tenant timed out.
    pub async fn wait(&self) {
        let now = self.started.elapsed();
        let free_at = self.lock().values().filter_map(|queue| queue.next_timeout(now)).min();
        let wait = free_at.map_or(SLOT_TIMEOUT, |at| at.saturating_sub(now));
        let _ = timeout(wait, self.changed.notified()).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ReconcileQueue<ObjectRef<Tenant>>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::new(name, Default::default())
    }

    #[test]
    fn tenants_are_admitted_up_to_the_maximum_and_then_in_turn() {
        let rollouts = ServerRollouts::default();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(tenant);
        let admits = |tenant: &Tenant| rollouts.admits("default", tenant, 2);
        assert!(admits(&a) && admits(&b) && admits(&a), "a is in flight");
        assert!(!admits(&c) && !admits(&d) && !admits(&c));
        assert!(rollouts.admits("other", &c, 2), "each server has its own");
        rollouts.ended(&a);
        // d does not overtake c.
        assert!(!admits(&d));
        assert_eq!(rollouts.start(2), [ObjectRef::from_obj(&c)]);
        rollouts.begun_in_turn(&c);
        assert!(admits(&c));
        rollouts.ended(&c);
        assert_eq!(rollouts.start(2), [ObjectRef::from_obj(&d)]);
    }
}
