//! Whether the breaker of mass deletions is open, as this process last read it from the registry.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    domain::breaker::{BreakerState, BreakerThresholds},
    registry::Opening,
};

/// The breaker.
pub struct Breaker {
    thresholds: Option<BreakerThresholds>,
    /// The opening that is not acknowledged; none: not read from the registry yet.
    opening: Mutex<Option<Option<Opening>>>,
    /// A deprovisioning began, or the terms of one changed, since they were last counted.
    count_needed: AtomicBool,
}

impl Breaker {
    /// A breaker that was not read from the registry yet. Without thresholds it is disabled.
    pub fn new(thresholds: Option<BreakerThresholds>) -> Self {
        Self { thresholds, opening: Mutex::new(None), count_needed: AtomicBool::new(false) }
    }

    /// When it opens; none if it is disabled.
    pub fn thresholds(&self) -> Option<BreakerThresholds> {
        self.thresholds
    }

    /// Whether purges may begin.
    pub fn state(&self) -> BreakerState {
        match (self.thresholds, &*self.lock()) {
            (None, _) => BreakerState::Disabled,
            (Some(_), None) => BreakerState::Unknown,
            (Some(_), Some(None)) => BreakerState::Closed,
            (Some(_), Some(Some(_))) => BreakerState::Open,
        }
    }

    /// Records the opening that is not acknowledged, or that there is none. Returns whether that changed.
    pub fn set(&self, opening: Option<&Opening>) -> bool {
        let opening = Some(opening.cloned());
        std::mem::replace(&mut *self.lock(), opening.clone()) != opening
    }

    /// A deprovisioning has begun, its terms changed, or it could not be counted: the next count must not be skipped.
    pub fn request_count(&self) {
        self.count_needed.store(true, Ordering::Relaxed);
    }

    /// Whether deprovisionings must be counted now. The request is cleared.
    pub fn take_count_request(&self) -> bool {
        let requested = self.count_needed.swap(false, Ordering::Relaxed);
        requested || self.lock().is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Option<Opening>>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
