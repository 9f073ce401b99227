//! When time alone changes what a tenant may do. Kept in memory, set by every visit, and met by the clock on the wall,
//! which tests set ahead.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use crate::{api::tenant::Tenant, controller::context::SharedContext};

/// How often the clock is looked at: what is due is met within a second.
const PERIOD: Duration = Duration::from_millis(250);

/// The namespace and the name of a Tenant.
type Whose = (String, String);

#[derive(Default)]
struct Set {
    by_time: BTreeSet<(Timestamp, Whose)>,
    by_tenant: HashMap<Whose, Timestamp>,
}

/// All of them.
#[derive(Default)]
pub struct Alarms {
    set: Mutex<Set>,
}

impl Alarms {
    /// Sets when a Tenant is to be visited next; none: not by time.
    pub fn set(&self, tenant: &Tenant, at: Option<Timestamp>) {
        let whose = (tenant.namespace().unwrap_or_default(), tenant.name_any());
        let mut set = self.lock();
        let before = match at {
            Some(at) => set.by_tenant.insert(whose.clone(), at),
            None => set.by_tenant.remove(&whose),
        };
        if let Some(before) = before {
            set.by_time.remove(&(before, whose.clone()));
        }
        if let Some(at) = at {
            set.by_time.insert((at, whose));
        }
    }

    /// Takes out those whose time has come.
    fn due(&self, now: Timestamp) -> Vec<Whose> {
        let mut set = self.lock();
        let mut due = Vec::new();
        while set.by_time.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, whose)) = set.by_time.pop_first() else { break };
            set.by_tenant.remove(&whose);
            due.push(whose);
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the clock until `shutdown`, and has those Tenants visited whose time has come.
pub async fn run(context: SharedContext, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(PERIOD);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        for (namespace, name) in context.alarms.due(context.clock.now()) {
            context.wake(&namespace, &name);
        }
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
    fn each_tenant_is_due_once_at_the_time_that_was_set_last() {
        let at = |second| Timestamp::constant(second, 0);
        let alarms = Alarms::default();
        alarms.set(&tenant("a"), Some(at(10)));
        alarms.set(&tenant("b"), Some(at(20)));
        alarms.set(&tenant("a"), Some(at(30)));
        alarms.set(&tenant("c"), Some(at(5)));
        alarms.set(&tenant("c"), None);
        assert_eq!(alarms.due(at(19)), []);
        assert_eq!(alarms.due(at(20)), [("customers".to_owned(), "b".to_owned())]);
        assert_eq!(alarms.due(at(99)), [("customers".to_owned(), "a".to_owned())]);
        assert_eq!(alarms.due(at(99)), []);
    }
}
