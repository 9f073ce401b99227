//! The admission webhook: what only a program can know about a request to the API server. It records who deletes an object, names the
//! user of a change where the API server has no policies for that, and refuses a slug that is taken. Every replica serves it.
//!
//! Nothing depends on it: the API server goes on without it when it does not answer (`failurePolicy: Ignore`), and whatever it
//! refuses is decided again by the reconcile. docs/webhook.md.

mod answers;
mod certificate;
mod configurations;
mod keys;
mod review;
mod server;
mod upkeep;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use kube::Client;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::registry::AdmissionRegistry;

/// How the webhook is served.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// The address.
    pub address: SocketAddr,
    /// The names by which the API server reaches it: those of the certificate.
    pub names: Vec<String>,
    /// The name of the webhook configurations.
    pub configuration: String,
    /// The Secret with the certificate.
    pub secret: String,
    /// The operator's namespace.
    pub namespace: String,
    /// How long a certificate is valid.
    pub lifetime: Duration,
}

/// What the answers need.
#[derive(Clone)]
struct Knowledge {
    client: Client,
    /// Absent until it was reached for the first time.
    registry: Arc<OnceLock<AdmissionRegistry>>,
}

/// The webhook of this process.
pub struct Webhook {
    registry: Arc<OnceLock<AdmissionRegistry>>,
    stop: CancellationToken,
    upkeep: JoinHandle<()>,
}

impl Webhook {
    /// Serves as soon as there is a certificate.
    pub fn start(settings: WebhookSettings, client: Client) -> Self {
        let (registry, stop) = (Arc::new(OnceLock::new()), CancellationToken::new());
        let knowledge = Knowledge { client, registry: registry.clone() };
        let upkeep = tokio::spawn(upkeep::run(settings, knowledge, stop.clone()));
        Self { registry, stop, upkeep }
    }

    /// From now on, the registry can be asked.
    pub fn set_registry(&self, registry: AdmissionRegistry) {
        let _ = self.registry.set(registry);
    }

    /// Answers open requests, and ends.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.upkeep.await;
        if let Some(registry) = self.registry.get() {
            registry.close().await;
        }
    }
}
