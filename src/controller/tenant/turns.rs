//! One visit to a tenant at a time, whoever makes it: its controller, or the one that ends tombstones.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::OwnedMutexGuard;

/// Whose turn it is, by namespace and name.
#[derive(Default)]
pub struct Turns {
    by_name: Mutex<HashMap<(String, String), Weak<tokio::sync::Mutex<()>>>>,
}

impl Turns {
    /// Waits for the turn on a tenant, and has it until the guard is dropped.
    pub async fn take(&self, namespace: &str, name: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (namespace.to_owned(), name.to_owned());
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
