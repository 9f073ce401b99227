//! Objects of a watch that exist and cannot be decoded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::runtime::reflector::{Lookup, ObjectRef};

/// Uids by object. Cheap to clone: all clones share one memory.
pub struct InvalidObjects<K: Lookup<DynamicType = ()>> {
    uids: Arc<Mutex<HashMap<ObjectRef<K>, String>>>,
}

impl<K: Lookup<DynamicType = ()>> InvalidObjects<K> {
    /// The uid of an object that exists and cannot be decoded.
    pub fn uid(&self, object: &ObjectRef<K>) -> Option<String> {
        self.lock().get(object).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Adds an object.
    pub fn insert(&self, object: ObjectRef<K>, uid: String) {
        self.lock().insert(object, uid);
    }

    /// Removes an object that was corrected or deleted.
    pub fn remove(&self, object: &ObjectRef<K>) {
        self.lock().remove(object);
    }

    /// Replaces all objects with those of a new list.
    pub fn replace(&self, objects: HashMap<ObjectRef<K>, String>) {
        *self.lock() = objects;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef<K>, String>> {
        self.uids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Lookup<DynamicType = ()>> Default for InvalidObjects<K> {
    fn default() -> Self {
        Self { uids: Arc::default() }
    }
}

impl<K: Lookup<DynamicType = ()>> Clone for InvalidObjects<K> {
    fn clone(&self) -> Self {
        Self { uids: Arc::clone(&self.uids) }
    }
}
