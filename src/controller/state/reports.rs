//! What this process knows of tenants whose modules a team's own pipeline migrates: which reports were looked for, and
//! whether their migration login has to be made. A tenant is looked at again only after something wrote into its database.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::domain::identity::TenantId;

/// How long a Secret that was written may take to arrive from the watch.
const WATCH_DELAY: Duration = Duration::from_secs(30);

/// All of it.
#[derive(Default)]
pub struct AwaitedReports {
    memory: Mutex<ReportMemory>,
}

#[derive(Default)]
struct ReportMemory {
    /// The version of each module that was looked for last and was not there.
    looked_for: HashMap<(TenantId, String), i32>,
    /// Tenants whose login is missing on their server.
    without_login: HashSet<TenantId>,
    /// When the Secret of a tenant was written.
    written: HashMap<TenantId, Instant>,
}

impl AwaitedReports {
    /// Whether it is worth a session to look for this version of a module.
    pub fn is_due(&self, tenant: TenantId, module: &str, version: i32) -> bool {
        self.lock().looked_for.get(&(tenant, module.to_owned())) != Some(&version)
    }

    /// The version of a module was looked for, and was not reported.
    pub fn looked_for(&self, tenant: TenantId, module: &str, version: i32) {
        self.lock().looked_for.insert((tenant, module.to_owned()), version);
    }

    /// Something wrote into the database of a tenant.
    pub fn written_in(&self, tenant: TenantId) {
        self.lock().looked_for.retain(|(of, _), _| *of != tenant);
    }

    /// The login of a tenant was not found on its server. Returns whether that is new.
    pub fn login_missing(&self, tenant: TenantId) -> bool {
        self.lock().without_login.insert(tenant)
    }

    /// The login of a tenant and its Secret are there.
    pub fn login_made(&self, tenant: TenantId) {
        let mut memory = self.lock();
        memory.without_login.remove(&tenant);
        memory.written.insert(tenant, Instant::now());
    }

    /// Whether the login of a tenant has to be made: it was found missing, or its Secret is.
    pub fn is_login_due(&self, tenant: TenantId, has_secret: bool) -> bool {
        let memory = self.lock();
        let is_new = || memory.written.get(&tenant).is_some_and(|at| at.elapsed() < WATCH_DELAY);
        memory.without_login.contains(&tenant) || !has_secret && !is_new()
    }

    /// The Secret of a tenant was deleted.
    pub fn secret_deleted(&self, tenant: TenantId) {
        self.lock().written.remove(&tenant);
    }

    fn lock(&self) -> MutexGuard<'_, ReportMemory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn tenant_is_looked_at_again_after_a_write_or_for_another_version() {
        let (reports, [a, b]) = (AwaitedReports::default(), [1, 2].map(|id| TenantId(Uuid::from_u128(id))));
        assert!(reports.is_due(a, "shop", 1));
        reports.looked_for(a, "shop", 1);
        reports.looked_for(b, "shop", 1);
        assert!(
            !reports.is_due(a, "shop", 1) && reports.is_due(a, "shop", 2) && reports.is_due(a, "wiki", 1)
        );
        reports.written_in(a);
        assert!(reports.is_due(a, "shop", 1) && !reports.is_due(b, "shop", 1));
    }

    #[test]
    fn login_is_made_where_it_or_its_secret_is_missing() {
        let (reports, a) = (AwaitedReports::default(), TenantId(Uuid::from_u128(1)));
        assert!(reports.is_login_due(a, false) && !reports.is_login_due(a, true));
        reports.login_made(a);
        assert!(!reports.is_login_due(a, false), "the watch has not delivered it yet");
        assert!(reports.login_missing(a) && !reports.login_missing(a));
        assert!(reports.is_login_due(a, true));
        reports.login_made(a);
        assert!(!reports.is_login_due(a, true));
        reports.secret_deleted(a);
        assert!(reports.is_login_due(a, false));
    }
}
