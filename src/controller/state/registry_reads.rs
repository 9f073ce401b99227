//! Whether the registry could be read last, by the drift check, which reads it regularly.

use std::sync::{Mutex, PoisonError};

use crate::api::reason::Reason;

/// The result of the last read.
#[derive(Default)]
pub struct RegistryReads {
    failure: Mutex<Option<Reason>>,
}

impl RegistryReads {
    /// Records a read: why it failed, or that it succeeded.
    pub fn record(&self, failure: Option<Reason>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// Why the last read failed, if it did. A leader has read the registry before the first drift check.
    pub fn failure(&self) -> Option<Reason> {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
