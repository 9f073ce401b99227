//! A change on its way to many tenants: in which order they are visited, and how many at once.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::Duration,
};

/// Those who wait for a visit, and those whose visit is asked for. Each is in the line once, however often it is added.
/// Times are counted from any one moment.
pub struct Queue<T> {
    urgent: VecDeque<T>,
    ordinary: VecDeque<T>,
    /// All in the line, and whether they are urgent: one that became so is skipped where it stood before.
    waiting: HashMap<T, bool>,
    in_flight: HashMap<T, Flight>,
}

/// A visit that is asked for.
struct Flight {
    begun: bool,
    until: Duration,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            urgent: VecDeque::new(),
            ordinary: VecDeque::new(),
            waiting: HashMap::new(),
            in_flight: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    /// Puts somebody in the line: behind all others, or behind those that are urgent too. One whose visit is under way
    /// is visited once more, as that visit may have begun before what is told of now.
    pub fn add(&mut self, who: T, urgent: bool) {
        if self.waiting.get(&who).is_some_and(|before| *before || !urgent) {
            return;
        }
        self.waiting.insert(who.clone(), urgent);
        self.line(urgent).push_back(who);
    }

    /// Takes those out who are to be visited now, so that no more than `most` visits are asked for. Each has `patience`
    /// to end; then its place is given to the next.
    pub fn start(&mut self, now: Duration, most: usize, patience: Duration) -> Vec<T> {
        let mut places =
            most.saturating_sub(self.in_flight.values().filter(|flight| flight.until > now).count());
        let (mut started, mut later) = (Vec::new(), Vec::new());
        while places > 0 {
            let Some((who, urgent)) = self.pop() else { break };
            if self.in_flight.get(&who).is_some_and(|flight| flight.until > now) {
                later.push((who, urgent));
                continue;
            }
            self.in_flight.insert(who.clone(), Flight { begun: false, until: now + patience });
            started.push(who);
            places -= 1;
        }
        for (who, urgent) in later.into_iter().rev() {
            self.waiting.insert(who.clone(), urgent);
            self.line(urgent).push_front(who);
        }
        started
    }

    fn line(&mut self, urgent: bool) -> &mut VecDeque<T> {
        if urgent { &mut self.urgent } else { &mut self.ordinary }
    }

    fn pop(&mut self) -> Option<(T, bool)> {
        loop {
            let (who, urgent) = match self.urgent.pop_front() {
                Some(who) => (who, true),
                None => (self.ordinary.pop_front()?, false),
            };
            if self.waiting.get(&who) == Some(&urgent) {
                self.waiting.remove(&who);
                return Some((who, urgent));
            }
        }
    }

    /// A visit begins: if one was asked for, it is this one, or this is one after it.
    pub fn begun(&mut self, who: &T) {
        if let Some(flight) = self.in_flight.get_mut(who) {
            flight.begun = true;
        }
    }

    /// A visit is over, or there is nobody to visit. True if it was one that was asked for.
    pub fn ended(&mut self, who: &T) -> bool {
        // One that had begun before this visit was asked for is not the one that is waited for.
        let ours = self.in_flight.get(who).is_some_and(|flight| flight.begun);
        ours && self.in_flight.remove(who).is_some()
    }

    /// Whether somebody is in the line, or on a visit that was asked for, however long that takes.
    pub fn has(&self, who: &T) -> bool {
        self.waiting.contains_key(who) || self.in_flight.contains_key(who)
    }

    /// When the next place is free at the latest; none if nobody waits for one.
    pub fn wakes_at(&self, now: Duration) -> Option<Duration> {
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

    fn queue(ordinary: &[u32]) -> Queue<u32> {
        let mut queue = Queue::default();
        ordinary.iter().for_each(|who| queue.add(*who, false));
        queue
    }

    fn visit(queue: &mut Queue<u32>, who: u32) -> bool {
        queue.begun(&who);
        queue.ended(&who)
    }

    #[test]
    fn no_more_than_the_bound_are_visited_at_once_and_each_in_its_turn() {
        let mut queue = queue(&[1, 2, 3, 4, 2, 1]);
        assert_eq!(queue.start(at(0), 2, PATIENCE), [1, 2]);
        assert_eq!(queue.start(at(0), 2, PATIENCE), [0; 0]);
        assert!(queue.has(&1) && queue.has(&4) && !queue.has(&9));
        assert!(visit(&mut queue, 2) && !visit(&mut queue, 9));
        assert!(!queue.has(&2));
        assert_eq!(queue.start(at(1), 2, PATIENCE), [3]);
        assert!(visit(&mut queue, 1) && visit(&mut queue, 3));
        assert_eq!(queue.start(at(2), 2, PATIENCE), [4]);
        assert!(visit(&mut queue, 4));
        assert_eq!(queue.start(at(3), 2, PATIENCE), [0; 0]);
    }

    #[test]
    fn the_urgent_ones_go_first_also_if_they_stood_in_the_line() {
        let mut queue = queue(&[1, 2, 3]);
        queue.add(7, true);
        queue.add(3, true);
        queue.add(7, false);
        assert_eq!(queue.start(at(0), 9, PATIENCE), [7, 3, 1, 2]);
    }

    #[test]
    fn one_that_hangs_holds_its_place_for_a_while_only() {
        let mut queue = queue(&[1, 2, 3]);
        assert_eq!(queue.start(at(0), 1, PATIENCE), [1]);
        queue.begun(&1);
        assert_eq!(queue.wakes_at(at(0)), Some(at(60)));
        assert_eq!(queue.start(at(59), 1, PATIENCE), [0; 0]);
        assert_eq!(queue.start(at(60), 1, PATIENCE), [2]);
        // It is still awaited, and ends after all: that is nobody's place any more.
        assert!(queue.has(&1) && queue.wakes_at(at(60)) == Some(at(120)));
        assert!(queue.ended(&1) && !queue.has(&1));
        assert_eq!(queue.start(at(61), 1, PATIENCE), [0; 0]);
        assert!(visit(&mut queue, 2));
        assert_eq!(queue.start(at(62), 1, PATIENCE), [3]);
        assert_eq!(queue.wakes_at(at(62)), None);
    }

    #[test]
    fn a_visit_that_began_before_it_was_asked_for_does_not_count() {
        let mut queue = queue(&[1, 2]);
        queue.begun(&1);
        assert_eq!(queue.start(at(0), 1, PATIENCE), [1]);
        assert!(!queue.ended(&1));
        assert_eq!(queue.start(at(1), 1, PATIENCE), [0; 0]);
        assert!(visit(&mut queue, 1));
        assert_eq!(queue.start(at(2), 1, PATIENCE), [2]);
    }

    #[test]
    fn a_second_change_during_a_visit_leads_to_another_one_after_it() {
        let mut queue = queue(&[1]);
        assert_eq!(queue.start(at(0), 2, PATIENCE), [1]);
        queue.begun(&1);
        queue.add(1, false);
        queue.add(2, false);
        assert_eq!(queue.start(at(1), 2, PATIENCE), [2]);
        assert!(queue.ended(&1));
        assert_eq!(queue.start(at(2), 2, PATIENCE), [1]);
    }
}
