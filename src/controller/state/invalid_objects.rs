//! Objects of a watch that exist and cannot be decoded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::runtime::reflector::{Lookup, ObjectRef};

use crate::controller::watch::guarded::StatusTenant;

/// What is known of an object that cannot be decoded.
#[derive(Clone, Debug)]
pub struct KnownObject {
    /// Its uid.
    pub uid: String,
    /// The tenant in its status.
    pub tenant: StatusTenant,
}

/// What is known of each. Cheap to clone: all clones share one memory.
pub struct InvalidObjects<K: Lookup<DynamicType = ()>> {
    known: Arc<Mutex<HashMap<ObjectRef<K>, KnownObject>>>,
}

impl<K: Lookup<DynamicType = ()>> InvalidObjects<K> {
    /// The uid of an object that exists and cannot be decoded.
    pub fn uid(&self, object: &ObjectRef<K>) -> Option<String> {
        self.lock().get(object).map(|known| known.uid.clone())
    }

    /// The tenants in their statuses.
    pub fn tenants(&self) -> Vec<StatusTenant> {
        self.lock().values().map(|known| known.tenant.clone()).collect()
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
    pub fn insert(&self, object: ObjectRef<K>, known: KnownObject) {
        self.lock().insert(object, known);
    }

    /// Removes an object that was corrected or deleted.
    pub fn remove(&self, object: &ObjectRef<K>) {
        self.lock().remove(object);
    }

    /// Replaces all objects with those of a new list.
    pub fn replace(&self, objects: HashMap<ObjectRef<K>, KnownObject>) {
        *self.lock() = objects;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef<K>, KnownObject>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Lookup<DynamicType = ()>> Default for InvalidObjects<K> {
    fn default() -> Self {
        Self { known: Arc::default() }
    }
}

impl<K: Lookup<DynamicType = ()>> Clone for InvalidObjects<K> {
    fn clone(&self) -> Self {
        Self { known: Arc::clone(&self.known) }
    }
}
