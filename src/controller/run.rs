//! Starts everything that a leader runs: the watches, the bulk reading, one controller per kind and namespace.

use std::{
    collections::HashSet,
    future::ready,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use k8s_openapi::{api::core::v1::Secret, jiff::SignedDuration};
use kube::{
    Api, Client,
    runtime::{
        Controller, WatchStreamExt,
        controller::Config,
        predicates,
        reflector::{self, ObjectRef, store::Writer},
        utils::Predicate,
        watcher,
    },
};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{
    breaker::{self, Breaker},
    clock::Clock,
    context::{Context, SharedContext},
    database_server,
    events::Events,
    servers::Servers,
    tenant::{
        self,
        alarms::{self, Alarms},
        attempts::Attempts,
        bulk::Bulk,
        tombstones::Tombstones,
        usage::Recorded,
        watch::{Scope, Scopes},
        written::Written,
    },
    tenant_hold,
    tenant_plan::{
        self,
        rollout::{self, Rollout},
    },
    watches::{api, known_tenants, ready_stores, visited_servers, watch_config, watch_plans, watch_secrets},
};
use crate::{
    api::{
        database_server::DatabaseServer, plan::TenantPlan, tenant::Tenant, tenant_hold::TenantHold,
        tenant_status::TenantState,
    },
    domain::breaker::Limits,
    fence::Fence,
    leader::Leadership,
    metrics::Metrics,
    postgres::modules::{ModuleSet, Modules},
    registry::{self, Installation, Registry},
    turns::Turns,
};

/// How a leader runs.
pub struct Options {
    /// The namespaces whose Tenants are managed; none: all.
    pub watch_namespaces: Vec<String>,
    /// The labels of the `DatabaseServer`s that are managed; none: all.
    pub server_selector: Option<String>,
    /// Where the Secrets of `DatabaseServer`s are.
    pub operator_namespace: String,
    /// The most tenants of one server that are worked on at once.
    pub concurrency: u16,
    /// The most sessions on one server.
    pub max_connections: u32,
    /// From how many departures on purges are frozen; none: never.
    pub breaker: Option<Limits>,
    /// How often usage is sampled.
    pub usage_interval: SignedDuration,
    /// Who this process is.
    pub identity: String,
    /// The clock by which deadlines are kept.
    pub clock: Clock,
}

/// What is there before the controllers are.
pub struct Ground {
    /// The Kubernetes API, for what visits ask and change.
    pub client: Client,
    /// The Kubernetes API, for watches.
    pub watching: Client,
    /// The system database, migrated.
    pub registry: Registry,
    /// Its installation.
    pub installation: Installation,
    /// Figures.
    pub metrics: Metrics,
    /// The Lease, held.
    pub leadership: Leadership,
    /// Shut once the Lease is not held any more.
    pub fence: Fence,
}

/// A server that many tenants could not reach at once is looked at once.
const SUSPICION: Duration = Duration::from_millis(100);

/// How often the number of tenants by state is counted, from memory.
const COUNT_PERIOD: Duration = Duration::from_secs(5);

/// Runs until `shutdown`: then running visits end, and nothing new begins.
pub async fn run(
    ground: Ground,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), registry::Error> {
    let former_leaders = former_leaders(&ground).await?;
    let (plans, plan_writer) = reflector::store::<TenantPlan>();
    let (database_servers, server_writer) = reflector::store::<DatabaseServer>();
    let namespaces: Vec<Option<String>> = match options.watch_namespaces.as_slice() {
        [] => vec![None],
        named => named.iter().cloned().map(Some).collect(),
    };
    let mut scopes = Vec::new();
    let mut inputs = Vec::new();
    let mut secret_writers = Vec::new();
    let mut hold_inputs = Vec::new();
    for namespace in namespaces {
        let (tenants, tenant_writer) = reflector::store::<Tenant>();
        let (secrets, secret_writer) = reflector::store::<Secret>();
        let (holds, hold_writer) = reflector::store::<TenantHold>();
        let (visits, requests) = mpsc::unbounded_channel();
        let (hold_visits, hold_requests) = mpsc::unbounded_channel();
        hold_inputs.push(HoldInput {
            namespace: namespace.clone(),
            writer: hold_writer,
            requests: hold_requests,
        });
        inputs.push(Input { namespace: namespace.clone(), tenant_writer, requests });
        secret_writers.push(secret_writer);
        scopes.push(Scope { namespace, tenants, secrets, holds, visits, hold_visits });
    }
    let context = Arc::new(Context {
        events: Events::new(ground.client.clone(), &options.identity),
        client: ground.client,
        watching: ground.watching,
        registry: ground.registry,
        installation: ground.installation,
        servers: Servers::default(),
        plans,
        plan_news: Notify::new(),
        rollout: Rollout::default(),
        database_servers,
        scopes: Scopes(scopes),
        conflicts: Arc::new(Mutex::new(HashSet::new())),
        written: Written::default(),
        bulk: Bulk::default(),
        tombstones: Tombstones::default(),
        breaker: Breaker::new(options.breaker),
        alarms: Alarms::default(),
        attempts: Attempts::default(),
        turns: Turns::default(),
        clock: options.clock.clone(),
        metrics: ground.metrics,
        leadership: ground.leadership,
        fence: ground.fence,
        former_leaders,
        identity: options.identity,
        operator_namespace: options.operator_namespace,
        concurrency: options.concurrency,
        usage_recorded: Recorded::default(),
        usage_interval: options.usage_interval,
        max_connections: options.max_connections,
        modules: Modules::new(ModuleSet::built_in()),
    });
    watch_plans(&context, plan_writer, &shutdown);
    watch_secrets(&context, secret_writers, &shutdown);
    let rows = context.registry.all_living().await?;
    for row in &rows {
        context.tombstones.see(row, row.next_attempt_at);
    }
    context.bulk.read_registry(rows);
    count_tenants(&context, &shutdown);
    let servers = tokio::spawn(run_servers(
        context.clone(),
        options.server_selector.clone(),
        server_writer,
        shutdown.clone(),
    ));
    ready_stores(&context).await;
    visited_servers(&context).await;
    let drift = tokio::spawn(tenant::drift::run(context.clone(), shutdown.clone()));
    let tombstones = tokio::spawn(tenant::purge::run(context.clone(), shutdown.clone()));
    tokio::spawn(alarms::run(context.clone(), shutdown.clone()));
    tokio::spawn(breaker::run(context.clone(), shutdown.clone()));
    tokio::spawn(tenant::inactivity::run(context.clone(), shutdown.clone()));
    tokio::spawn(tenant::usage::run(context.clone(), shutdown.clone()));
    tokio::spawn(rollout::run(context.clone(), shutdown.clone()));
    tokio::spawn(tenant_plan::reconcile::run(context.clone(), shutdown.clone()));
    let holds = hold_inputs.into_iter().map(|input| run_holds(context.clone(), input, shutdown.clone()));
    let holds = tokio::spawn(join_all(holds));
    let tenants = inputs.into_iter().map(|input| run_tenants(context.clone(), input, shutdown.clone()));
    join_all(tenants).await;
    if let Err(error) = holds.await {
        error!(%error, "the controller of TenantHolds ended badly");
    }
    if let Err(error) = drift.await {
        error!(%error, "the search for drift ended badly");
    }
    if let Err(error) = tombstones.await {
        error!(%error, "the driver of tombstones ended badly");
    }
    if let Err(error) = servers.await {
        error!(%error, "the controller of DatabaseServers ended badly");
    }
    Ok(())
}

/// Who led before. Their sessions in the registry end here, and their claims with them; those on a server before anything
/// is begun there.
async fn former_leaders(ground: &Ground) -> Result<Vec<String>, registry::Error> {
    // Who leads without a Lease replaces nobody.
    if !ground.leadership.is_elected() {
        return Ok(Vec::new());
    }
    let former = ground.registry.lead(ground.leadership.predecessor().as_deref()).await?;
    if !former.is_empty() {
        let ended = ground.registry.end_sessions_of(&former).await?;
        info!(ended, "former leaders' sessions in the registry are ended, and their claims with them");
    }
    Ok(former)
}

/// What one watched namespace's controller is fed with.
struct Input {
    namespace: Option<String>,
    tenant_writer: Writer<Tenant>,
    requests: mpsc::UnboundedReceiver<ObjectRef<Tenant>>,
}

/// What one watched namespace's controller of holds is fed with.
struct HoldInput {
    namespace: Option<String>,
    writer: Writer<TenantHold>,
    requests: mpsc::UnboundedReceiver<ObjectRef<TenantHold>>,
}

fn count_tenants(context: &SharedContext, shutdown: &CancellationToken) {
    let (context, shutdown) = (context.clone(), shutdown.clone());
    tokio::spawn(async move {
        let mut period = tokio::time::interval(COUNT_PERIOD);
        while shutdown.run_until_cancelled(period.tick()).await.is_some() {
            let tenants = context.scopes.tenants();
            let in_state = |state: TenantState| {
                let tenants = tenants.iter().filter_map(|tenant| tenant.status.as_ref());
                tenants.filter(|status| status.state == Some(state)).count()
            };
            let counts = TenantState::ALL
                .iter()
                .map(|state| (state.as_str(), i64::try_from(in_state(*state)).unwrap_or(i64::MAX)));
            context.metrics.tenants(counts);
        }
    });
}

async fn run_servers(
    context: SharedContext,
    selector: Option<String>,
    writer: Writer<DatabaseServer>,
    shutdown: CancellationToken,
) {
    let reader = writer.as_reader();
    let api = Api::<DatabaseServer>::all(context.watching.clone());
    let told = context.clone();
    let mut known = std::collections::HashMap::new();
    let config = match selector {
        Some(labels) => watch_config().labels(&labels),
        None => watch_config(),
    };
    let stream = watcher(api, config)
        .default_backoff()
        .reflect(writer)
        .inspect(move |event| match event {
            Ok(watcher::Event::Apply(server) | watcher::Event::InitApply(server)) => {
                let name = server.metadata.name.clone().unwrap_or_default();
                // Its standing is told by the visit to it.
                let generation = server.metadata.generation;
                if known.insert(name.clone(), generation) != Some(generation) {
                    told.server_changed(&name);
                }
            }
            Ok(watcher::Event::Delete(server)) => {
                let name = server.metadata.name.clone().unwrap_or_default();
                known.remove(&name);
                told.server_changed(&name);
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => {}
        })
        .applied_objects()
        .predicate_filter(predicates::generation.combine(predicates::finalizers), Default::default());
    let (suspects, suspected) = mpsc::unbounded_channel();
    context.servers.tell(suspects);
    // A changed admin or CA Secret counts at once, not at the next period.
    let secrets = Api::<Secret>::namespaced(context.watching.clone(), &context.operator_namespace);
    let servers = reader.clone();
    Controller::for_stream(stream, reader)
        .reconcile_on(UnboundedReceiverStream::new(suspected))
        .with_config(Config::default().debounce(SUSPICION))
        .watches(secrets, watch_config(), move |secret| {
            let name = secret.metadata.name.clone().unwrap_or_default();
            let named = servers.state_filter(move |server| {
                let ca = server.spec.tls.as_ref().and_then(|tls| tls.ca_secret_ref.as_ref());
                server.spec.admin_secret_ref.name == name || ca.is_some_and(|ca| ca.name == name)
            });
            named.into_iter().map(|server| ObjectRef::from_obj(server.as_ref()))
        })
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(database_server::reconcile::reconcile, database_server::reconcile::after_error, context)
        .for_each(|_| ready(()))
        .await;
}

async fn run_holds(context: SharedContext, input: HoldInput, shutdown: CancellationToken) {
    // A hold that is put while nobody looks must not be taken for one of a Tenant that does not exist.
    if !known_tenants(&context, &shutdown).await {
        return;
    }
    let reader = input.writer.as_reader();
    let stream = watcher(api::<TenantHold>(&context.watching, input.namespace.as_deref()), watch_config())
        .default_backoff()
        .reflect(input.writer)
        .applied_objects()
        .predicate_filter(predicates::generation.combine(predicates::finalizers), Default::default());
    Controller::for_stream(stream, reader)
        .reconcile_on(UnboundedReceiverStream::new(input.requests))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(tenant_hold::reconcile::reconcile, tenant_hold::reconcile::after_error, context)
        .for_each(|_| ready(()))
        .await;
}

async fn run_tenants(context: SharedContext, input: Input, shutdown: CancellationToken) {
    let reader = input.tenant_writer.as_reader();
    let namespace = input.namespace.as_deref();
    info!(namespace = namespace.unwrap_or("all"), "watching tenants");
    let told = context.clone();
    let stream = watcher(api::<Tenant>(&context.watching, namespace), watch_config())
        .default_backoff()
        .reflect(input.tenant_writer)
        // Whether a hold is in force is read off its tenant.
        .inspect(move |event| match event {
            Ok(watcher::Event::Apply(tenant) | watcher::Event::Delete(tenant)) => told.tenant_changed(tenant),
            Ok(watcher::Event::InitDone) => told.tenants_listed(),
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) | Err(_) => {}
        })
        .applied_objects()
        .predicate_filter(tenant::watch::interest, Default::default());
    Controller::for_stream(stream, reader)
        .reconcile_on(UnboundedReceiverStream::new(input.requests))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(tenant::reconcile::reconcile, tenant::reconcile::after_error, context)
        .for_each(|_| ready(()))
        .await;
}
