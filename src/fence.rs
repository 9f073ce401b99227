//! Whether this process may still change anything. It is checked before each new session and each write, by modules that do
//! not know leader election.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

/// Open until a check is set, then as long as the check returns true.
#[derive(Clone, Default)]
pub struct Fence {
    check: Arc<OnceLock<Box<dyn Fn() -> bool + Send + Sync>>>,
}

impl Fence {
    /// Sets the check. The first one that is set stays.
    pub fn set(&self, check: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.check.set(Box::new(check));
    }

    /// Whether this process may change anything.
    pub fn is_open(&self) -> bool {
        self.check.get().is_none_or(|check| check())
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fence({})", self.is_open())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn fence_follows_its_check() {
        let fence = Fence::default();
        assert!(fence.is_open());
        let leads = Arc::new(AtomicBool::new(true));
        let current = leads.clone();
        fence.set(move || current.load(Ordering::Relaxed));
        let clone = fence.clone();
        leads.store(false, Ordering::Relaxed);
        assert!(!clone.is_open());
    }
}
