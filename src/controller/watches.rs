//! What is watched beside the objects that have a controller, and what is waited for before any work begins.

use std::{
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::NamespaceResourceScope,
    runtime::{
        WatchStreamExt,
        reflector::{Lookup, ObjectRef, Store, store::Writer},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    context::SharedContext,
    servers::Standing,
    tenant::watch::{Change, follow, secret_interest, tenant_of},
};
use crate::api::{LABEL_TENANT_ID, plan::TenantPlan};

/// The API server closes a watch after this many seconds, well before load balancers drop idle connections.
const WATCH_SECONDS: u32 = 200;

/// Objects of a kind in a namespace, or in all.
pub fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// How every watch is kept.
pub fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// Keeps a store up to date, and tells of what changes.
fn spawn_follow<K>(
    api: Api<K>,
    config: watcher::Config,
    writer: Writer<K>,
    interest: impl Fn(&K) -> u64 + Send + 'static,
    told: impl FnMut(&ObjectRef<K>, &K, Change) + Send + 'static,
    shutdown: &CancellationToken,
) where
    K: Resource<DynamicType = ()>
        + Lookup<DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
    ObjectRef<K>: Hash + Eq,
{
    let events = watcher(api, config).default_backoff().reflect(writer);
    let shutdown = shutdown.clone();
    tokio::spawn(async move { shutdown.run_until_cancelled(follow(events, interest, told)).await });
}

/// Keeps the plans, and visits their tenants when they change. A plan itself is looked at when its finalizer is touched too.
pub fn watch_plans(context: &SharedContext, writer: Writer<TenantPlan>, shutdown: &CancellationToken) {
    let told = context.clone();
    spawn_follow(
        Api::<TenantPlan>::all(context.watching.clone()),
        watch_config(),
        writer,
        |plan| {
            let mut hasher = DefaultHasher::new();
            (plan.metadata.generation, plan.finalizers(), plan.metadata.deletion_timestamp.is_some())
                .hash(&mut hasher);
            hasher.finish()
        },
        move |_, plan, change| {
            told.plan_changed(plan, change);
            told.plan_news.notify_one();
        },
        shutdown,
    );
}

/// Keeps the Secrets of tenants, and visits the tenant of one that changes or goes.
pub fn watch_secrets(context: &SharedContext, writers: Vec<Writer<Secret>>, shutdown: &CancellationToken) {
    for (scope, writer) in context.scopes.0.iter().zip(writers) {
        let visits = scope.visits.clone();
        spawn_follow(
            api::<Secret>(&context.watching, scope.namespace.as_deref()),
            watch_config().labels(LABEL_TENANT_ID),
            writer,
            secret_interest,
            move |_, secret, change| {
                // A Secret that appears is the one that we have just written.
                if let (Change::Changed | Change::Gone, Some(tenant)) = (change, tenant_of(secret)) {
                    let _ = visits.send(tenant);
                }
            },
            shutdown,
        );
    }
}

/// How often stores are asked whether they are filled.
const STORE_POLL: Duration = Duration::from_millis(20);

/// Waits until all Tenants are known: before that, each would look as if it were gone. Whether it was worth waiting for.
pub async fn known_tenants(context: &SharedContext, shutdown: &CancellationToken) -> bool {
    for scope in &context.scopes.0 {
        while tokio::time::timeout(STORE_POLL, scope.tenants.wait_until_ready()).await.is_err() {
            if shutdown.is_cancelled() {
                return false;
            }
        }
    }
    true
}

/// Without these a first visit would take what is there for missing.
pub async fn ready_stores(context: &SharedContext) {
    async fn ready<K>(store: &Store<K>, what: &str)
    where
        K: Lookup + Clone + 'static,
        K::DynamicType: Eq + Hash + Clone,
    {
        let mut said = std::time::Instant::now();
        // Asked again and again: of several that wait for one store, kube wakes only the one that asked last.
        while tokio::time::timeout(STORE_POLL, store.wait_until_ready()).await.is_err() {
            if said.elapsed() >= Duration::from_secs(5) {
                said = std::time::Instant::now();
                warn!(
                    what,
                    "still waiting for the API server's first answer: is the CRD installed (`tenantry crds | kubectl apply -f -`), and may this service account list it?"
                );
            }
        }
    }
    ready(&context.plans, "tenantplans").await;
    ready(&context.database_servers, "databaseservers").await;
    for scope in &context.scopes.0 {
        ready(&scope.secrets, "secrets").await;
    }
}

/// How long tenants wait for the first visit to their servers. One server that hangs must not hold up the others.
const FIRST_VISITS: Duration = Duration::from_secs(5);

/// Tenants visited before their servers would all be told that their server is not ready.
pub async fn visited_servers(context: &SharedContext) {
    let visited = async {
        while context
            .database_servers
            .state()
            .iter()
            .any(|server| matches!(context.servers.get(&server.name_any()), Standing::Unvisited))
        {
            context.servers.changed().await;
        }
    };
    if tokio::time::timeout(FIRST_VISITS, visited).await.is_err() {
        warn!("not all servers answered yet; their tenants wait, the others go on");
    }
}
