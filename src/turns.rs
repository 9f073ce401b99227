//! One at a time by key: whoever takes a key has it until the guard is dropped; others wait.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// Whose turn it is, for each key. Keys that nobody has or waits for take no room for long.
#[derive(Debug)]
pub struct Turns<K> {
    by_key: Mutex<HashMap<K, Weak<Turn<()>>>>,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self { by_key: Mutex::default() }
    }
}

impl<K: Hash + Eq> Turns<K> {
    /// Waits for the turn on a key.
    pub async fn take(&self, key: K) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
            let known = turns.get(&key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                turns.retain(|_, turn| turn.strong_count() > 0);
                let turn = Arc::default();
                turns.insert(key, Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}
