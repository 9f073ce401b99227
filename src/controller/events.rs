//! Events of events.k8s.io: one per transition, never a secret. Publishing never delays or fails the work.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tracing::warn;

/// Publishes Events. One per process, so that repeated ones are counted rather than added.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

/// `note` of an Event may have 1 kB.
const MAX_NOTE_BYTES: usize = 1000;

impl Events {
    /// An Event source that signs as `tenantry`, instance `identity`.
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter =
            Reporter { controller: "tenantry.dev/operator".into(), instance: Some(identity.into()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Something happened as it should.
    pub fn normal(&self, about: ObjectReference, action: &str, reason: &str, note: String) {
        self.publish(about, EventType::Normal, action, reason, note);
    }

    /// Something happened that a person may want to look at.
    pub fn warning(&self, about: ObjectReference, action: &str, reason: &str, note: String) {
        self.publish(about, EventType::Warning, action, reason, note);
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
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &about).await {
                warn!(%error, reason = event.reason, "could not publish an Event");
            }
        });
    }
}
