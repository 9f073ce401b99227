//! The rollout of changed plans to their tenants: which tenants still have to be reconciled, a few at a time.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tokio::{sync::Notify, time::timeout};

use super::fingerprint;
use crate::{
    api::{plan::TenantPlan, tenant::Tenant},
    domain::reconcile_queue::ReconcileQueue,
};

/// How long a tenant may take before its slot is given to the next. Its own reconcile goes on.
const SLOT_TIMEOUT: Duration = Duration::from_secs(60);

/// The tenants that wait for a reconcile because their plan changed.
pub struct PlanRollout {
    queue: Mutex<ReconcileQueue<ObjectRef<Tenant>>>,
    changed: Notify,
    /// Fingerprints of the plans' specs, by name.
    specs: Mutex<HashMap<String, u64>>,
    started: Instant,
}

impl Default for PlanRollout {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            changed: Notify::new(),
            specs: Mutex::default(),
            started: Instant::now(),
        }
    }
}

impl PlanRollout {
    /// The reconcile of a tenant begins.
    pub fn begun(&self, tenant: &Tenant) {
        self.lock().reconcile_started(&ObjectRef::from_obj(tenant));
    }

    /// The reconcile of a tenant has ended, with any result. Returns whether the rollout had requested it.
    pub fn ended(&self, tenant: &Tenant) -> bool {
        let ended = self.lock().reconcile_finished(&ObjectRef::from_obj(tenant));
        if ended {
            self.changed.notify_one();
        }
        ended
    }

    /// Whether a tenant was not reconciled yet since its plan changed.
    pub fn is_pending(&self, tenant: &Tenant) -> bool {
        self.lock().contains(&ObjectRef::from_obj(tenant))
    }

    /// Records the specs of plans that this process has not read before, so that their next change is recognized.
    pub fn remember_plans<'p>(&self, plans: impl IntoIterator<Item = &'p TenantPlan>) {
        let mut specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        for plan in plans {
            specs.entry(plan.name_any()).or_insert_with(|| fingerprint::of_plan_spec(&plan.spec));
        }
    }

    /// Records a plan's spec. Returns whether it changed: metadata and status do not count.
    pub fn spec_changed(&self, plan: &TenantPlan) -> bool {
        let spec = fingerprint::of_plan_spec(&plan.spec);
        let mut specs = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        specs.insert(plan.name_any(), spec) != Some(spec)
    }

    /// Forgets the spec of a deleted plan.
    pub fn forget_plan(&self, plan: &TenantPlan) {
        self.specs.lock().unwrap_or_else(PoisonError::into_inner).remove(&plan.name_any());
    }

    /// Adds a tenant to the queue, before all that are not urgent if it is.
    pub fn add(&self, tenant: &Tenant, urgent: bool) {
        self.lock().add(ObjectRef::from_obj(tenant), urgent);
    }

    /// The queue has changed: waits end now.
    pub fn notify(&self) {
        self.changed.notify_one();
    }

    /// Takes the tenants to reconcile now, so that at most `maximum` reconciles are requested at once.
    pub fn start(&self, maximum: usize) -> Vec<ObjectRef<Tenant>> {
        self.lock().start(self.started.elapsed(), maximum, SLOT_TIMEOUT)
    }

    /// Removes a tenant that was started and does not exist any more.
    pub fn remove(&self, tenant: &ObjectRef<Tenant>) {
        let mut queue = self.lock();
        queue.reconcile_started(tenant);
        queue.reconcile_finished(tenant);
        self.changed.notify_one();
    }

    /// Waits until the queue has changed, or a slot is free because its tenant timed out.
    pub async fn wait(&self) {
        let now = self.started.elapsed();
        let free_at = self.lock().next_timeout(now);
        let wait = free_at.map_or(SLOT_TIMEOUT, |at| at.saturating_sub(now));
        let _ = timeout(wait, self.changed.notified()).await;
    }

    fn lock(&self) -> MutexGuard<'_, ReconcileQueue<ObjectRef<Tenant>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
