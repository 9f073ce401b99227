//! A change of a plan on its way to its tenants: all of them are visited, a few at a time, so that nobody else waits
//! behind them.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    api::{
        conditions::{READY, find_condition, reason},
        plan::TenantPlan,
        tenant::Tenant,
    },
    controller::{
        context::{Context, SharedContext},
        tenant::watch::Change,
    },
    domain::rollout::Queue,
};

/// How long a tenant may take before its place is given to the next. It goes on being visited all the same.
const PATIENCE: Duration = Duration::from_secs(60);

/// The tenants that wait for a visit because their plan changed.
pub struct Rollout {
    queue: Mutex<Queue<ObjectRef<Tenant>>>,
    changed: Notify,
    /// What the plans said when they were looked at last, by name.
    known: Mutex<HashMap<String, u64>>,
    begun: Instant,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            changed: Notify::new(),
            known: Mutex::default(),
            begun: Instant::now(),
        }
    }
}

impl Rollout {
    /// A visit to a tenant begins.
    pub fn begun(&self, tenant: &Tenant) {
        self.lock().begun(&ObjectRef::from_obj(tenant));
    }

    /// A visit to a tenant is over, whatever came of it. True if it was one that is asked for here.
    pub fn ended(&self, tenant: &Tenant) -> bool {
        let ended = self.lock().ended(&ObjectRef::from_obj(tenant));
        if ended {
            self.changed.notify_one();
        }
        ended
    }

    /// Whether a tenant was not visited yet since its plan changed.
    pub fn is_awaited(&self, tenant: &Tenant) -> bool {
        self.lock().has(&ObjectRef::from_obj(tenant))
    }

    /// Whether a plan says something new. Its metadata and its status do not count.
    fn is_news(&self, plan: &TenantPlan, change: Change) -> bool {
        let (name, says) = (plan.name_any(), says(plan));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Gone => {
                known.remove(&name);
                true
            }
            Change::Appeared | Change::Changed => known.insert(name, says) != Some(says),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<ObjectRef<Tenant>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn says(plan: &TenantPlan) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&plan.spec).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

impl Context {
    /// Puts the tenants that are on a plan, or come to it when their trial ends, in the line for a visit, if the plan says
    /// something new. Those that waited for the plan go first.
    pub fn plan_changed(&self, plan: &TenantPlan, change: Change) {
        if !self.rollout.is_news(plan, change) {
            return;
        }
        let name = plan.name_any();
        let named = |of: Option<String>| of.as_ref() == Some(&name);
        let follows = |tenant: &Tenant| self.plan(&tenant.spec.plan)?.spec.trial_end.as_ref()?.plan.clone();
        let mut count = 0_usize;
        for tenant in self.scopes.tenants() {
            let in_force = tenant.status.as_ref().and_then(|status| status.plan.clone());
            if tenant.spec.plan == name || named(in_force) || named(follows(&tenant)) {
                self.rollout.lock().add(ObjectRef::from_obj(tenant.as_ref()), waits_for_plan(&tenant));
                count += 1;
            }
        }
        if count > 0 {
            info!(plan = name, tenants = count, "the plan changed: its tenants are visited");
        }
        self.rollout.changed.notify_one();
    }

    /// Remembers what the plans say, so that the first change of one is told from a touch.
    fn know_plans(&self) {
        let mut known = self.rollout.known.lock().unwrap_or_else(PoisonError::into_inner);
        for plan in self.plans.state() {
            known.entry(plan.name_any()).or_insert_with(|| says(&plan));
        }
    }
}

/// Whether a tenant said that its plan is missing.
fn waits_for_plan(tenant: &Tenant) -> bool {
    let conditions = tenant.status.as_ref().map(|status| status.conditions.as_slice());
    let ready = find_condition(conditions.unwrap_or_default(), READY);
    ready.is_some_and(|ready| ready.reason == reason::PLAN_NOT_FOUND)
}

/// Has those in the line visited until `shutdown`: at most a quarter of what may be worked on at once on a server.
pub async fn run(context: SharedContext, shutdown: CancellationToken) {
    let most = usize::from(context.concurrency / 4).max(1);
    context.know_plans();
    let rollout = &context.rollout;
    loop {
        let now = rollout.begun.elapsed();
        let (started, wakes_at) = {
            let mut queue = rollout.lock();
            (queue.start(now, most, PATIENCE), queue.wakes_at(now))
        };
        for tenant in started {
            let namespace = tenant.namespace.clone().unwrap_or_default();
            if context.scopes.tenant(&namespace, &tenant.name).is_some() {
                context.wake(&namespace, &tenant.name);
                continue;
            }
            let mut queue = rollout.lock();
            queue.begun(&tenant);
            queue.ended(&tenant);
            rollout.changed.notify_one();
        }
        let wait = wakes_at.map_or(PATIENCE, |at| at.saturating_sub(now));
        if shutdown.run_until_cancelled(timeout(wait, rollout.changed.notified())).await.is_none() {
            return;
        }
    }
}
