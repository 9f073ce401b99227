//! Counts deprovisionings and purges, watches the Tenant CRD, and closes the breaker of mass deletions when an operator acknowledges
//! it.
//!
//! It is acknowledged by an annotation on the Tenant CRD with the token of the opening: a user who may change the CRD may
//! delete every Tenant in any case.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, CustomResourceExt, ResourceExt,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use tracing::{info, warn};

use crate::{
    api::{ANNOTATION_BREAKER_ACKNOWLEDGED, tenant::Tenant},
    controller::{
        breaker::{count, report_wrong_token, set},
        context::{Context, SharedContext},
        watch::source::watch_config,
    },
    domain::attribution::Actor,
    registry,
};

/// How often deprovisionings and purges are counted, while new ones begin or terms change.
const PERIOD: Duration = Duration::from_secs(1);

type Crd = PartialObjectMeta<CustomResourceDefinition>;

/// A wrong acknowledgement that was reported: the number of the opening, and the annotation.
type WrongToken = (i64, String);

/// Counts and watches until it is dropped.
pub async fn run(context: SharedContext) {
    let crds = Api::<Crd>::all(context.watch_client.clone());
    let name = format!("metadata.name={}", Tenant::crd_name());
    let mut events = watcher(crds, watch_config().fields(&name)).default_backoff().boxed();
    let mut ticks = tokio::time::interval(PERIOD);
    // The last version, until it was evaluated: the registry may not respond just then.
    let mut pending = None;
    let mut listed = false;
    let mut reported = None;
    loop {
        tokio::select! {
            event = events.try_next() => match event {
                Ok(Some(watcher::Event::Apply(crd) | watcher::Event::InitApply(crd))) => pending = Some(crd),
                Ok(Some(watcher::Event::InitDone)) => listed = true,
                Ok(Some(watcher::Event::Init | watcher::Event::Delete(_))) => {}
                Ok(None) => return,
                Err(error) => warn!(
                    %error,
                    "could not watch the Tenant CRD, and no purge begins before that: may this service account get, list and watch customresourcedefinitions? (--mass-deletion-breaker=off does without)"
                ),
            },
            _ = ticks.tick() => {}
        }
        if let Err(error) = update(pending.as_ref(), listed, &mut reported, &context).await {
            context.state.breaker.request_count();
            warn!(%error, "could not count deprovisionings: the registry does not respond");
        } else {
            pending = None;
        }
    }
}

async fn update(
    crd: Option<&Crd>,
    listed: bool,
    reported: &mut Option<WrongToken>,
    context: &Context,
) -> Result<(), registry::Error> {
    if let Some(crd) = crd {
        evaluate_crd(crd, reported, context).await?;
    }
    if listed && context.state.breaker.take_count_request() {
        count(context).await?;
    }
    Ok(())
}

/// Records whether the CRD was replaced or is being deleted, and whether it acknowledges the opening.
async fn evaluate_crd(
    crd: &Crd,
    reported: &mut Option<WrongToken>,
    context: &Context,
) -> Result<(), registry::Error> {
    let (registry, now) = (&context.registry, context.clock.now());
    let (uid, kind) = (crd.uid().unwrap_or_default(), Tenant::crd_name());
    let replaced = format!("{kind} was deleted and created again");
    registry.crd_found(&uid, &replaced, now).await?;
    if crd.metadata.deletion_timestamp.is_some() {
        let deleted = format!("{kind} is being deleted, and every Tenant with it");
        registry.crd_deleted(&uid, &deleted, now).await?;
    }
    let Some(opening) = registry.breaker().await? else { return Ok(()) };
    let acknowledged = crd.annotations().get(ANNOTATION_BREAKER_ACKNOWLEDGED);
    if acknowledged == Some(&opening.token) {
        registry.acknowledge_breaker(&opening.token, &Actor::by_annotation().to_string(), now).await?;
        info!(opening = opening.id, "the breaker of mass deletions is acknowledged: purges continue");
        set(None, context);
    } else {
        let wrong = acknowledged.map(|token| (opening.id, token.clone()));
        // Once per value, and not with every change of the CRD.
        if let Some((_, token)) = wrong.as_ref().filter(|_| wrong != *reported) {
            report_wrong_token(&opening, token, context);
            *reported = wrong;
        }
        set(Some(opening), context);
    }
    Ok(())
}

/// Acknowledges an opening from before the breaker was turned off: it must not freeze purges any more.
pub async fn acknowledge_leftover_opening(context: &Context) {
    let acknowledged = async {
        match context.registry.breaker().await? {
            Some(opening) => {
                context.registry.acknowledge_breaker(&opening.token, "turned off", context.clock.now()).await
            }
            None => Ok(false),
        }
    };
    match acknowledged.await {
        Ok(true) => info!("the breaker of mass deletions is turned off: purges continue"),
        Ok(false) => {}
        Err(error) => warn!(%error, "could not clear the breaker; purges stay frozen until restart"),
    }
}
