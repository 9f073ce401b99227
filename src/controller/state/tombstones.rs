//! The tombstones that this process knows, and when each is due. Filled from the registry at start-up and by every
//! reconcile, and compared with the wall clock once a second, so that a deadline is met even if that clock is changed.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::domain::{
    access::AccessLevel,
    breaker::{BreakerState, COUNT_FIRST},
    identity::TenantId,
    observed::RegistryStatus,
    record::TenantRecord,
};

/// After a reconcile was requested, the next request is not before this: a reconcile records its own next time.
pub const RECHECK: SignedDuration = SignedDuration::from_secs(30);

/// A tombstone, as far as it matters when it is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The tenant's id.
    pub id: TenantId,
    /// The DatabaseServer of its database.
    pub server: String,
    /// The Tenant's namespace.
    pub namespace: String,
    /// The Tenant's name.
    pub name: String,
    /// The Tenant's uid.
    pub uid: String,
    /// The tenant's slug.
    pub slug: String,
    /// Revocation of its access was not verified yet.
    pub access_open: bool,
    /// Its purge has begun: no other object than its own is the same tenant any more.
    pub purging: bool,
    /// Its purge drops data that the customer may want restored: not while purges are frozen.
    drops_data: bool,
    /// When work is due.
    due: Timestamp,
    /// When to try: not before a failure's next attempt.
    next: Timestamp,
}

/// When the deprovisionings that began together with this one, or whose terms changed with it, can be counted.
fn counted_at(row: &TenantRecord) -> Timestamp {
    let changed_at = row.deprovisioned_at.max(row.purge_hastened_at);
    changed_at.and_then(|at| at.checked_add(COUNT_FIRST).ok()).unwrap_or(Timestamp::MIN)
}

/// What the purges of all tombstones wait for: how many for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeQueue {
    /// Revocation of their access was not verified yet.
    pub revocation: usize,
    /// A legal hold or `spec.paused` holds them.
    pub held: usize,
    /// Their time has not come.
    pub grace: usize,
    /// Their time has come, and the breaker is open.
    pub frozen: usize,
    /// They begin, or are tried again.
    pub due: usize,
    /// They have begun.
    pub purging: usize,
    /// When the next of those begins whose time has not come.
    pub next: Option<Timestamp>,
    /// How many of those begin within a day.
    pub within_day: usize,
    /// Since when the first of those is due that are neither held nor frozen.
    pub due_since: Option<Timestamp>,
}

/// All tombstones.
#[derive(Default)]
pub struct Tombstones {
    by_id: Mutex<HashMap<TenantId, Entry>>,
    busy: Arc<Mutex<HashSet<TenantId>>>,
}

/// A tombstone that is being worked on, until this is dropped.
pub struct Claim {
    busy: Arc<Mutex<HashSet<TenantId>>>,
    id: TenantId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Tombstones {
    /// Records a row that was read or changed. `not_before`: a failure waits until then.
    pub fn record(&self, row: &TenantRecord, not_before: Option<Timestamp>) {
        let mut by_id = self.lock();
        if row.status != RegistryStatus::Deprovisioning {
            by_id.remove(&row.id);
            return;
        }
        let access_open = row.access != Some(AccessLevel::Blocked);
        let due = match row.terms() {
            _ if access_open => Timestamp::MIN,
            Some(terms) if terms.held => Timestamp::MAX,
            Some(_) if row.legal_hold().is_some() && row.purge_started_at.is_none() => Timestamp::MAX,
            // Not before the breaker has counted it.
            Some(terms) => terms.purge_after.max(counted_at(row)),
            None => Timestamp::MAX,
        };
        let entry = Entry {
            id: row.id,
            server: row.placement.server.clone(),
            namespace: row.resource_namespace.clone(),
            name: row.resource_name.clone(),
            uid: row.resource_uid.clone(),
            slug: row.slug.clone(),
            access_open,
            purging: row.purge_started_at.is_some(),
            drops_data: row.activated_at.is_some() && row.purge_started_at.is_none() && !row.retain,
            due,
            next: not_before.map_or(due, |at| due.max(at)),
        };
        by_id.insert(row.id, entry);
    }

    /// The tombstones that are due. While purges are frozen, none that drops data.
    pub fn due(&self, now: Timestamp, breaker: BreakerState) -> Vec<Entry> {
        let mut by_id = self.lock();
        let frozen = matches!(breaker, BreakerState::Open | BreakerState::Unknown);
        let due = by_id
            .values_mut()
            .filter(|entry| entry.next <= now && (entry.access_open || !entry.drops_data || !frozen));
        due.map(|entry| {
            entry.next = now.saturating_add(RECHECK).unwrap_or(Timestamp::MAX);
            entry.clone()
        })
        .collect()
    }

    /// Whether a tenant is a tombstone.
    pub fn contains(&self, id: TenantId) -> bool {
        self.lock().contains_key(&id)
    }

    /// The tombstone that a new Tenant of this namespace, name and slug restores.
    pub fn of_object(&self, namespace: &str, name: &str, slug: &str) -> Option<TenantId> {
        let by_id = self.lock();
        let is_its = |entry: &&Entry| {
            !entry.purging && (&*entry.namespace, &*entry.name, &*entry.slug) == (namespace, name, slug)
        };
        by_id.values().find(is_its).map(|entry| entry.id)
    }

    /// Claims a tombstone to work on, unless it is being worked on already.
    pub fn claim(&self, id: TenantId) -> Option<Claim> {
        let claimed = self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        claimed.then(|| Claim { busy: Arc::clone(&self.busy), id })
    }

    /// A server's state changed: failures on it do not wait for their next attempt.
    pub fn retry_on(&self, server: &str) {
        for entry in self.lock().values_mut().filter(|entry| entry.server == server) {
            entry.next = entry.due;
        }
    }

    /// How many tombstones exist, and for how many of them revocation of access was not verified yet.
    pub fn count(&self) -> (usize, usize) {
        let by_id = self.lock();
        (by_id.len(), by_id.values().filter(|entry| entry.access_open).count())
    }

    /// What the purges wait for.
    pub fn queue(&self, now: Timestamp, breaker: BreakerState) -> PurgeQueue {
        let frozen = matches!(breaker, BreakerState::Open | BreakerState::Unknown);
        let within_day = now.saturating_add(SignedDuration::from_hours(24)).unwrap_or(Timestamp::MAX);
        let mut queue = PurgeQueue::default();
        for entry in self.lock().values() {
            match entry {
                Entry { access_open: true, .. } => queue.revocation += 1,
                Entry { due, .. } if *due == Timestamp::MAX => queue.held += 1,
                Entry { due, .. } if *due > now => {
                    queue.grace += 1;
                    queue.next = Some(queue.next.map_or(*due, |next| next.min(*due)));
                    queue.within_day += usize::from(*due <= within_day);
                }
                Entry { drops_data: true, .. } if frozen => queue.frozen += 1,
                Entry { due, purging, .. } => {
                    *(if *purging { &mut queue.purging } else { &mut queue.due }) += 1;
                    queue.due_since = Some(queue.due_since.map_or(*due, |since| since.min(*due)));
                }
            }
        }
        queue
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Entry>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_waits_for_next_attempt_or_server_change() {
        let tombstones = Tombstones::default();
        let row = TenantRecord::example(RegistryStatus::Deprovisioning);
        let at = |second| Timestamp::from_second(second).unwrap();
        tombstones.record(&row, Some(at(1000)));
        assert!(tombstones.due(at(999), BreakerState::Disabled).is_empty());
        tombstones.retry_on("another");
        assert!(tombstones.due(at(999), BreakerState::Disabled).is_empty());
        tombstones.retry_on("default");
        assert_eq!(tombstones.due(at(999), BreakerState::Disabled).len(), 1);
        // Requested once: the reconcile records its next time.
        assert!(tombstones.due(at(1000), BreakerState::Disabled).is_empty());
        tombstones.record(&row, None);
        assert_eq!(tombstones.due(at(1000), BreakerState::Disabled).len(), 1);
        tombstones.record(&TenantRecord::example(RegistryStatus::Deprovisioned), None);
        assert!(tombstones.due(Timestamp::MAX, BreakerState::Disabled).is_empty());
    }

    #[test]
    fn queue_counts_each_tombstone_once_by_what_it_waits_for() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let row = |n: u128, purge_after| TenantRecord {
            id: TenantId(uuid::Uuid::from_u128(n)),
            purge_after: Some(at(purge_after)),
            ..TenantRecord::example(RegistryStatus::Deprovisioning)
        };
        let tombstones = Tombstones::default();
        for row in [
            TenantRecord { access: None, ..row(1, 50) },
            TenantRecord { purge_held: Some("Paused".into()), ..row(2, 50) },
            row(3, 1000 + 24 * 3600),
            row(4, 1001 + 24 * 3600),
            row(5, 900),
            TenantRecord { purge_started_at: Some(at(990)), ..row(6, 800) },
        ] {
            tombstones.record(&row, None);
        }
        let closed = PurgeQueue {
            revocation: 1,
            held: 1,
            grace: 2,
            frozen: 0,
            due: 1,
            purging: 1,
            next: Some(at(1000 + 24 * 3600)),
            within_day: 1,
            due_since: Some(at(800)),
        };
        assert_eq!(tombstones.queue(at(1000), BreakerState::Closed), closed);
        // One that has begun ends.
        let open = PurgeQueue { frozen: 1, due: 0, ..closed };
        assert_eq!(tombstones.queue(at(1000), BreakerState::Open), open);
    }

    #[test]
    fn tombstone_is_claimed_once() {
        let tombstones = Tombstones::default();
        let id = TenantRecord::example(RegistryStatus::Deprovisioning).id;
        let claim = tombstones.claim(id);
        assert!(claim.is_some() && tombstones.claim(id).is_none());
        drop(claim);
        assert!(tombstones.claim(id).is_some());
    }
}
