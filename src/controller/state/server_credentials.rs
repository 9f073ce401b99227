//! How old the operator's login to each server is, and until when the server's own certificate authority is valid: as the
//! check of the server read them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use k8s_openapi::jiff::Timestamp;

/// The times of one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CredentialTimes {
    /// When the Secret with the login was last changed, or created.
    pub login_changed: Option<Timestamp>,
    /// When the first certificate of the authority expires; none without an authority of its own.
    pub authority_expires: Option<Timestamp>,
}

/// The times of all servers, by the name of their `DatabaseServer`.
#[derive(Default)]
pub struct ServerCredentials {
    by_server: Mutex<HashMap<String, CredentialTimes>>,
}

impl ServerCredentials {
    /// Records what was read.
    pub fn record(&self, server: &str, times: CredentialTimes) {
        self.by_server.lock().unwrap_or_else(PoisonError::into_inner).insert(server.to_owned(), times);
    }

    /// What was read last.
    pub fn of(&self, server: &str) -> CredentialTimes {
        let by_server = self.by_server.lock().unwrap_or_else(PoisonError::into_inner);
        by_server.get(server).copied().unwrap_or_default()
    }
}
