//! A change that many tenants have to be reconciled for: in which order, and how many at once.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::Duration,
};

/// Tenants that wait for a reconcile, and those whose reconcile was requested. Each is in the queue once, however often
/// it is added. Times are counted from any fixed moment.
pub struct ReconcileQueue<T> {
    urgent: VecDeque<T>,
    ordinary: VecDeque<T>,
    /// Every waiting tenant, and whether it is urgent: one that became urgent is skipped at its former position.
    waiting: HashMap<T, bool>,
    in_flight: HashMap<T, InFlight>,
}

/// A requested reconcile.
struct InFlight {
    begun: bool,
    until: Duration,
}

impl<T> Default for ReconcileQueue<T> {
    fn default() -> Self {
        Self {
            urgent: VecDeque::new(),
            ordinary: VecDeque::new(),
            waiting: HashMap::new(),
            in_flight: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> ReconcileQueue<T> {
    /// Adds a tenant behind all others, or behind the urgent ones. A tenant whose reconcile is running is reconciled
    /// once more, because that reconcile may have begun before this change.
    pub fn add(&mut self, tenant: T, urgent: bool) {
        if self.waiting.get(&tenant).is_some_and(|before| *before || !urgent) {
            return;
        }
        self.waiting.insert(tenant.clone(), urgent);
        self.lane(urgent).push_back(tenant);
    }

    /// Takes the tenants to requeue now, so that at most `most` are in flight. Each has
    /// `patience` to finish; then its slot is free for the next.
    pub fn start(&mut self, now: Duration, most: usize, patience: Duration) -> Vec<T> {
        let mut slots =
            most.saturating_sub(self.in_flight.values().filter(|flight| flight.until > now).count());
        let (mut started, mut later) = (Vec::new(), Vec::new());
        while slots > 0 {
            let Some((tenant, urgent)) = self.pop() else { break };
            if self.in_flight.get(&tenant).is_some_and(|flight| flight.until > now) {
                later.push((tenant, urgent));
                continue;
            }
            self.in_flight.insert(tenant.clone(), InFlight { begun: false, until: now + patience });
            started.push(tenant);
            slots -= 1;
        }
        for (tenant, urgent) in later.into_iter().rev() {
            self.waiting.insert(tenant.clone(), urgent);
            self.lane(urgent).push_front(tenant);
        }
        started
    }

    fn lane(&mut self, urgent: bool) -> &mut VecDeque<T> {
        if urgent { &mut self.urgent } else { &mut self.ordinary }
    }

    fn pop(&mut self) -> Option<(T, bool)> {
        loop {
            let (tenant, urgent) = match self.urgent.pop_front() {
                Some(tenant) => (tenant, true),
                None => (self.ordinary.pop_front()?, false),
            };
            if self.waiting.get(&tenant) == Some(&urgent) {
                self.waiting.remove(&tenant);
                return Some((tenant, urgent));
            }
        }
    }

    /// A reconcile starts: the requested one, or one after it.
    pub fn reconcile_started(&mut self, tenant: &T) {
        if let Some(flight) = self.in_flight.get_mut(tenant) {
            flight.begun = true;
        }
    }

    /// A reconcile finished, or its tenant does not exist. True if it was a requested one.
    pub fn reconcile_finished(&mut self, tenant: &T) -> bool {
        // A reconcile that began before the request is not the requested one.
        let is_requested = self.in_flight.get(tenant).is_some_and(|flight| flight.begun);
        is_requested && self.in_flight.remove(tenant).is_some()
    }

    /// A tenant that waits, and was not taken yet, does not wait any longer.
    pub fn withdraw(&mut self, tenant: &T) {
        self.waiting.remove(tenant);
    }

    /// Whether a tenant waits to be taken.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the reconcile of a tenant was requested and has not finished.
    pub fn is_started(&self, tenant: &T) -> bool {
        self.in_flight.contains_key(tenant)
    }

    /// Whether no tenant waits or is in flight.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Whether a tenant waits, or its requested reconcile has not finished, however long that takes.
    pub fn contains(&self, tenant: &T) -> bool {
        self.waiting.contains_key(tenant) || self.in_flight.contains_key(tenant)
    }

    /// When the next slot is free at the latest; none if no tenant waits.
    pub fn next_timeout(&self, now: Duration) -> Option<Duration> {
        let until = self.in_flight.values().map(|flight| flight.until).filter(|until| *until > now).min();
        until.filter(|_| !self.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn queue(ordinary: &[u32]) -> ReconcileQueue<u32> {
        let mut queue = ReconcileQueue::default();
        ordinary.iter().for_each(|tenant| queue.add(*tenant, false));
        queue
    }

    fn reconcile(queue: &mut ReconcileQueue<u32>, tenant: u32) -> bool {
        queue.reconcile_started(&tenant);
        queue.reconcile_finished(&tenant)
    }

    #[test]
    fn at_most_the_maximum_are_in_flight_in_order() {
        let mut queue = queue(&[1, 2, 3, 4, 2, 1]);
        assert_eq!(queue.start(at(0), 2, PATIENCE), [1, 2]);
        assert_eq!(queue.start(at(0), 2, PATIENCE), [0; 0]);
        assert!(queue.contains(&1) && queue.contains(&4) && !queue.contains(&9));
        assert!(reconcile(&mut queue, 2) && !reconcile(&mut queue, 9));
        assert!(!queue.contains(&2));
        assert_eq!(queue.start(at(1), 2, PATIENCE), [3]);
        assert!(reconcile(&mut queue, 1) && reconcile(&mut queue, 3));
        assert_eq!(queue.start(at(2), 2, PATIENCE), [4]);
        assert!(reconcile(&mut queue, 4));
        assert_eq!(queue.start(at(3), 2, PATIENCE), [0; 0]);
    }

    #[test]
    fn urgent_tenants_are_first_even_if_waiting_already() {
        let mut queue = queue(&[1, 2, 3]);
        queue.add(7, true);
        queue.add(3, true);
        queue.add(7, false);
        assert_eq!(queue.start(at(0), 9, PATIENCE), [7, 3, 1, 2]);
    }

    #[test]
    fn unfinished_reconcile_frees_its_slot_after_patience() {
        let mut queue = queue(&[1, 2, 3]);
        assert_eq!(queue.start(at(0), 1, PATIENCE), [1]);
        queue.reconcile_started(&1);
        assert_eq!(queue.next_timeout(at(0)), Some(at(60)));
        assert_eq!(queue.start(at(59), 1, PATIENCE), [0; 0]);
        assert_eq!(queue.start(at(60), 1, PATIENCE), [2]);
        // It is still awaited, and finishes late: its slot was free already.
        assert!(queue.contains(&1) && queue.next_timeout(at(60)) == Some(at(120)));
        assert!(queue.reconcile_finished(&1) && !queue.contains(&1));
        assert_eq!(queue.start(at(61), 1, PATIENCE), [0; 0]);
        assert!(reconcile(&mut queue, 2));
        assert_eq!(queue.start(at(62), 1, PATIENCE), [3]);
        assert_eq!(queue.next_timeout(at(62)), None);
    }

    #[test]
    fn withdrawn_tenant_is_not_taken_and_can_be_added_again() {
        let mut queue = queue(&[1, 2]);
        queue.withdraw(&1);
        queue.withdraw(&9);
        assert_eq!(queue.start(at(0), 1, PATIENCE), [2]);
        assert!(!queue.has_waiting() && !queue.is_empty());
        queue.add(1, false);
        queue.withdraw(&1);
        queue.add(1, false);
        assert!(reconcile(&mut queue, 2) && queue.has_waiting());
        assert_eq!(queue.start(at(1), 9, PATIENCE), [1]);
        assert!(reconcile(&mut queue, 1) && queue.is_empty());
    }

    #[test]
    fn reconcile_from_before_the_request_does_not_count() {
        let mut queue = queue(&[1, 2]);
        queue.reconcile_started(&1);
        assert_eq!(queue.start(at(0), 1, PATIENCE), [1]);
        assert!(!queue.reconcile_finished(&1));
        assert_eq!(queue.start(at(1), 1, PATIENCE), [0; 0]);
        assert!(reconcile(&mut queue, 1));
        assert_eq!(queue.start(at(2), 1, PATIENCE), [2]);
    }

    #[test]
    fn change_during_reconcile_requests_another() {
        let mut queue = queue(&[1]);
        assert_eq!(queue.start(at(0), 2, PATIENCE), [1]);
        queue.reconcile_started(&1);
        queue.add(1, false);
        queue.add(2, false);
        assert_eq!(queue.start(at(1), 2, PATIENCE), [2]);
        assert!(queue.reconcile_finished(&1));
        assert_eq!(queue.start(at(2), 2, PATIENCE), [1]);
    }
}
