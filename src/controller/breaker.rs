//! The breaker of mass deletions: counts departures, looks after the definition of Tenants, tells of it when it opens,
//! and closes it when a person says so.
//!
//! It is acknowledged by an annotation on the definition of Tenants, with the token of the opening: whoever may change
//! that may delete every Tenant in any case.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, CustomResourceExt, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{context::SharedContext, watches::watch_config};
use crate::{
    api::{ANNOTATION_BREAKER_ACKNOWLEDGED, tenant::Tenant, tenant_status::TenantState},
    domain::breaker::{Limits, Purges},
    registry::{self, Opening},
};

/// How often departures are counted, while there are new ones.
const PERIOD: Duration = Duration::from_secs(1);

/// What is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Not looked at yet.
    Unknown,
    Closed,
    Open(Opening),
}

/// The breaker.
pub struct Breaker {
    /// From how many departures on it opens; none: there is no breaker.
    limits: Option<Limits>,
    state: Mutex<State>,
    /// Somebody began to go away since departures were last counted.
    departed: AtomicBool,
}

impl Breaker {
    /// One that is not known to be closed yet; without limits, none at all.
    pub fn new(limits: Option<Limits>) -> Self {
        Self { limits, state: Mutex::new(State::Unknown), departed: AtomicBool::new(false) }
    }

    /// Whether purges may begin.
    pub fn purges(&self) -> Purges {
        match (self.limits, &*self.lock()) {
            (None, _) => Purges::Free,
            (Some(_), State::Closed) => Purges::Counted,
            (Some(_), State::Unknown) => Purges::Unknown,
            (Some(_), State::Open(_)) => Purges::Frozen,
        }
    }

    /// A tenant has begun to go away.
    pub fn departed(&self) {
        self.departed.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts departures before something is destroyed. False: the breaker is open.
pub async fn lets_pass(context: &SharedContext) -> Result<bool, registry::Error> {
    let Some(limits) = context.breaker.limits else { return Ok(true) };
    let open = context.registry.count_departures(limits, context.clock.now()).await?;
    let passes = open.is_none();
    set(open, context);
    Ok(passes && context.breaker.purges() == Purges::Counted)
}

/// Looks after it until `shutdown`.
pub async fn run(context: SharedContext, shutdown: CancellationToken) {
    if context.breaker.limits.is_none() {
        turned_off(&context).await;
        return;
    }
    let api = Api::<PartialObjectMeta<CustomResourceDefinition>>::all(context.watching.clone());
    let name = format!("metadata.name={}", Tenant::crd_name());
    let definition = watcher(api, watch_config().fields(&name));
    let mut definition = definition.default_backoff().boxed();
    let mut ticks = tokio::time::interval(PERIOD);
    // As it was seen last, until it was taken in: the registry may be away just then.
    let mut seen = None;
    let mut listed = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            event = definition.try_next() => match event {
                Ok(Some(watcher::Event::Apply(found) | watcher::Event::InitApply(found))) => seen = Some(found),
                Ok(Some(watcher::Event::InitDone)) => listed = true,
                Ok(Some(watcher::Event::Init | watcher::Event::Delete(_))) => {}
                Ok(None) => return,
                Err(error) => warn!(
                    %error,
                    "the definition of Tenants cannot be watched, and no purge begins before it is: may this service account get, list and watch customresourcedefinitions? (--mass-deletion-breaker=off does without)"
                ),
            },
            _ = ticks.tick() => {}
        }
        let outcome = async {
            if let Some(found) = &seen {
                see(found, &context).await?;
            }
            seen = None;
            if listed { count(&context).await } else { Ok(()) }
        };
        if let Err(error) = outcome.await {
            context.breaker.departed();
            warn!(%error, "departures are not counted: the registry cannot be asked");
        }
    }
}

/// An opening that was left behind by a time when there was a breaker keeps nothing back any more.
async fn turned_off(context: &SharedContext) {
    let closed = async {
        match context.registry.breaker().await? {
            Some(open) => {
                context.registry.acknowledge_breaker(&open.token, "turned off", context.clock.now()).await
            }
            None => Ok(false),
        }
    };
    match closed.await {
        Ok(true) => info!("the breaker of mass deletions is turned off: purges go on"),
        Ok(false) => {}
        Err(error) => warn!(%error, "what the breaker keeps back stays so until the next start"),
    }
}

async fn count(context: &SharedContext) -> Result<(), registry::Error> {
    let unknown = *context.breaker.lock() == State::Unknown;
    if unknown || context.breaker.departed.swap(false, Ordering::Relaxed) {
        lets_pass(context).await?;
    }
    Ok(())
}

/// What the definition of Tenants says.
async fn see(
    definition: &PartialObjectMeta<CustomResourceDefinition>,
    context: &SharedContext,
) -> Result<(), registry::Error> {
    let (registry, now) = (&context.registry, context.clock.now());
    let (uid, kind) = (definition.uid().unwrap_or_default(), Tenant::crd_name());
    let replaced = format!("{kind} is another one than before: it was deleted and made anew");
    registry.definition_seen(&uid, &replaced, now).await?;
    if definition.metadata.deletion_timestamp.is_some() {
        let deleted = format!("{kind} is being deleted, and every Tenant with it");
        registry.definition_deleted(&uid, &deleted, now).await?;
    }
    let open = registry.breaker().await?;
    if let Some(open) = open.as_ref().filter(|open| said(definition).as_deref() == Some(open.token.as_str()))
    {
        registry.acknowledge_breaker(&open.token, "unknown", now).await?;
        info!(opening = open.id, "the breaker of mass deletions is acknowledged: purges go on");
        set(None, context);
        return Ok(());
    }
    if open.is_some() {
        set(open, context);
    }
    Ok(())
}

/// The opening that somebody acknowledges.
fn said(definition: &PartialObjectMeta<CustomResourceDefinition>) -> Option<String> {
    definition.annotations().get(ANNOTATION_BREAKER_ACKNOWLEDGED).cloned()
}

/// Takes in how it stands; when it opens or closes, everybody concerned is told.
fn set(open: Option<Opening>, context: &SharedContext) {
    let state = open.map_or(State::Closed, State::Open);
    let before = std::mem::replace(&mut *context.breaker.lock(), state.clone());
    if before == state {
        return;
    }
    context.metrics.breaker(matches!(state, State::Open(_)));
    if let State::Open(open) = &state {
        let note = format!(
            "{}: no purge begins until somebody has looked at it; to go on: kubectl annotate crd {} {ANNOTATION_BREAKER_ACKNOWLEDGED}={} --overwrite",
            open.detail,
            Tenant::crd_name(),
            open.token
        );
        error!(opening = open.id, cause = open.cause, "{note}");
        let mut about = CustomResourceDefinition::default();
        about.metadata.name = Some(Tenant::crd_name().to_owned());
        context.events.warning(about.object_ref(&()), "Freeze", &open.cause, note);
    }
    context.wake_where(|tenant| {
        let state = tenant.status.as_ref().and_then(|status| status.state);
        tenant.metadata.deletion_timestamp.is_some() || state == Some(TenantState::Deprovisioning)
    });
}
