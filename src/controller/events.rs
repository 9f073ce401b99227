//! Events of events.k8s.io: one per transition, never with a secret. Publishing never delays or fails a reconcile.

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

use crate::api::reason::Reason;

/// Publishes Events. One per process, so that repeated Events are counted.
#[derive(Clone)]
pub struct Events {
    client: Client,
    reporter: Reporter,
    recorders: Arc<Mutex<HashMap<Topic, (String, Recorder)>>>,
}

/// The object and the reason of an Event.
type Topic = ([Option<String>; 4], String);

/// The maximum of topics that are remembered. Beyond it, all are forgotten.
const MAX_TOPICS: usize = 10_000;

/// `note` of an Event may have 1 kB.
pub const MAX_NOTE_BYTES: usize = 1000;

impl Events {
    /// An Event source that signs as `tenantry`, instance `identity`.
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter =
            Reporter { controller: "tenantry.dev/operator".into(), instance: Some(identity.into()) };
        Self { client, reporter, recorders: Arc::default() }
    }

    /// Publishes an Event of type Normal.
    pub fn normal(&self, about: ObjectReference, action: &str, reason: Reason, note: String) {
        self.publish(about, EventType::Normal, action, reason, note);
    }

    /// Publishes an Event of type Warning.
    pub fn warning(&self, about: ObjectReference, action: &str, reason: Reason, note: String) {
        self.publish(about, EventType::Warning, action, reason, note);
    }

    /// kube's recorder counts Events of the same topic under their first note: another note needs a new recorder.
    fn recorder(&self, about: &ObjectReference, event: &Event) -> Recorder {
        let object = [&about.kind, &about.namespace, &about.name, &about.uid].map(Clone::clone);
        let note = event.note.clone().unwrap_or_default();
        let mut recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        if recorders.len() >= MAX_TOPICS {
            recorders.clear();
        }
        let entry = recorders.entry((object, event.reason.clone()));
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
        reason: Reason,
        mut note: String,
    ) {
        note.truncate(note.floor_char_boundary(MAX_NOTE_BYTES));
        let event = Event {
            type_,
            reason: reason.as_str().into(),
            note: Some(note),
            action: action.into(),
            secondary: None,
        };
        let recorder = self.recorder(&about, &event);
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &about).await {
                warn!(%error, reason = event.reason, "could not publish an Event");
            }
        });
    }
}
