//! The tombstones that this process knows: which tenant is to be looked at when. Kept in memory, filled from the
//! registry at start-up and by every visit, and read once a second, so that a deadline is met by the clock on the wall
//! whatever that does meanwhile.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    domain::{
        access::AccessLevel,
        breaker::{COUNT_FIRST, Purges},
        identity::TenantId,
        observed::RegistryStatus,
    },
    registry::TenantRow,
};

/// After a look was asked for, the next one is not before this: a visit that is under way says when itself.
pub const AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// A tombstone, as far as it matters when to look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub id: TenantId,
    /// Where its database is.
    pub server: String,
    /// The Tenant's namespace.
    pub namespace: String,
    /// The Tenant's name.
    pub name: String,
    /// The Tenant's uid.
    pub uid: String,
    /// The tenant's slug.
    pub slug: String,
    /// Access is not proven to be cut.
    pub uncut: bool,
    /// Its purge has begun: nobody is the same tenant any more but its own object.
    pub purging: bool,
    /// What is to be done drops what somebody may want back: not while purges are frozen.
    drops_data: bool,
    /// When there is something to do.
    due: Timestamp,
    /// When to look: not before a failure's next attempt.
    next: Timestamp,
}

/// When those that began to go away together with this one are there to be counted.
fn counted_at(row: &TenantRow) -> Timestamp {
    row.deprovisioned_at.and_then(|at| at.checked_add(COUNT_FIRST).ok()).unwrap_or(Timestamp::MIN)
}

/// All tombstones.
#[derive(Default)]
pub struct Tombstones {
    by_id: Mutex<HashMap<TenantId, Entry>>,
    busy: Arc<Mutex<HashSet<TenantId>>>,
}

/// A tombstone that is being worked on, until this is dropped.
pub struct Busy {
    busy: Arc<Mutex<HashSet<TenantId>>>,
    id: TenantId,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Tombstones {
    /// Takes in how a row stands after a visit, or after it was read. `not_before`: a failure waits until then.
    pub fn see(&self, row: &TenantRow, not_before: Option<Timestamp>) {
        let mut by_id = self.lock();
        if row.status != RegistryStatus::Deprovisioning {
            by_id.remove(&row.id);
            return;
        }
        let uncut = row.access != Some(AccessLevel::Blocked);
        let due = match row.terms() {
            _ if uncut => Timestamp::MIN,
            Some(terms) if terms.held => Timestamp::MAX,
            // Not before it was counted: see the breaker.
            Some(terms) => terms.purge_after.max(counted_at(row)),
            None => Timestamp::MAX,
        };
        let entry = Entry {
            id: row.id,
            server: row.server.clone(),
            namespace: row.resource_namespace.clone(),
            name: row.resource_name.clone(),
            uid: row.resource_uid.clone(),
            slug: row.slug.clone(),
            uncut,
            purging: row.purge_started_at.is_some(),
            drops_data: row.activated_at.is_some() && row.purge_started_at.is_none() && !row.retain,
            due,
            next: not_before.map_or(due, |at| due.max(at)),
        };
        by_id.insert(row.id, entry);
    }

    /// Those that are to be looked at now: while purges are frozen, none that drops what somebody may want back.
    pub fn due(&self, now: Timestamp, purges: Purges) -> Vec<Entry> {
        let mut by_id = self.lock();
        let frozen = matches!(purges, Purges::Frozen | Purges::Unknown);
        let due = by_id
            .values_mut()
            .filter(|entry| entry.next <= now && (entry.uncut || !entry.drops_data || !frozen));
        due.map(|entry| {
            entry.next = now.saturating_add(AGAIN).unwrap_or(Timestamp::MAX);
            entry.clone()
        })
        .collect()
    }

    /// Takes one to work on, unless that is being done already: one that hangs is not visited twice.
    pub fn take(&self, id: TenantId) -> Option<Busy> {
        let taken = self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        taken.then(|| Busy { busy: Arc::clone(&self.busy), id })
    }

    /// A server is not what it was: what waits for it to get better waits no longer.
    pub fn wake(&self, server: &str) {
        for entry in self.lock().values_mut().filter(|entry| entry.server == server) {
            entry.next = entry.due;
        }
    }

    /// How many there are, and how many of them are not proven to be cut.
    pub fn count(&self) -> (usize, usize) {
        let by_id = self.lock();
        (by_id.len(), by_id.values().filter(|entry| entry.uncut).count())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Entry>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_waits_for_its_next_attempt_or_for_its_server() {
        let tombstones = Tombstones::default();
        let row = TenantRow::example(RegistryStatus::Deprovisioning);
        let at = |second| Timestamp::from_second(second).unwrap();
        tombstones.see(&row, Some(at(1000)));
        assert!(tombstones.due(at(999), Purges::Free).is_empty());
        tombstones.wake("another");
        assert!(tombstones.due(at(999), Purges::Free).is_empty());
        tombstones.wake("default");
        assert_eq!(tombstones.due(at(999), Purges::Free).len(), 1);
        // Asked for once: the visit says when again.
        assert!(tombstones.due(at(1000), Purges::Free).is_empty());
        tombstones.see(&row, None);
        assert_eq!(tombstones.due(at(1000), Purges::Free).len(), 1);
        tombstones.see(&TenantRow::example(RegistryStatus::Deprovisioned), None);
        assert!(tombstones.due(Timestamp::MAX, Purges::Free).is_empty());
    }

    #[test]
    fn one_that_hangs_is_not_visited_twice() {
        let tombstones = Tombstones::default();
        let id = TenantRow::example(RegistryStatus::Deprovisioning).id;
        let busy = tombstones.take(id);
        assert!(busy.is_some() && tombstones.take(id).is_none());
        drop(busy);
        assert!(tombstones.take(id).is_some());
    }
}
