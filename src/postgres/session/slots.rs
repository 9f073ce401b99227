//! Slots: the permissions to open sessions.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

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

/// An operation that waits for a slot: it is counted as long as this exists.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// Counts an operation.
    pub(super) fn counted_in(number: &'a AtomicUsize) -> Self {
        number.fetch_add(1, Ordering::SeqCst);
        Self(number)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
