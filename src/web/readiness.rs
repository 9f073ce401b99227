//! Readiness: the process is ready when all its gates are open.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The gates of this process, by name. Cheap to clone: all clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    /// Why each gate is closed; none if it is open.
    gates: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

/// One gate.
#[derive(Clone, Debug)]
pub struct ReadinessGate {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Adds a gate, closed.
    pub fn gate(&self, name: &'static str) -> ReadinessGate {
        let gate = ReadinessGate { readiness: self.clone(), name };
        gate.close("not yet");
        gate
    }

    /// The gates that are closed, and why.
    pub fn closed(&self) -> Vec<(&'static str, String)> {
        self.gates().iter().filter_map(|(name, why)| Some((*name, why.clone()?))).collect()
    }

    /// Whether all gates are open.
    pub fn is_ready(&self) -> bool {
        self.gates().values().all(Option::is_none)
    }

    fn gates(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        // Nothing panics while it is locked.
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadinessGate {
    /// Opens the gate.
    pub fn open(&self) {
        self.readiness.gates().insert(self.name, None);
    }

    /// Closes the gate, for this reason.
    pub fn close(&self, why: impl Into<String>) {
        self.readiness.gates().insert(self.name, Some(why.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_all_gates_are_open() {
        let readiness = Readiness::default();
        let (registry, leader) = (readiness.gate("registry"), readiness.gate("leader"));
        assert!(!readiness.is_ready());
        registry.open();
        assert_eq!(readiness.closed(), [("leader", "not yet".to_owned())]);
        leader.open();
        assert!(readiness.is_ready());
        registry.close("no answer");
        assert_eq!(readiness.closed(), [("registry", "no answer".to_owned())]);
    }
}
