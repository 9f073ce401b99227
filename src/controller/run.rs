//! Wires up everything that a leader runs: the stores, the process memory, the watches, the loops, and one controller per
//! kind and namespace.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::{api::core::v1::Secret, jiff::SignedDuration};
use kube::{
    Client,
    runtime::reflector::{self, store::Writer},
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    actors, background,
    clock::Clock,
    context::{Config, Context, Leader, SharedContext, State, Stores},
    database_server,
    events::Events,
    state::{
        accounts::Accounts,
        breaker::Breaker,
        failed_lists::FailedLists,
        images::Images,
        invalid_objects::InvalidObjects,
        latest_status::LatestStatus,
        leftovers::Leftovers,
        login_use::PreviousLoginUse,
        migration_runs::MigrationRuns,
        modules::ModuleStates,
        plan_rollout::PlanRollout,
        recorded_usage::RecordedUsage,
        recorded_users::RecordedUsers,
        registry_reads::RegistryReads,
        reports::AwaitedReports,
        retries::Retries,
        scopes::{Scope, Scopes},
        server_credentials::ServerCredentials,
        server_rollout::ServerRollouts,
        servers::Servers,
        snapshot::StartupSnapshot,
        support::SupportsInForce,
        timers::Timers,
        tombstones::Tombstones,
        waiting::Waiting,
        warned_limits::WarnedLimitsByTenant,
    },
    supervisor::{LoopEnded, Supervisor},
    support_access, tenant, tenant_hold, tenant_module, tenant_plan,
    watch::{self, ready},
};
use crate::{
    domain::{breaker::BreakerThresholds, module_schemas::ModuleSchemas, retention::Retention},
    fence::Fence,
    keyed_lock::KeyedLock,
    leader::Leadership,
    metrics::Metrics,
    modules::{self, ModuleCatalog},
    registry::{self, Installation, Registry},
};

/// How a leader runs.
pub struct Options {
    /// The namespaces whose Tenants are managed; none: all.
    pub watch_namespaces: Vec<String>,
    /// The labels of the `DatabaseServer`s that are managed; none: all.
    pub server_selector: Option<String>,
    /// The labels of the `TenantModule`s that are managed; none: all.
    pub module_selector: Option<String>,
    /// The namespace of the Secrets that `DatabaseServer`s name, and of the ConfigMaps that `TenantModule`s name.
    pub operator_namespace: String,
    /// The namespace of the Jobs of `TenantModule`s.
    pub migration_namespace: String,
    /// The maximum of Tenants of one server that are reconciled at once.
    pub concurrency: u16,
    /// The maximum of sessions on one server.
    pub max_connections: u32,
    /// How many deprovisionings freeze purges; none: no breaker.
    pub breaker: Option<BreakerThresholds>,
    /// How often PostgreSQL is checked for drift.
    pub drift_interval: Duration,
    /// How often the locks of tenants are read.
    pub lock_watch_interval: Duration,
    /// How often usage is sampled.
    pub usage_interval: SignedDuration,
    /// How long the registry keeps what grows.
    pub retention: Retention,
    /// How often what is outdated is removed.
    pub retention_interval: Duration,
    /// The built-in modules that tenants have unless they or their plan name others.
    pub default_modules: Vec<String>,
    /// The schemas of the built-in modules.
    pub module_schemas: ModuleSchemas,
    /// The identity of this process.
    pub identity: String,
    /// The clock by which deadlines are kept.
    pub clock: Clock,
}

/// What a leader needs before its controllers start.
pub struct LeaderResources {
    /// The Kubernetes API, for the requests of reconciles.
    pub client: Client,
    /// The Kubernetes API, for watches.
    pub watching: Client,
    /// The system database, migrated.
    pub registry: Registry,
    /// Its installation.
    pub installation: Installation,
    /// Where metrics are counted.
    pub metrics: Metrics,
    /// The Lease, held.
    pub leadership: Leadership,
    /// Closed once the Lease may be lost.
    pub fence: Fence,
    /// Which lists of objects failed last.
    pub failed_lists: FailedLists,
    /// Receives why the installation is not ready.
    pub report_health: background::overview::ReportHealth,
}

/// Why a leader stopped.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// The registry failed at start-up.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A loop or controller ended before shutdown.
    #[error(transparent)]
    LoopEnded(#[from] LoopEnded),
}

/// Runs until `shutdown`: then running reconciles end, and none begins.
///
/// # Errors
/// The registry's, at start-up; and a loop or controller that ended or panicked before shutdown.
pub async fn run(
    resources: LeaderResources,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), LeaderError> {
    let former_leaders = former_leaders(&resources).await?;
    let selector = options.server_selector.clone();
    let report_health = resources.report_health.clone();
    let (plans, plan_writer) = reflector::store();
    let (database_servers, server_writer) = reflector::store();
    let (tenant_modules, module_writer) = reflector::store();
    let (config_maps, config_map_writer) = reflector::store();
    let (accounts, account_writer) = reflector::store();
    let (namespaces, namespace_writer) = reflector::store();
    let accounts = Accounts { accounts, namespaces };
    let (scopes, inputs) = scopes(&options.watch_namespaces);
    let stores = Stores { plans, database_servers, tenant_modules, config_maps, accounts, scopes };
    let recorded_users = RecordedUsers::new(actors::is_old_kubernetes(&resources.client).await);
    let context = Arc::new(context(resources, options, stores, former_leaders, recorded_users));
    let mut supervisor = Supervisor::new(shutdown.clone());
    supervisor.spawn("watch on TenantPlans", watch::plans::run(context.clone(), plan_writer));
    for (namespace, writer) in inputs.secrets {
        supervisor.spawn("watch on Secrets", watch::secrets::run(context.clone(), namespace, writer));
    }
    supervisor.spawn("watch on TenantAccounts", watch::accounts::run(context.clone(), account_writer));
    let namespaces = watch::accounts::run_namespaces(context.clone(), namespace_writer);
    supervisor.spawn("watch on namespaces of accounts", namespaces);
    supervisor.spawn("watch on TenantModules", watch::modules::run(context.clone(), module_writer));
    let config_maps = watch::modules::run_config_maps(context.clone(), config_map_writer);
    supervisor.spawn("watch on ConfigMaps", config_maps);
    read_registry(&context).await?;
    // Before the first template is built, and the first tenant is reconciled.
    supervisor.wait_for(ready::modules_are_filled(&context)).await;
    tenant_module::content::prepare(&context).await?;
    supervisor.spawn("overview", background::overview::run(context.clone(), report_health));
    let servers =
        database_server::controller::run(context.clone(), selector, server_writer, shutdown.clone());
    supervisor.spawn_graceful("controller of DatabaseServers", servers);
    supervisor.wait_for(ready::stores_are_filled(&context)).await;
    supervisor.wait_for(ready::servers_are_checked(&context)).await;
    // Before anything looks for migration logins that were left.
    tenant_module::runs::resume(&context).await?;
    support_access::controller::resume(&context).await?;
    spawn_background(&mut supervisor, &context, &shutdown).await;
    for input in inputs.holds {
        let holds = tenant_hold::controller::run(context.clone(), input, shutdown.clone());
        supervisor.spawn_graceful("controller of TenantHolds", holds);
    }
    for input in inputs.supports {
        let supports = support_access::controller::run(context.clone(), input, shutdown.clone());
        supervisor.spawn_graceful("controller of SupportAccesses", supports);
    }
    for input in inputs.tenants {
        let tenants = tenant::controller::run(context.clone(), input, shutdown.clone());
        supervisor.spawn_graceful("controller of Tenants", tenants);
    }
    Ok(supervisor.run().await?)
}

async fn spawn_background(
    supervisor: &mut Supervisor,
    context: &SharedContext,
    shutdown: &CancellationToken,
) {
    if context.state.breaker.thresholds().is_some() {
        supervisor.spawn("breaker of mass deletions", background::breaker::run(context.clone()));
    } else {
        background::breaker::acknowledge_leftover_opening(context).await;
    }
    let drift = background::drift::run(context.clone(), shutdown.clone());
    supervisor.spawn_graceful("drift check", drift);
    let purge = background::purge::run(context.clone(), shutdown.clone());
    supervisor.spawn_graceful("purge of tombstones", purge);
    supervisor.spawn("lock watch", background::lock_watch::run(context.clone()));
    supervisor.spawn("timers", background::timers::run(context.clone()));
    supervisor.spawn("support accesses", background::support_access::run(context.clone()));
    supervisor.spawn("daily check", background::daily_check::run(context.clone()));
    supervisor.spawn("inactivity check", background::inactivity::run(context.clone()));
    supervisor.spawn("usage sampling", background::usage::run(context.clone()));
    supervisor.spawn("plan rollout", background::plan_rollout::run(context.clone()));
    supervisor.spawn("module rollout", background::module_rollout::run(context.clone()));
    supervisor.spawn("images of modules", tenant_module::image::run(context.clone()));
    supervisor.spawn("content of modules", tenant_module::content::run(context.clone()));
    let modules = tenant_module::reconcile::run(context.clone(), shutdown.clone());
    supervisor.spawn("controller of TenantModules", modules);
    supervisor.spawn("server rollout", background::server_rollout::run(context.clone()));
    supervisor.spawn("drop of old templates", background::old_templates::run(context.clone()));
    supervisor.spawn("record of changed objects", background::object_changes::run(context.clone()));
    supervisor.spawn("linking of activity", background::activity_links::run(context.clone()));
    supervisor.spawn("removal of outdated rows", background::retention::run(context.clone()));
    let plans = tenant_plan::reconcile::run(context.clone(), shutdown.clone());
    supervisor.spawn("controller of TenantPlans", plans);
}

/// What the controllers and watches of the watched namespaces write to and read from.
#[derive(Default)]
struct Inputs {
    secrets: Vec<(Option<String>, Writer<Secret>)>,
    holds: Vec<tenant_hold::controller::HoldInput>,
    supports: Vec<support_access::controller::SupportInput>,
    tenants: Vec<tenant::controller::TenantInput>,
}

/// One scope per watched namespace, or one for all namespaces if none is named.
fn scopes(watched: &[String]) -> (Scopes, Inputs) {
    let namespaces: Vec<Option<String>> = match watched {
        [] => vec![None],
        named => named.iter().cloned().map(Some).collect(),
    };
    let (mut scopes, mut inputs) = (Vec::new(), Inputs::default());
    for namespace in namespaces {
        let (tenants, tenant_writer) = reflector::store();
        let (secrets, secret_writer) = reflector::store();
        let (holds, hold_writer) = reflector::store();
        let invalid_tenants = InvalidObjects::default();
        let (tenant_requests, requests) = mpsc::unbounded_channel();
        inputs.tenants.push(tenant::controller::TenantInput {
            namespace: namespace.clone(),
            writer: tenant_writer,
            invalid: invalid_tenants.clone(),
            requests,
        });
        let (hold_requests, requests) = mpsc::unbounded_channel();
        inputs.holds.push(tenant_hold::controller::HoldInput {
            namespace: namespace.clone(),
            writer: hold_writer,
            requests,
        });
        let (supports, writer) = reflector::store();
        let (support_requests, requests) = mpsc::unbounded_channel();
        inputs.supports.push(support_access::controller::SupportInput {
            namespace: namespace.clone(),
            writer,
            requests,
        });
        inputs.secrets.push((namespace.clone(), secret_writer));
        scopes.push(Scope {
            namespace,
            tenants,
            invalid_tenants,
            secrets,
            holds,
            tenant_requests,
            hold_requests,
            supports,
            support_requests,
        });
    }
    (Scopes(scopes), inputs)
}

fn context(
    resources: LeaderResources,
    options: Options,
    stores: Stores,
    former_leaders: Vec<String>,
    recorded_users: RecordedUsers,
) -> Context {
    Context {
        events: Events::new(resources.client.clone(), &options.identity),
        client: resources.client,
        watch_client: resources.watching,
        registry: resources.registry,
        installation: resources.installation,
        stores,
        state: State {
            failed_lists: resources.failed_lists,
            servers: Servers::default(),
            latest_status: LatestStatus::default(),
            snapshot: StartupSnapshot::default(),
            registry_reads: RegistryReads::default(),
            server_credentials: ServerCredentials::default(),
            tombstones: Tombstones::default(),
            breaker: Breaker::new(options.breaker),
            timers: Timers::default(),
            retries: Retries::default(),
            waiting: Waiting::default(),
            tenant_locks: KeyedLock::default(),
            plan_rollout: PlanRollout::default(),
            server_rollouts: ServerRollouts::default(),
            module_rollouts: ServerRollouts::default(),
            images: Images::default(),
            modules: ModuleStates::default(),
            runs: MigrationRuns::default(),
            reports: AwaitedReports::default(),
            leftovers: Leftovers::default(),
            plans_changed: Notify::new(),
            objects_changed: Notify::new(),
            conflicts: Mutex::new(HashSet::new()),
            usage_recorded: RecordedUsage::default(),
            recorded_users,
            warned_limits: WarnedLimitsByTenant::default(),
            supports: SupportsInForce::default(),
            previous_login_use: PreviousLoginUse::default(),
        },
        config: Config {
            operator_namespace: options.operator_namespace,
            migration_namespace: options.migration_namespace,
            module_selector: options.module_selector,
            concurrency: options.concurrency,
            drift_interval: options.drift_interval,
            lock_watch_interval: options.lock_watch_interval,
            usage_interval: options.usage_interval,
            retention: options.retention,
            retention_interval: options.retention_interval,
            max_connections: options.max_connections,
        },
        leader: Leader {
            leadership: resources.leadership,
            fence: resources.fence,
            former_leaders,
            identity: options.identity,
        },
        modules: ModuleCatalog::new(modules::embedded(&options.module_schemas), options.default_modules),
        clock: options.clock,
        metrics: resources.metrics,
    }
}

/// Reads all rows of the registry into the startup snapshot, and the tombstones among them.
async fn read_registry(context: &Context) -> Result<(), registry::Error> {
    let rows = context.registry.all_registered().await?;
    for row in &rows {
        context.state.tombstones.record(row, row.next_attempt_at);
        context.state.warned_limits.set(row.id, &row.warned_limits);
    }
    context.state.snapshot.read_registry(rows);
    Ok(())
}

/// The former leaders. Their sessions in the registry, and their claims with them, end here; those on a server end before
/// any work begins there.
async fn former_leaders(resources: &LeaderResources) -> Result<Vec<String>, registry::Error> {
    // A leader without a Lease replaces no other.
    if !resources.leadership.is_elected() {
        return Ok(Vec::new());
    }
    let former = resources.registry.lead(resources.leadership.predecessor().as_deref()).await?;
    if !former.is_empty() {
        let ended = resources.registry.end_sessions_of(&former).await?;
        info!(ended, "ended the sessions of former leaders in the registry, and their claims with them");
    }
    Ok(former)
}
