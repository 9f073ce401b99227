//! The servers that are ready for work. The controller of `DatabaseServer` writes this, the controller of `Tenant` reads
//! it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use kube::runtime::reflector::ObjectRef;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use crate::{
    api::{database_server::DatabaseServer, reason::Reason},
    postgres::server::Server,
};

/// The state of one server, as this process last checked it.
#[derive(Clone)]
pub enum ServerState {
    /// It passed its preflight, and its shared roles exist.
    Ready(Server),
    /// It was checked and is not ready; the reason and message are those of its `Ready` condition.
    NotReady {
        /// A condition reason.
        reason: Reason,
        /// For people.
        message: String,
    },
    /// It was not checked yet, or does not exist.
    Unchecked,
}

impl ServerState {
    /// Whether a tenant's status would show the same.
    fn shows_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ready(_), Self::Ready(_)) | (Self::Unchecked, Self::Unchecked) => true,
            (
                Self::NotReady { reason, message },
                Self::NotReady { reason: other_reason, message: other_message },
            ) => (reason, message) == (other_reason, other_message),
            _ => false,
        }
    }
}

/// A class of work on a server, with slots of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Reconciles of Tenants.
    Tenants,
    /// Reconciles of Tenants whose last attempt failed: at most half of the slots of `Tenants`, so that many failing
    /// tenants do not delay the others.
    Failed,
    /// Tombstones without an object: a drop takes long, so they have slots of their own.
    Tombstones,
}

/// A slot on a server, returned when dropped.
pub struct Slot {
    _retry: Option<OwnedSemaphorePermit>,
    _work: Option<OwnedSemaphorePermit>,
}

/// All servers, by the name of their `DatabaseServer`.
#[derive(Default)]
pub struct Servers {
    by_name: RwLock<HashMap<String, ServerState>>,
    changed: Notify,
    slots: Mutex<HashMap<(String, Work), Arc<Semaphore>>>,
    check_requests: Mutex<Option<mpsc::UnboundedSender<ObjectRef<DatabaseServer>>>>,
}

impl Servers {
    /// The state of the server of this name.
    pub fn get(&self, name: &str) -> ServerState {
        let servers = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        servers.get(name).cloned().unwrap_or(ServerState::Unchecked)
    }

    /// Records the result of a check. Returns whether tenants would show another one than before.
    pub fn set(&self, name: &str, state: ServerState) -> bool {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let before = by_name.insert(name.to_owned(), state.clone()).unwrap_or(ServerState::Unchecked);
        drop(by_name);
        self.changed.notify_waiters();
        !before.shows_the_same(&state)
    }

    /// Waits for a slot on a server. It has `maximum` of them, so that a server that does not respond delays its own
    /// tenants only.
    pub async fn slot(&self, name: &str, work: Work, maximum: u16) -> Slot {
        let (retry, slots) = match work {
            Work::Failed => {
                let retry = self.slots(name, Work::Failed, maximum.div_ceil(2));
                (retry.acquire_owned().await.ok(), self.slots(name, Work::Tenants, maximum))
            }
            Work::Tenants | Work::Tombstones => (None, self.slots(name, work, maximum)),
        };
        Slot { _retry: retry, _work: slots.acquire_owned().await.ok() }
    }

    fn slots(&self, name: &str, work: Work, maximum: u16) -> Arc<Semaphore> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(usize::from(maximum)));
        Arc::clone(slots.entry((name.to_owned(), work)).or_insert_with(new))
    }

    /// Sets where checks are requested.
    pub fn send_check_requests_to(&self, requests: mpsc::UnboundedSender<ObjectRef<DatabaseServer>>) {
        *self.check_requests.lock().unwrap_or_else(PoisonError::into_inner) = Some(requests);
    }

    /// Requests a check of a server that a step could not reach.
    pub fn request_check(&self, name: &str) {
        if let Some(requests) = self.check_requests.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let _ = requests.send(ObjectRef::new(name));
        }
    }

    /// Forgets a server whose `DatabaseServer` is deleted.
    pub fn remove(&self, name: &str) {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Returns after the next check, or after 50 ms, since a check that ended just before the call is not noticed.
    pub async fn changed(&self) {
        let _ = timeout(Duration::from_millis(50), self.changed.notified()).await;
    }
}
