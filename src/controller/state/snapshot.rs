//! The startup snapshot: all rows of the registry in one query, and all tenants of a server in one query each. A restart
//! with thousands of tenants then costs no query per tenant. It is valid for a minute, and not for a tenant that was
//! changed since.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    domain::{
        record::TenantRecord,
        tenant_facts::{RecordedOids, TenantFacts},
    },
    postgres::catalog::inventory::Inventory,
};

/// How long the snapshot is valid.
const VALIDITY: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Snapshot {
    rows: Option<(Instant, HashMap<String, TenantRecord>)>,
    servers: HashMap<String, (Instant, Inventory)>,
    changed: HashSet<String>,
}

/// The startup snapshot.
#[derive(Default)]
pub struct StartupSnapshot {
    snapshot: Mutex<Snapshot>,
}

impl StartupSnapshot {
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the rows of the registry.
    pub fn read_registry(&self, rows: Vec<TenantRecord>) {
        let rows = rows.into_iter().map(|row| (row.resource_uid.clone(), row)).collect();
        self.lock().rows = Some((Instant::now(), rows));
    }

    /// Stores a server's inventory.
    pub fn read_server(&self, server: &str, inventory: Inventory) {
        self.lock().servers.insert(server.to_owned(), (Instant::now(), inventory));
    }

    /// A tenant's row, while the snapshot is valid.
    pub fn row(&self, uid: &str) -> Option<TenantRecord> {
        let mut snapshot = self.lock();
        if snapshot.rows.as_ref().is_some_and(|(at, _)| at.elapsed() > VALIDITY) {
            snapshot.rows = None;
        }
        if snapshot.changed.contains(uid) {
            return None;
        }
        snapshot.rows.as_ref().and_then(|(_, rows)| rows.get(uid).cloned())
    }

    /// A tenant's facts on its server, while the snapshot is valid. Only for a tenant that existed at start-up: a server
    /// that is read again later is read while other tenants are being created on it.
    pub fn facts(&self, row: &TenantRecord) -> Option<TenantFacts> {
        let mut snapshot = self.lock();
        snapshot.servers.retain(|_, (at, _)| at.elapsed() <= VALIDITY);
        let (at, rows) = snapshot.rows.as_ref()?;
        let valid = at.elapsed() <= VALIDITY
            && rows.contains_key(&row.resource_uid)
            && !snapshot.changed.contains(&row.resource_uid);
        let (_, inventory) = snapshot.servers.get(&row.placement.server)?;
        valid.then(|| inventory.facts_recorded(&row.placement, RecordedOids::of(row)))
    }

    /// Invalidates a tenant's part, before the tenant is changed.
    pub fn forget(&self, uid: &str) {
        let mut snapshot = self.lock();
        if snapshot.rows.is_some() {
            snapshot.changed.insert(uid.to_owned());
        } else {
            snapshot.changed.clear();
        }
    }
}
