//! Keeps the Secret, the webhook configurations and the server in agreement. Every replica does: the first one creates or
//! renews the keys, and the others read them. Nothing is requested while nothing changes.

use std::{
    fmt::Debug,
    pin::Pin,
    time::{Duration, SystemTime},
};

use futures::{Stream, StreamExt};
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    core::v1::Secret,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Knowledge, WebhookSettings,
    certificate::CertificateError,
    configurations::{WebhookList, missing},
    keys::Keys,
    server::Serving,
};

/// When something that failed is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// The longest time between two looks at the clock.
const LOOK: Duration = Duration::from_secs(3600);

/// How long a request may take.
const ANSWER: Duration = Duration::from_secs(20);

/// Why the keys could not be kept up.
#[derive(Debug, thiserror::Error)]
enum UpkeepError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("the API server does not respond")]
    NoAnswer(#[from] tokio::time::error::Elapsed),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("a new certificate would not be accepted for the names {0:?}: correct --webhook-names")]
    Names(Vec<String>),
    #[error("the certificate in the Secret cannot be served: {0}")]
    Serve(#[from] std::io::Error),
    #[error("the certificate in the Secret cannot be served: {0}")]
    Renew(#[from] rustls::Error),
}

/// What is known of the cluster, by the watches.
#[derive(Default)]
struct Seen {
    /// None: not known yet; none within: it does not exist.
    secret: Option<Option<Secret>>,
    validating: Option<ValidatingWebhookConfiguration>,
    mutating: Option<MutatingWebhookConfiguration>,
}

/// Where it all is.
struct Places {
    secrets: Api<Secret>,
    validating: Api<ValidatingWebhookConfiguration>,
    mutating: Api<MutatingWebhookConfiguration>,
}

/// Runs until `stop`: then open requests are answered.
pub async fn run(settings: WebhookSettings, knowledge: Knowledge, stop: CancellationToken) {
    let mut serving = None;
    stop.run_until_cancelled(keep_up(&settings, &knowledge, &mut serving)).await;
    if let Some((server, _)) = serving {
        Serving::stop(server).await;
    }
}

async fn keep_up(settings: &WebhookSettings, knowledge: &Knowledge, serving: &mut Option<(Serving, Keys)>) {
    let client = &knowledge.client;
    let places = Places {
        secrets: Api::namespaced(client.clone(), &settings.namespace),
        validating: Api::all(client.clone()),
        mutating: Api::all(client.clone()),
    };
    let mut secret = watched(&places.secrets, &settings.secret);
    let mut validating = watched(&places.validating, &settings.configuration);
    let mut mutating = watched(&places.mutating, &settings.configuration);
    let mut seen = Seen::default();
    let look = LOOK.min(settings.lifetime / 12);
    loop {
        let pause = match settle(settings, knowledge, &places, &mut seen, serving).await {
            Ok(()) => look,
            Err(error) => {
                warn!(%error, "the admission webhook is not in order; it is tried again");
                PAUSE.min(look)
            }
        };
        tokio::select! {
            Some(found) = secret.next() => seen.secret = Some(found),
            Some(found) = validating.next() => seen.validating = found,
            Some(found) = mutating.next() => seen.mutating = found,
            () = sleep(pause) => {}
        }
    }
}

/// One object, whenever it is another one.
fn watched<K>(api: &Api<K>, name: &str) -> Pin<Box<dyn Stream<Item = Option<K>> + Send>>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let found = watcher::watch_object(api.clone(), name).default_backoff();
    Box::pin(found.filter_map(async |found| {
        found.inspect_err(|error| debug!(%error, "a watch of the admission webhook failed")).ok()
    }))
}

/// Brings the Secret, the configurations and the server into agreement, in this order: the API server trusts the authority of a
/// certificate before that is served.
async fn settle(
    settings: &WebhookSettings,
    knowledge: &Knowledge,
    places: &Places,
    seen: &mut Seen,
    serving: &mut Option<(Serving, Keys)>,
) -> Result<(), UpkeepError> {
    let Some(keys) = agreed(settings, &places.secrets, seen).await? else { return Ok(()) };
    write_missing(&keys, seen.validating.as_ref(), &places.validating).await?;
    write_missing(&keys, seen.mutating.as_ref(), &places.mutating).await?;
    match serving {
        Some((_, served)) if *served == keys => {}
        Some((server, served)) => {
            server.renew(&keys.leaf, &keys.word)?;
            info!("the admission webhook has another certificate");
            *served = keys;
        }
        None => {
            let server = Serving::start(settings.address, &keys.leaf, &keys.word, knowledge.clone())?;
            *serving = Some((server, keys));
        }
    }
    Ok(())
}

/// The keys in the Secret, which are created or renewed if they have to be. None: the Secret was not read yet.
async fn agreed(
    settings: &WebhookSettings,
    secrets: &Api<Secret>,
    seen: &mut Seen,
) -> Result<Option<Keys>, UpkeepError> {
    let Some(found) = &mut seen.secret else { return Ok(None) };
    loop {
        let now = SystemTime::now();
        let read = found.as_ref().and_then(Keys::read);
        if let Some(good) =
            read.as_ref().filter(|keys| keys.are_good(&settings.names, settings.lifetime, now))
        {
            return Ok(Some(good.clone()));
        }
        let new = Keys::renewed(read.as_ref(), &settings.names, settings.lifetime, now)?;
        if !new.are_good(&settings.names, settings.lifetime, now) {
            return Err(UpkeepError::Names(settings.names.clone()));
        }
        let secret = new.secret(&settings.secret, found.as_ref());
        let parameters = PostParams::default();
        let written = match found {
            Some(_) => timeout(ANSWER, secrets.replace(&settings.secret, &parameters, &secret)).await?,
            None => timeout(ANSWER, secrets.create(&parameters, &secret)).await?,
        };
        match written {
            Ok(written) => {
                info!(secret = settings.secret, "the admission webhook has a new certificate");
                *found = Some(written);
            }
            // Another replica was faster, or a user deleted it.
            Err(kube::Error::Api(answer)) if answer.is_conflict() || answer.is_already_exists() => {
                *found = timeout(ANSWER, secrets.get_opt(&settings.secret)).await??;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes what is missing in a configuration.
async fn write_missing<K>(keys: &Keys, seen: Option<&K>, api: &Api<K>) -> Result<(), UpkeepError>
where
    K: Resource + WebhookList + Clone + Debug + DeserializeOwned,
{
    let Some(list) = seen else { return Ok(()) };
    let Some(webhooks) = missing(list, &keys.authorities, &keys.word) else { return Ok(()) };
    let version = list.meta().resource_version.clone();
    let patch = Patch::Strategic(json!({"metadata": {"resourceVersion": version}, "webhooks": webhooks}));
    match timeout(ANSWER, api.patch(&list.name_any(), &PatchParams::default(), &patch)).await? {
        Ok(_) => {
            info!(configuration = list.name_any(), "the authority of the admission webhook is written");
            Ok(())
        }
        // Its watch has, or will have, what it is now.
        Err(kube::Error::Api(answer)) if answer.is_conflict() || answer.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
