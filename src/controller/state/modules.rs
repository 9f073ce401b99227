//! What this process knows of TenantModules: the content that was accepted, what became of the content that was read last,
//! and the modules whose rollout stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::domain::{
    accepted_module::AcceptedModule,
    module_refusal::ModuleRefusal,
    module_status::{ContentState, ModuleReport},
};

/// A rehearsal whose result stays: of this content, with this permission, on top of these dependencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RehearsedContent {
    /// The digest of the content.
    pub digest: String,
    /// Whether data may be destroyed.
    pub allow_destructive: bool,
    /// The digest of the dependencies.
    pub dependencies: String,
}

/// All of it, by the module's name.
#[derive(Default)]
pub struct ModuleStates {
    known: Mutex<Known>,
    /// Notified when a source, a TenantModule or a server changed.
    pub sources_changed: Notify,
    /// Notified when the status of a TenantModule may have to change.
    pub status_changed: Notify,
}

#[derive(Default)]
struct Known {
    accepted: BTreeMap<String, AcceptedModule>,
    reports: BTreeMap<String, ModuleReport>,
    refused: BTreeMap<String, (RehearsedContent, ModuleRefusal)>,
    stopped: BTreeSet<String>,
    /// The message of the refusal that an Event was published of; none since content was accepted.
    announced: BTreeMap<String, Option<String>>,
}

impl ModuleStates {
    /// Takes what the registry has.
    pub fn read_registry(&self, accepted: BTreeMap<String, AcceptedModule>) {
        self.lock().accepted = accepted;
    }

    /// The accepted content of a module.
    pub fn accepted(&self, name: &str) -> Option<AcceptedModule> {
        self.lock().accepted.get(name).cloned()
    }

    /// The schema of a module's objects.
    pub fn schema(&self, name: &str) -> Option<String> {
        self.lock().accepted.get(name).map(|accepted| accepted.schema.clone())
    }

    /// The name of a version of a module whose migrations a tool applies.
    pub fn version_name(&self, module: &str, version: i32) -> Option<String> {
        let known = self.lock();
        let mut names = known.accepted.get(module)?.version_names();
        names.find(|(number, _)| *number == version).map(|(_, name)| name.to_owned())
    }

    /// The names of the modules of which content was accepted.
    pub fn accepted_names(&self) -> Vec<String> {
        self.lock().accepted.keys().cloned().collect()
    }

    /// Content was accepted.
    pub fn accept(&self, module: AcceptedModule) {
        let mut known = self.lock();
        known.refused.remove(&module.name);
        known.accepted.insert(module.name.clone(), module);
    }

    /// What was accepted of a module is forgotten.
    pub fn forget(&self, name: &str) {
        self.lock().accepted.remove(name);
    }

    /// The rehearsal of this content was refused.
    pub fn refuse(&self, name: &str, content: RehearsedContent, refusal: ModuleRefusal) {
        self.lock().refused.insert(name.to_owned(), (content, refusal));
    }

    /// Why the rehearsal of this content was refused, if it was.
    pub fn refusal(&self, name: &str, content: &RehearsedContent) -> Option<ModuleRefusal> {
        self.lock().refused.get(name).filter(|(refused, _)| refused == content).map(|(_, why)| why.clone())
    }

    /// Replaces what became of the content that was read last.
    pub fn report(&self, reports: BTreeMap<String, ModuleReport>) {
        let mut known = self.lock();
        known.announced.retain(|name, _| reports.contains_key(name));
        if known.reports != reports {
            known.reports = reports;
            self.status_changed.notify_one();
        }
    }

    /// What became of a module's content.
    pub fn report_of(&self, name: &str) -> Option<ModuleReport> {
        self.lock().reports.get(name).cloned()
    }

    /// The refusal of which an Event has to be published: one that is not the last one that was. `shown` is the message in the
    /// status, of which an earlier process has published one.
    pub fn announce(&self, name: &str, content: &ContentState, shown: Option<&str>) -> Option<ModuleRefusal> {
        let mut known = self.lock();
        let announced = known.announced.entry(name.to_owned()).or_insert_with(|| shown.map(str::to_owned));
        match content {
            ContentState::Accepted => *announced = None,
            ContentState::Refused(refusal) => {
                let message = Some(refusal.to_string());
                if *announced != message {
                    *announced = message;
                    return Some(refusal.clone());
                }
            }
            // What follows may be the same refusal again.
            ContentState::Rehearsing(_) | ContentState::Unavailable(_) => {}
        }
        None
    }

    /// Replaces the modules whose rollout is stopped. Returns those that go on.
    pub fn stop(&self, stopped: BTreeSet<String>) -> Vec<String> {
        let mut known = self.lock();
        let before = std::mem::replace(&mut known.stopped, stopped);
        before.difference(&known.stopped).cloned().collect()
    }

    /// Whether the rollout of a module is stopped.
    pub fn is_stopped(&self, name: &str) -> bool {
        self.lock().stopped.contains(name)
    }

    /// The modules whose rollout is stopped.
    pub fn stopped(&self) -> Vec<String> {
        self.lock().stopped.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::reason::Reason;

    #[test]
    fn refusal_is_announced_once_until_it_is_another() {
        let refused = |message: &str| {
            let (reason, message) = (Reason::RehearsalFailed, message.to_owned());
            ContentState::Refused(ModuleRefusal::Found { reason, message })
        };
        let rehearsing = ContentState::Rehearsing("x".into());
        let states = ModuleStates::default();
        let announces = |content: &ContentState| states.announce("wiki", content, None).is_some();
        let steps = [
            (refused("a"), true),
            (refused("a"), false),
            (rehearsing.clone(), false),
            (refused("a"), false),
            (refused("b"), true),
            (ContentState::Accepted, false),
            (refused("b"), true),
        ];
        for (step, (content, is_new)) in steps.iter().enumerate() {
            assert_eq!(announces(content), *is_new, "{step}");
        }
        // A process that follows another one takes what the status shows.
        let next = ModuleStates::default();
        for content in [&rehearsing, &refused("b")] {
            assert_eq!(next.announce("wiki", content, Some("b")), None);
        }
        // Deleted, and applied again.
        next.report(BTreeMap::new());
        assert!(next.announce("wiki", &refused("b"), None).is_some());
    }
}
