//! Events of events.k8s.io: one per transition, never a secret. Publishing never delays or fails the work.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tracing::warn;

/// Publishes Events. One per process, so that repeated ones are counted rather than added.
#[derive(Clone)]
pub struct Events {
    client: Client,
    reporter: Reporter,
    told: Arc<Mutex<HashMap<Topic, (String, Recorder)>>>,
}

/// What an Event is about, and its reason.
type Topic = ([Option<String>; 4], String);

/// So many topics are remembered; then it is begun anew.
const TOPICS: usize = 10_000;

/// `note` of an Event may have 1 kB.
const MAX_NOTE_BYTES: usize = 1000;

impl Events {
    /// An Event source that signs as `tenantry`, instance `identity`.
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter =
            Reporter { controller: "tenantry.dev/operator".into(), instance: Some(identity.into()) };
        Self { client, reporter, told: Arc::default() }
    }

    /// Something happened as it should.
    pub fn normal(&self, about: ObjectReference, action: &str, reason: &str, note: String) {
        self.publish(about, EventType::Normal, action, reason, note);
    }

    /// Something happened that a person may want to look at.
    pub fn warning(&self, about: ObjectReference, action: &str, reason: &str, note: String) {
        self.publish(about, EventType::Warning, action, reason, note);
    }

    /// kube's recorder counts what has the same topic, and shows the first note for ever: what says something else gets a
    /// recorder of its own.
    fn recorder(&self, about: &ObjectReference, event: &Event) -> Recorder {
        let object = [&about.kind, &about.namespace, &about.name, &about.uid].map(Clone::clone);
        let note = event.note.clone().unwrap_or_default();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= TOPICS {
            told.clear();
        }
        let entry = told.entry((object, event.reason.clone()));
        let new = || (note.clone(), Recorder::new(self.client.clone(), self.reporter.clone()));
        let (last, recorder) = entry.or_insert_with(new);
        if *last != note {
            (*last, *recorder) = new();
        }
        recorder.clone()
    }

    fn publish(
        &self,
        about: ObjectReference,
        type_: EventType,
        action: &str,
        reason: &str,
        mut note: String,
    ) {
        note.truncate(note.floor_char_boundary(MAX_NOTE_BYTES));
        let event =
            Event { type_, reason: reason.into(), note: Some(note), action: action.into(), secondary: None };
        let recorder = self.recorder(&about, &event);
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &about).await {
                warn!(%error, reason = event.reason, "could not publish an Event");
            }
        });
    }
}
