//! The servers that are ready for work. The controller of `DatabaseServer` fills this, the one of `Tenant` reads it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use kube::runtime::reflector::ObjectRef;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{api::database_server::DatabaseServer, postgres::server::Server};

/// What a server's name leads to, in this process.
#[derive(Clone)]
pub enum Standing {
    /// It passed its preflight and its shared roles are there.
    Ready(Server),
    /// It was visited and is not ready; the reason and message are its `Ready` condition's.
    NotReady {
        /// A condition reason.
        reason: String,
        /// For people.
        message: String,
    },
    /// It was not visited yet, or there is no such server.
    Unvisited,
}

impl Standing {
    /// Whether a tenant would be told the same.
    fn says_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ready(_), Self::Ready(_)) | (Self::Unvisited, Self::Unvisited) => true,
            (
                Self::NotReady { reason, message },
                Self::NotReady { reason: other_reason, message: other_message },
            ) => (reason, message) == (other_reason, other_message),
            _ => false,
        }
    }
}

/// What is done on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// For Tenants that are there.
    Tenants,
    /// For those of them whose last attempt failed: no more than half of the places, so that a crowd of them holds up
    /// nobody else.
    Failed,
    /// For those of which only a tombstone is left: in places of their own, since a drop takes long.
    Tombstones,
}

/// A place on a server, given back when dropped.
pub struct Place {
    _again: Option<OwnedSemaphorePermit>,
    _any: Option<OwnedSemaphorePermit>,
}

/// All servers, by the name of their `DatabaseServer`.
#[derive(Default)]
pub struct Servers {
    by_name: RwLock<HashMap<String, Standing>>,
    changed: Notify,
    places: Mutex<HashMap<(String, Work), Arc<Semaphore>>>,
    suspects: Mutex<Option<mpsc::UnboundedSender<ObjectRef<DatabaseServer>>>>,
}

impl Servers {
    /// What is known of the server of this name.
    pub fn get(&self, name: &str) -> Standing {
        let servers = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        servers.get(name).cloned().unwrap_or(Standing::Unvisited)
    }

    /// Records the outcome of a visit, and returns whether it differs from the one before.
    pub fn set(&self, name: &str, standing: Standing) -> bool {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let before = by_name.insert(name.to_owned(), standing.clone()).unwrap_or(Standing::Unvisited);
        drop(by_name);
        self.changed.notify_waiters();
        !before.says_the_same(&standing)
    }

    /// Waits for one of the places for some work on a server: `most` are worked on at once, so that a server that hangs
    /// holds up its own tenants and no others.
    pub async fn place(&self, name: &str, work: Work, most: u16) -> Place {
        let (again, any) = match work {
            Work::Failed => {
                let again = self.places_for(name, Work::Failed, most.div_ceil(2));
                (again.acquire_owned().await.ok(), self.places_for(name, Work::Tenants, most))
            }
            Work::Tenants | Work::Tombstones => (None, self.places_for(name, work, most)),
        };
        Place { _again: again, _any: any.acquire_owned().await.ok() }
    }

    fn places_for(&self, name: &str, work: Work, most: u16) -> Arc<Semaphore> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(usize::from(most)));
        Arc::clone(places.entry((name.to_owned(), work)).or_insert_with(new))
    }

    /// Where it is told of servers that a tenant's step could not reach.
    pub fn tell(&self, visits: mpsc::UnboundedSender<ObjectRef<DatabaseServer>>) {
        *self.suspects.lock().unwrap_or_else(PoisonError::into_inner) = Some(visits);
    }

    /// A step could not reach this server: it is looked at now, not at its next period.
    pub fn suspect(&self, name: &str) {
        if let Some(visits) = self.suspects.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let _ = visits.send(ObjectRef::new(name));
        }
    }

    /// Forgets a server whose `DatabaseServer` is gone.
    pub fn remove(&self, name: &str) {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Returns after the next visit's outcome, or soon: one recorded just before the call is not missed for long.
    pub async fn changed(&self) {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(50), self.changed.notified()).await;
    }
}
