//! Whether this process may still touch anything: asked where something leaves it, before each new session and each
//! write, by parts that know nothing of leader election.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

/// A question that can be asked at any time. It is answered with yes until somebody who knows is set.
#[derive(Clone, Default)]
pub struct Fence {
    holds: Arc<OnceLock<Box<dyn Fn() -> bool + Send + Sync>>>,
}

impl Fence {
    /// Who answers from now on. The first one to be set stays.
    pub fn set(&self, may_go_on: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.holds.set(Box::new(may_go_on));
    }

    /// Whether this process may go on.
    pub fn is_open(&self) -> bool {
        self.holds.get().is_none_or(|holds| holds())
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
    fn the_answer_is_the_present_one() {
        let fence = Fence::default();
        assert!(fence.is_open());
        let leads = Arc::new(AtomicBool::new(true));
        let asked = leads.clone();
        fence.set(move || asked.load(Ordering::Relaxed));
        let elsewhere = fence.clone();
        leads.store(false, Ordering::Relaxed);
        assert!(!elsewhere.is_open());
    }
}
