//! One lock per key, held until its guard is dropped.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{Mutex as Lock, OwnedMutexGuard};

/// Locks by key. A key that is not locked takes no memory for long.
#[derive(Debug)]
pub struct KeyedLock<K> {
    by_key: Mutex<HashMap<K, Weak<Lock<()>>>>,
}

impl<K> Default for KeyedLock<K> {
    fn default() -> Self {
        Self { by_key: Mutex::default() }
    }
}

impl<K: Hash + Eq> KeyedLock<K> {
    /// Waits for the lock of a key.
    pub async fn take(&self, key: K) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
            let known = locks.get(&key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                locks.retain(|_, lock| lock.strong_count() > 0);
                let lock = Arc::default();
                locks.insert(key, Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }

    /// Whether the lock of a key is held, or waited for.
    pub fn is_taken(&self, key: &K) -> bool {
        let locks = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        locks.get(key).is_some_and(|lock| lock.strong_count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn key_is_taken_while_its_guard_lives() {
        let locks = KeyedLock::default();
        assert!(!locks.is_taken(&1));
        let guard = locks.take(1).await;
        assert!(locks.is_taken(&1) && !locks.is_taken(&2));
        drop(guard);
        assert!(!locks.is_taken(&1));
    }
}
