//! What became of sessions that were told to end. PostgreSQL only signals them: a function that does not look for signals,
//! for example a search in a very long text, keeps its session until it is done.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use super::identity::TenantId;

/// How long a session may take to end. An honest one takes milliseconds, or as long as its files take to be removed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A session that was told to end, or a prepared transaction that was rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The tenant whose login it is.
    pub tenant: TenantId,
    /// Why, for the metric.
    pub reason: &'static str,
    /// What it is, and why it was told to end, for people.
    pub what: String,
}

/// What became of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has ended.
    Ended(Told),
    /// It still runs. It is reported once, and again when it has ended.
    Ignored(Told),
}

/// The sessions of one server that were told to end and may still run.
#[derive(Debug, Default)]
pub struct Endings {
    open: BTreeMap<i32, Open>,
}

#[derive(Debug)]
struct Open {
    told: Told,
    first: Duration,
    is_reported: bool,
}

impl Endings {
    /// Remembers the session of a process, once: returns whether it was told for the first time. `at` is the time since any
    /// fixed moment.
    pub fn tell(&mut self, pid: i32, told: Told, at: Duration) -> bool {
        let before = self.open.len();
        self.open.entry(pid).or_insert(Open { told, first: at, is_reported: false });
        self.open.len() > before
    }

    /// The processes that may still run, and how long ago they were first told to end.
    pub fn open(&self, at: Duration) -> Vec<(i32, Duration)> {
        self.open.iter().map(|(pid, open)| (*pid, at.saturating_sub(open.first))).collect()
    }

    /// What became of them, once it was read which of them still run.
    pub fn settle(&mut self, running: &HashSet<i32>, at: Duration) -> Vec<Ending> {
        let ended = self.open.extract_if(.., |pid, _| !running.contains(pid));
        let mut endings: Vec<Ending> = ended.map(|(_, open)| Ending::Ended(open.told)).collect();
        for open in self.open.values_mut() {
            if !open.is_reported && at.saturating_sub(open.first) >= PATIENCE {
                open.is_reported = true;
                endings.push(Ending::Ignored(open.told.clone()));
            }
        }
        endings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn told(pid: i32) -> Told {
        let tenant = TenantId(Uuid::from_u128(1));
        Told { tenant, reason: "Kept", what: format!("session {pid}") }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_what_is_gone_has_ended() {
        let mut endings = Endings::default();
        assert!(endings.tell(1, told(1), at(0)));
        assert!(endings.tell(2, told(2), at(0)));
        assert_eq!(endings.settle(&HashSet::from([2]), at(0)), [Ending::Ended(told(1))]);
        // It is told again at every look.
        assert!(!endings.tell(2, told(2), at(2)));
        assert_eq!(endings.open(at(4)), [(2, at(4))]);
        assert!(endings.settle(&HashSet::from([2]), at(4)).is_empty(), "it may take a moment");
        assert_eq!(endings.settle(&HashSet::from([2]), at(6)), [Ending::Ignored(told(2))]);
        assert!(endings.settle(&HashSet::from([2]), at(8)).is_empty(), "once");
        assert_eq!(endings.settle(&HashSet::new(), at(100)), [Ending::Ended(told(2))]);
        assert!(endings.open(at(100)).is_empty());
    }
}
