//! The support accesses in force: what ends them, and what looks for their sessions, reads no object and no row for that.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::jiff::Timestamp;
use uuid::Uuid;

use crate::domain::support::{Grant, SupportRecord};

/// In how many looks something must be missing before it counts as lost: a look may be older than what was made since.
const MISSING_LOOKS: u8 = 2;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSupport {
    /// The namespace of its object.
    pub namespace: String,
    /// The name of its object.
    pub name: String,
    /// What was granted.
    pub grant: Grant,
    /// The login and the Secret are complete.
    pub is_published: bool,
    /// A session of the login was seen.
    pub is_used: bool,
}

/// What an access has, and can lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SupportPart {
    /// Its login.
    Login,
    /// Its Secret.
    Secret,
}

struct Entry {
    held: HeldSupport,
    /// Its end was requested.
    end_requested: bool,
    /// How many looks in a row missed each part.
    missing: [u8; 2],
}

/// The support accesses that were granted and have not ended, by the uid of their object.
#[derive(Default)]
pub struct SupportsInForce {
    entries: Mutex<HashMap<Uuid, Entry>>,
}

impl SupportsInForce {
    /// Records one as the registry has it. One that was not granted, or has ended, is forgotten.
    pub fn set(&self, record: &SupportRecord) {
        let id = record.request.id;
        let Some(grant) = record.grant.clone().filter(|_| record.ended.is_none()) else {
            self.remove(id);
            return;
        };
        let held = HeldSupport {
            namespace: record.request.namespace.clone(),
            name: record.request.name.clone(),
            grant,
            is_published: record.published_at.is_some(),
            is_used: record.first_used_at.is_some(),
        };
        let mut entries = self.lock();
        if entries.get(&id).is_none_or(|entry| entry.held != held) {
            entries.insert(id, Entry { held, end_requested: false, missing: [0; 2] });
        }
    }

    /// Forgets one.
    pub fn remove(&self, id: Uuid) {
        self.lock().remove(&id);
    }

    /// One of them.
    pub fn get(&self, id: Uuid) -> Option<HeldSupport> {
        self.lock().get(&id).map(|entry| entry.held.clone())
    }

    /// All of them.
    pub fn all(&self) -> Vec<(Uuid, HeldSupport)> {
        self.lock().iter().map(|(id, entry)| (*id, entry.held.clone())).collect()
    }

    /// Their ids.
    pub fn ids(&self) -> HashSet<Uuid> {
        self.lock().keys().copied().collect()
    }

    /// Those whose time is over, each once.
    pub fn take_due(&self, now: Timestamp) -> Vec<HeldSupport> {
        let mut entries = self.lock();
        let due = entries
            .values_mut()
            .filter(|entry| !entry.end_requested && entry.held.grant.expires_at <= now)
            .map(|entry| {
                entry.end_requested = true;
                entry.held.clone()
            });
        due.collect()
    }

    /// The logins of which no session was seen yet, by server.
    pub fn unused(&self) -> BTreeMap<String, Vec<(Uuid, String)>> {
        let mut unused: BTreeMap<String, Vec<(Uuid, String)>> = BTreeMap::new();
        for (id, entry) in self.lock().iter().filter(|(_, entry)| !entry.held.is_used) {
            let Grant { server, login, .. } = &entry.held.grant;
            unused.entry(server.clone()).or_default().push((*id, login.clone()));
        }
        unused
    }

    /// A session of its login was seen.
    pub fn used(&self, id: Uuid) {
        if let Some(entry) = self.lock().get_mut(&id) {
            entry.held.is_used = true;
        }
    }

    /// Records whether a look found a part of one. Returns whether it is lost.
    pub fn looked(&self, id: Uuid, part: SupportPart, is_there: bool) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&id).filter(|entry| entry.held.is_published) else { return false };
        let missing = &mut entry.missing[part as usize];
        *missing = if is_there { 0 } else { missing.saturating_add(1) };
        *missing == MISSING_LOOKS
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        identity::TenantId,
        support::{DEFAULT_DURATION, EndReason, SupportRequest},
    };

    fn record() -> SupportRecord {
        let at = Timestamp::UNIX_EPOCH;
        SupportRecord {
            request: SupportRequest {
                id: Uuid::from_u128(1),
                namespace: "customers".into(),
                name: "look".into(),
                reason: "ticket 1".into(),
                duration: DEFAULT_DURATION,
                requires_approval: false,
                requested_by: "ada".into(),
            },
            tenant: TenantId(Uuid::from_u128(2)),
            requested_at: at,
            approved_by: None,
            grant: Some(Grant {
                at,
                expires_at: at + DEFAULT_DURATION,
                server: "default".into(),
                login: "tenant_acme_support_1".into(),
            }),
            published_at: Some(at),
            first_used_at: None,
            ended: None,
        }
    }

    #[test]
    fn end_is_requested_once_and_what_ended_is_forgotten() {
        let held = SupportsInForce::default();
        let granted = record();
        held.set(&granted);
        let expires = granted.grant.as_ref().unwrap().expires_at;
        assert_eq!(held.take_due(Timestamp::UNIX_EPOCH), []);
        assert_eq!(held.take_due(expires).len(), 1);
        assert_eq!(held.take_due(expires), [], "once");
        // The same again is no reason to request it again.
        held.set(&granted);
        assert_eq!(held.take_due(expires), []);
        held.set(&SupportRecord { ended: Some((expires, EndReason::Expired)), ..granted });
        assert!(held.ids().is_empty());
    }

    #[test]
    fn sessions_are_looked_for_until_one_was_seen() {
        let held = SupportsInForce::default();
        held.set(&record());
        assert_eq!(held.unused()["default"].len(), 1);
        held.used(Uuid::from_u128(1));
        assert!(held.unused().is_empty());
    }

    #[test]
    fn lost_is_what_two_looks_miss() {
        let held = SupportsInForce::default();
        held.set(&record());
        let id = Uuid::from_u128(1);
        let looked = |is_there| held.looked(id, SupportPart::Login, is_there);
        assert!(!looked(false));
        assert!(!looked(true) && !looked(false));
        held.looked(id, SupportPart::Secret, true);
        assert!(looked(false) && !looked(false), "once");
        held.set(&SupportRecord { published_at: None, ..record() });
        assert!(!looked(false) && !looked(false), "it is being made");
    }
}
