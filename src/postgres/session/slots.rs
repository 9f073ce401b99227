//! Slots: the permissions to open sessions.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Waits for a slot.
pub(super) async fn take_slot(slots: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed")
}

/// A slot of the first kind, or else of the second.
pub(super) async fn take_either(first: &Arc<Semaphore>, second: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    tokio::select! {
        biased;
        slot = take_slot(first) => slot,
        slot = take_slot(second) => slot,
    }
}
