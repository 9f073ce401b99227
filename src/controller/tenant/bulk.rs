//! What was read in bulk at start-up: one query for the registry, one per server. A restart with thousands of tenants
//! then costs no query per tenant. It counts for a minute, and not for a tenant that was changed since.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    postgres::inventory::{Inventory, TenantFacts},
    registry::TenantRow,
};

/// How long a bulk reading counts.
const AGE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Readings {
    rows: Option<(Instant, HashMap<String, TenantRow>)>,
    servers: HashMap<String, (Instant, Inventory)>,
    changed: HashSet<String>,
}

/// The bulk readings.
#[derive(Default)]
pub struct Bulk {
    readings: Mutex<Readings>,
}

impl Bulk {
    fn lock(&self) -> MutexGuard<'_, Readings> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the registry's rows.
    pub fn read_registry(&self, rows: Vec<TenantRow>) {
        let rows = rows.into_iter().map(|row| (row.resource_uid.clone(), row)).collect();
        self.lock().rows = Some((Instant::now(), rows));
    }

    /// Takes a server's inventory.
    pub fn read_server(&self, server: &str, inventory: Inventory) {
        self.lock().servers.insert(server.to_owned(), (Instant::now(), inventory));
    }

    /// A tenant's row, while the reading counts.
    pub fn row(&self, uid: &str) -> Option<TenantRow> {
        let mut readings = self.lock();
        if readings.rows.as_ref().is_some_and(|(at, _)| at.elapsed() > AGE) {
            readings.rows = None;
        }
        if readings.changed.contains(uid) {
            return None;
        }
        readings.rows.as_ref().and_then(|(_, rows)| rows.get(uid).cloned())
    }

    /// A tenant's facts on its server, while the reading counts. Only for a tenant that was there at start-up too: a
    /// server that is read again later is read while others are being made on it.
    pub fn facts(&self, row: &TenantRow) -> Option<TenantFacts> {
        let mut readings = self.lock();
        readings.servers.retain(|_, (at, _)| at.elapsed() <= AGE);
        let (at, rows) = readings.rows.as_ref()?;
        let counts = at.elapsed() <= AGE
            && rows.contains_key(&row.resource_uid)
            && !readings.changed.contains(&row.resource_uid);
        let (_, inventory) = readings.servers.get(&row.server)?;
        counts.then(|| inventory.facts(row.id, &row.database_name, &row.login_name))
    }

    /// A tenant is about to be changed: what was read of it no longer holds.
    pub fn forget(&self, uid: &str) {
        let mut readings = self.lock();
        if readings.rows.is_some() {
            readings.changed.insert(uid.to_owned());
        } else {
            readings.changed.clear();
        }
    }
}
