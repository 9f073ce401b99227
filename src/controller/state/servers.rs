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
    domain::work::Work,
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
    /// Whether a tenant's status and Secret would show the same.
    fn shows_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            // Their Secrets publish the address.
            (Self::Ready(server), Self::Ready(other)) => server.config().is_reached_as(other.config()),
            (Self::Unchecked, Self::Unchecked) => true,
            (
                Self::NotReady { reason, message },
                Self::NotReady { reason: other_reason, message: other_message },
            ) => (reason, message) == (other_reason, other_message),
            _ => false,
        }
    }
}

/// How many tombstones and other purges of one server are worked on at once: only one database is dropped at a time.
const PURGES: u16 = 4;

/// A slot on a server, returned when dropped.
pub struct Slot {
    /// Which work may be done in it.
    pub work: Work,
    _retry: Option<OwnedSemaphorePermit>,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// No slot, while one of another class is waited for.
    pub fn none(work: Work) -> Self {
        Self { work, _retry: None, _slot: None }
    }
}

/// Which slots a task asks for.
#[derive(Clone, Copy, Debug)]
pub struct SlotRequest<'a> {
    /// The name of the server.
    pub server: &'a str,
    /// The class of the work.
    pub work: Work,
    /// Whether the last attempt failed: at most half of a class's slots are for those, so that many failing tenants do not
    /// delay the others.
    pub failed: bool,
    /// The number of slots of a class, apart from purges.
    pub concurrency: u16,
}

/// Slots by server and class; with `true` those that failed tenants use at most.
type Slots = HashMap<(String, Work, bool), Arc<Semaphore>>;

/// All servers, by the name of their `DatabaseServer`.
#[derive(Default)]
pub struct Servers {
    by_name: RwLock<HashMap<String, ServerState>>,
    changed: Notify,
    slots: Mutex<Slots>,
    check_requests: Mutex<Option<mpsc::UnboundedSender<ObjectRef<DatabaseServer>>>>,
}

impl Servers {
    /// The state of the server of this name.
    pub fn get(&self, name: &str) -> ServerState {
        let servers = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        servers.get(name).cloned().unwrap_or(ServerState::Unchecked)
    }

    /// Records the result of a check. Returns whether tenants would show something else than before.
    pub fn set(&self, name: &str, state: ServerState) -> bool {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let before = by_name.insert(name.to_owned(), state.clone()).unwrap_or(ServerState::Unchecked);
        drop(by_name);
        self.changed.notify_waiters();
        !before.shows_the_same(&state)
    }

    /// Waits for a slot on a server. It has a limited number of them, so that a server that does not respond delays its own
    /// tenants only.
    pub async fn slot(&self, request: SlotRequest<'_>) -> Slot {
        let retry = match request.failed {
            true => self.slots(request, true).acquire_owned().await.ok(),
            false => None,
        };
        let slot = self.slots(request, false).acquire_owned().await.ok();
        Slot { work: request.work, _retry: retry, _slot: slot }
    }

    /// A slot, if one is free.
    pub fn free_slot(&self, request: SlotRequest<'_>) -> Option<Slot> {
        let retry = match request.failed {
            true => Some(self.slots(request, true).try_acquire_owned().ok()?),
            false => None,
        };
        let slot = self.slots(request, false).try_acquire_owned().ok()?;
        Some(Slot { work: request.work, _retry: retry, _slot: Some(slot) })
    }

    fn slots(&self, request: SlotRequest<'_>, failed: bool) -> Arc<Semaphore> {
        let SlotRequest { server, work, concurrency, .. } = request;
        let all = if work == Work::Purges { PURGES } else { concurrency };
        let number = if failed { all.div_ceil(2) } else { all };
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(usize::from(number)));
        Arc::clone(slots.entry((server.to_owned(), work, failed)).or_insert_with(new))
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
