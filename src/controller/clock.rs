//! The clock for deadlines. Injected, so that a test does not wait for thirty days.

use std::{path::Path, sync::Arc};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The system clock, or one that a test sets ahead.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead: Option<Arc<Path>>,
}

impl Clock {
    /// A clock that is ahead of the system clock by the seconds in a file, which is read each time. For tests only.
    pub fn ahead_by(file: &Path) -> Self {
        Self { ahead: Some(file.into()) }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        Timestamp::now().checked_add(self.ahead()).unwrap_or(Timestamp::MAX)
    }

    /// How far it is ahead of the system clock.
    pub fn ahead(&self) -> SignedDuration {
        let read = |file: &Arc<Path>| std::fs::read_to_string(file).ok()?.trim().parse().ok();
        self.ahead.as_ref().and_then(read).map_or(SignedDuration::ZERO, SignedDuration::from_secs)
    }
}
