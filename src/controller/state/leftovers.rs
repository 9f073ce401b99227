//! What was found on each server of tenants that should have nothing there, and what is being done about it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{api::reason::Reason, domain::identity::TenantId};

/// How long a failed attempt is not repeated: what makes it fail usually needs an administrator.
const RETRY: Duration = Duration::from_secs(300);

#[derive(Default)]
struct Memory {
    reports: HashMap<String, (Reason, String)>,
    running: HashSet<(String, TenantId)>,
    failed: HashMap<(String, TenantId), Instant>,
}

/// The leftovers of all servers.
#[derive(Default)]
pub struct Leftovers {
    memory: Mutex<Memory>,
}

impl Leftovers {
    /// The report on a server, for its status.
    pub fn report(&self, server: &str) -> Option<(Reason, String)> {
        self.lock().reports.get(server).cloned()
    }

    /// Records the report on a server. Returns whether it is another one.
    pub fn set_report(&self, server: &str, report: Option<&(Reason, String)>) -> bool {
        let mut memory = self.lock();
        let before = match report {
            Some(report) => memory.reports.insert(server.to_owned(), report.clone()),
            None => memory.reports.remove(server),
        };
        before.as_ref() != report
    }

    /// Whether what a tenant left on a server may be cut off now. If so, `ended` must be called afterwards.
    pub fn begin(&self, server: &str, tenant: TenantId) -> bool {
        let (key, mut memory) = ((server.to_owned(), tenant), self.lock());
        memory.failed.retain(|_, at| at.elapsed() < RETRY);
        !memory.failed.contains_key(&key) && memory.running.insert(key)
    }

    /// An attempt has ended.
    pub fn ended(&self, server: &str, tenant: TenantId, failed: bool) {
        let (key, mut memory) = ((server.to_owned(), tenant), self.lock());
        memory.running.remove(&key);
        if failed {
            memory.failed.insert(key, Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
