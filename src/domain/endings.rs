//! What became of sessions that were asked to end. PostgreSQL only signals them: a function that does not look for signals,
//! for example a search in a very long text, keeps its session until it is done.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use super::identity::TenantId;

/// How long a session may take to end. An honest one takes milliseconds, or as long as its files take to be removed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A session that was asked to end, or a prepared transaction that was rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The tenant whose login it is.
    pub tenant: TenantId,
    /// Why, for the metric.
    pub reason: &'static str,
    /// What it is, and why it was asked to end, for people.
    pub what: String,
}

/// What became of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has ended.
    Ended(Asked),
    /// It still runs. It is reported once, and again when it has ended.
    Ignored(Asked),
}

/// The sessions of one server that were asked to end and may still run.
#[derive(Debug, Default)]
pub struct Endings {
    open: BTreeMap<i32, Open>,
}

#[derive(Debug)]
struct Open {
    asked: Asked,
    first: Duration,
    is_reported: bool,
}

impl Endings {
    /// Remembers the session of a process, once: returns whether it was asked for the first time. `at` is the time since any
    /// fixed moment.
    pub fn ask(&mut self, pid: i32, asked: Asked, at: Duration) -> bool {
        let before = self.open.len();
        self.open.entry(pid).or_insert(Open { asked, first: at, is_reported: false });
        self.open.len() > before
    }

    /// The processes that may still run, and how long ago they were first asked to end.
    pub fn open(&self, at: Duration) -> Vec<(i32, Duration)> {
        self.open.iter().map(|(pid, open)| (*pid, at.saturating_sub(open.first))).collect()
    }

    /// What became of them, once it was read which of them still run.
    pub fn settle(&mut self, running: &HashSet<i32>, at: Duration) -> Vec<Ending> {
        let ended = self.open.extract_if(.., |pid, _| !running.contains(pid));
        let mut endings: Vec<Ending> = ended.map(|(_, open)| Ending::Ended(open.asked)).collect();
        for open in self.open.values_mut() {
            if !open.is_reported && at.saturating_sub(open.first) >= PATIENCE {
                open.is_reported = true;
                endings.push(Ending::Ignored(open.asked.clone()));
            }
        }
        endings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn asked(pid: i32) -> Asked {
        let tenant = TenantId(Uuid::from_u128(1));
        Asked { tenant, reason: "Kept", what: format!("session {pid}") }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_what_is_gone_has_ended() {
        let mut endings = Endings::default();
        assert!(endings.ask(1, asked(1), at(0)));
        assert!(endings.ask(2, asked(2), at(0)));
        assert_eq!(endings.settle(&HashSet::from([2]), at(0)), [Ending::Ended(asked(1))]);
        // It is asked again at every look.
        assert!(!endings.ask(2, asked(2), at(2)));
        assert_eq!(endings.open(at(4)), [(2, at(4))]);
        assert!(endings.settle(&HashSet::from([2]), at(4)).is_empty(), "it may take a moment");
        assert_eq!(endings.settle(&HashSet::from([2]), at(6)), [Ending::Ignored(asked(2))]);
        assert!(endings.settle(&HashSet::from([2]), at(8)).is_empty(), "once");
        assert_eq!(endings.settle(&HashSet::new(), at(100)), [Ending::Ended(asked(2))]);
        assert!(endings.open(at(100)).is_empty());
    }
}
