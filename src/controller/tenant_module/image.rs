//! Pulls the images that modules name, beside everything else: a container registry that does not answer delays no other
//! module and no tenant. Quiet times lead to no request.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    api::{
        module_image::{ModuleImage, ModuleImageStatus},
        reason::Reason,
        tenant_module::TenantModule,
    },
    controller::context::{Context, SharedContext},
    domain::{backoff, module_refusal::ModuleRefusal},
    images::{
        ImageError, PulledImage,
        credentials::{PullCredentials, SECRET_KEY, SECRET_TYPE},
        pull::{ImagePull, ImageReference, pull},
    },
};

/// The images that are pulled at once.
const AT_ONCE: usize = 4;

/// Pulls the images that modules name and that were not pulled yet, until it is dropped.
pub async fn run(context: SharedContext) {
    let mut running = FuturesUnordered::new();
    loop {
        let modules = context.stores.tenant_modules.state();
        let source = |module: &TenantModule| module.spec.source.image.clone();
        context.state.images.keep(|name| {
            modules.iter().any(|module| module.name_any() == name && module.spec.source.image.is_some())
        });
        for module in &modules {
            let (name, Some(source)) = (module.name_any(), source(module)) else { continue };
            if running.len() < AT_ONCE && context.state.images.begin(&name, &source, Instant::now()) {
                running.push(pull_one(name, source, recorded(module), &context));
            }
        }
        let is_full = running.len() >= AT_ONCE;
        let retry = context.state.images.next_retry().filter(|_| !is_full);
        let wait = retry.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        tokio::select! {
            Some(()) = running.next(), if !running.is_empty() => {}
            () = context.state.images.wanted.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

/// The digest that was recorded for the reference.
fn recorded(module: &TenantModule) -> Option<String> {
    let (source, status) = (module.spec.source.image.as_ref()?, module.status.as_ref()?);
    let ModuleImageStatus { reference, digest } = status.image.as_ref()?;
    (*reference == source.reference).then(|| digest.clone())
}

async fn pull_one(module: String, source: ModuleImage, recorded: Option<String>, context: &Context) {
    let result = pulled(&source, recorded, context).await;
    match &result {
        Ok(image) => info!(module, source.reference, image.digest, "pulled the image of a module"),
        Err(refusal) => warn!(module, source.reference, %refusal, "could not pull the image of a module"),
    }
    let wait = |failures| backoff::temporary(failures, rand::random());
    context.state.images.end(&module, &source, result, Instant::now(), wait);
    context.state.modules.sources_changed.notify_one();
}

async fn pulled(
    source: &ModuleImage,
    recorded: Option<String>,
    context: &Context,
) -> Result<PulledImage, ModuleRefusal> {
    let reference = ImageReference::parse(&source.reference).map_err(refusal)?;
    let credentials = match &source.pull_secret_ref {
        None => PullCredentials::Anonymous,
        Some(secret) => credentials(&secret.name, &reference, context).await?,
    };
    let request = ImagePull {
        reference,
        recorded,
        path: source.path.clone().unwrap_or_else(|| "/".to_owned()),
        plain_http: source.plain_http == Some(true),
        credentials,
    };
    pull(&request).await.map_err(refusal)
}

async fn credentials(
    name: &str,
    reference: &ImageReference,
    context: &Context,
) -> Result<PullCredentials, ModuleRefusal> {
    let namespace = &context.config.operator_namespace;
    let found = |reason, message| ModuleRefusal::Found { reason, message };
    let secret = match Api::<Secret>::namespaced(context.client.clone(), namespace).get_opt(name).await {
        Ok(Some(secret)) => secret,
        Ok(None) => {
            let message = format!(
                "spec.source.image.pullSecretRef: there is no Secret {name:?} in namespace {namespace:?}, the operator's: create it there, of type {SECRET_TYPE}"
            );
            return Err(found(Reason::SecretNotFound, message));
        }
        Err(error) => {
            let message = format!("could not read Secret {name:?} in namespace {namespace:?}: {error}");
            return Err(found(Reason::KubernetesApiError, message));
        }
    };
    let config = secret.data.as_ref().and_then(|data| data.get(SECRET_KEY));
    let config = config.map_or(&[][..], |value| value.0.as_slice());
    PullCredentials::for_image(config, reference.host(), reference.repository()).map_err(|why| {
        let wrong = ImageError::Credentials(format!(
            "spec.source.image.pullSecretRef: Secret {name:?} in namespace {namespace:?}: the key {SECRET_KEY} {why}: create it with `kubectl create secret docker-registry`"
        ));
        refusal(wrong)
    })
}

fn refusal(error: ImageError) -> ModuleRefusal {
    let reason = match &error {
        ImageError::Reference { .. } => Reason::InvalidSpec,
        ImageError::Credentials(_) | ImageError::Unauthorized { .. } => Reason::SourceUnauthorized,
        ImageError::NotFound { .. } => Reason::SourceNotFound,
        ImageError::Unreachable { .. } => Reason::SourceUnreachable,
        ImageError::Content { .. } => Reason::InvalidImage,
    };
    ModuleRefusal::Found { reason, message: error.to_string() }
}
