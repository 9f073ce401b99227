//! Whether the registry could be read last, by the drift check, which reads it regularly.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::api::reason::Reason;

/// A read that takes longer than this counts as failed until it ends: a lost connection may not return for minutes.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct LastRead {
    failure: Option<Reason>,
    /// When the read began that has not ended.
    running_since: Option<Instant>,
}

/// The last read, and the one that runs.
#[derive(Default)]
pub struct RegistryReads {
    last: Mutex<LastRead>,
}

impl RegistryReads {
    /// A read begins.
    pub fn begin(&self) {
        self.lock().running_since = Some(Instant::now());
    }

    /// The read has ended: why it failed, or that it succeeded.
    pub fn end(&self, failure: Option<Reason>) {
        *self.lock() = LastRead { failure, running_since: None };
    }

    /// Why the last read failed, if it did. A leader has read the registry before the first drift check.
    pub fn failure(&self) -> Option<Reason> {
        self.failure_at(Instant::now())
    }

    fn failure_at(&self, now: Instant) -> Option<Reason> {
        let last = self.lock();
        let is_late = last.running_since.is_some_and(|since| now.duration_since(since) > PATIENCE);
        if is_late { Some(Reason::RegistryUnreachable) } else { last.failure }
    }

    fn lock(&self) -> MutexGuard<'_, LastRead> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_that_failed_or_does_not_end_is_a_failure_until_one_succeeds() {
        let (reads, now) = (RegistryReads::default(), Instant::now());
        let later = now + PATIENCE * 2;
        assert_eq!(reads.failure_at(later), None);
        reads.begin();
        assert_eq!(reads.failure_at(now), None);
        assert_eq!(reads.failure_at(later), Some(Reason::RegistryUnreachable));
        reads.end(Some(Reason::RegistryDiskFull));
        reads.begin();
        assert_eq!(reads.failure_at(now), Some(Reason::RegistryDiskFull), "the next has not ended yet");
        reads.end(None);
        assert_eq!(reads.failure_at(later), None);
    }
}
