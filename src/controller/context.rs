//! What every reconcile and every loop can use.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::{api::core::v1::ConfigMap, jiff::SignedDuration};
use kube::{
    Client,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::sync::Notify;

use super::{
    clock::Clock,
    database_server::prefix::naming,
    events::Events,
    state::{
        accounts::Accounts, breaker::Breaker, failed_lists::FailedLists, images::Images,
        latest_status::LatestStatus, leftovers::Leftovers, login_use::PreviousLoginUse,
        migration_runs::MigrationRuns, modules::ModuleStates, plan_rollout::PlanRollout,
        recorded_usage::RecordedUsage, recorded_users::RecordedUsers, registry_reads::RegistryReads,
        reports::AwaitedReports, retries::Retries, scopes::Scopes, server_credentials::ServerCredentials,
        server_rollout::ServerRollouts, servers::Servers, snapshot::StartupSnapshot,
        support::SupportsInForce, timers::Timers, tombstones::Tombstones, waiting::Waiting,
        warned_limits::WarnedLimitsByTenant,
    },
};
use crate::{
    api::{database_server::DatabaseServer, plan::TenantPlan, tenant_module::TenantModule},
    domain::{
        names::DatabaseNaming,
        offboarding::PlanGrace,
        retention::Retention,
        spec::{ServerAvailability, SpecContext},
    },
    fence::Fence,
    keyed_lock::KeyedLock,
    leader::Leadership,
    metrics::Metrics,
    modules::ModuleCatalog,
    registry::{Installation, Registry},
};

/// Shared by everything that runs while this process leads.
pub struct Context {
    /// The Kubernetes API, for the requests of reconciles. It does not retry: a failed tenant has its own backoff.
    pub client: Client,
    /// The Kubernetes API, for watches. It retries and honours `Retry-After`.
    pub watch_client: Client,
    /// The registry: the system database.
    pub registry: Registry,
    /// This installation's id, and its key for password digests.
    pub installation: Installation,
    /// What the watches keep up to date.
    pub stores: Stores,
    /// What this process remembers.
    pub state: State,
    /// How this process was configured.
    pub config: Config,
    /// That this process leads, and who led before.
    pub leader: Leader,
    /// The modules that a tenant can have.
    pub modules: ModuleCatalog,
    /// The clock by which deadlines are kept.
    pub clock: Clock,
    /// Where Events are published.
    pub events: Events,
    /// Where metrics are counted.
    pub metrics: Metrics,
}

/// Objects that the watches keep up to date.
pub struct Stores {
    /// All TenantPlans.
    pub plans: Store<TenantPlan>,
    /// All DatabaseServers.
    pub database_servers: Store<DatabaseServer>,
    /// The TenantModules.
    pub tenant_modules: Store<TenantModule>,
    /// The ConfigMaps of the operator's namespace.
    pub config_maps: Store<ConfigMap>,
    /// The TenantAccounts.
    pub accounts: Accounts,
    /// Tenants, TenantHolds, SupportAccesses and Secrets, by watched namespace.
    pub scopes: Scopes,
}

/// What this process remembers. After a restart, all of it can be read again.
pub struct State {
    /// Which lists of objects failed last.
    pub failed_lists: FailedLists,
    /// Which servers are ready for work, and their slots.
    pub servers: Servers,
    /// The status that was last written for each Tenant, which the watch may not have delivered yet.
    pub latest_status: LatestStatus,
    /// What was read of all tenants at start-up.
    pub snapshot: StartupSnapshot,
    /// Whether the registry could be read last.
    pub registry_reads: RegistryReads,
    /// How old the operator's logins and the authorities of servers are.
    pub server_credentials: ServerCredentials,
    /// The tombstones, and when each is due.
    pub tombstones: Tombstones,
    /// Whether purges may begin.
    pub breaker: Breaker,
    /// When time alone changes a tenant's access.
    pub timers: Timers,
    /// When each failed tenant may be tried again, and why it failed.
    pub retries: Retries,
    /// The reconciles of Tenants that wait for a slot.
    pub waiting: Waiting,
    /// One lock per Tenant, by namespace and name.
    pub tenant_locks: KeyedLock<(String, String)>,
    /// Tenants that wait for a reconcile because their plan changed.
    pub plan_rollout: PlanRollout,
    /// Tenants that wait for a reconcile because their server changed.
    pub server_rollouts: ServerRollouts,
    /// Tenants that wait for a reconcile because a module has a new version.
    pub module_rollouts: ServerRollouts,
    /// The images that modules name.
    pub images: Images,
    /// What became of the content of modules.
    pub modules: ModuleStates,
    /// The runs of applications' own migration tools.
    pub runs: MigrationRuns,
    /// What a team's own pipelines reported.
    pub reports: AwaitedReports,
    /// What was found on servers of tenants that should have nothing there.
    pub leftovers: Leftovers,
    /// Notified when the status of a TenantPlan may have to change.
    pub plans_changed: Notify,
    /// Notified when a plan, a module or a server was changed or deleted.
    pub objects_changed: Notify,
    /// Uids of Secrets that conflict with a tenant's, and are watched until they are deleted.
    pub conflicts: Mutex<HashSet<String>>,
    /// Tenants whose usage was recorded by a reconcile, not by the sampler.
    pub usage_recorded: RecordedUsage,
    /// Whether the annotation that names users can be believed.
    pub recorded_users: RecordedUsers,
    /// Which limits each tenant was warned about.
    pub warned_limits: WarnedLimitsByTenant,
    /// The support accesses in force.
    pub supports: SupportsInForce,
    /// When previous logins were last seen in use.
    pub previous_login_use: PreviousLoginUse,
}

/// How this process was configured.
pub struct Config {
    /// The namespace of the Secrets that DatabaseServers name, and of the ConfigMaps that TenantModules name.
    pub operator_namespace: String,
    /// The namespace of the Jobs of TenantModules.
    pub migration_namespace: String,
    /// The labels of the TenantModules that are managed; none: all.
    pub module_selector: Option<String>,
    /// Slots per server: how many of its tenants are reconciled at once.
    pub concurrency: u16,
    /// How often usage is sampled.
    pub usage_interval: SignedDuration,
    /// How long the registry keeps what grows.
    pub retention: Retention,
    /// How often what is outdated is removed.
    pub retention_interval: Duration,
    /// How often PostgreSQL is checked for drift.
    pub drift_interval: Duration,
    /// How often the locks of tenants are read.
    pub lock_watch_interval: Duration,
    /// The maximum of sessions on one server.
    pub max_connections: u32,
}

/// The leadership of this process.
pub struct Leader {
    /// The Lease. Checked before each step.
    pub leadership: Leadership,
    /// Closed once the Lease may be lost. Checked before each session and each write.
    pub fence: Fence,
    /// Identities of former leaders whose sessions on servers may not have been ended yet.
    pub former_leaders: Vec<String>,
    /// This process: `application_name` of its sessions, holder of its workflows.
    pub identity: String,
}

/// Shared by all controllers and loops.
pub type SharedContext = Arc<Context>;

impl Context {
    /// The `DatabaseServer` of this name.
    pub fn database_server(&self, name: &str) -> Option<Arc<DatabaseServer>> {
        self.stores.database_servers.get(&ObjectRef::new(name))
    }

    /// The `TenantPlan` of this name.
    pub fn plan(&self, name: &str) -> Option<Arc<TenantPlan>> {
        self.stores.plans.get(&ObjectRef::new(name))
    }

    /// Calls a function with the grace periods of a plan.
    pub fn with_plan_grace<T>(&self, plan: &str, of: impl FnOnce(PlanGrace<'_>) -> T) -> T {
        match self.plan(plan) {
            Some(plan) => of(PlanGrace::Plan(plan.spec.grace_seconds.as_ref())),
            None => of(PlanGrace::NoPlan),
        }
    }

    /// How the new databases on a server are named.
    pub fn naming_on(&self, server: &str) -> DatabaseNaming {
        naming(self.database_server(server).as_deref())
    }
}

impl SpecContext for Context {
    fn has_plan(&self, name: &str) -> bool {
        self.plan(name).is_some()
    }

    fn server(&self, name: &str) -> ServerAvailability {
        match self.database_server(name) {
            None => ServerAvailability::NotFound,
            Some(server) => match &server.spec.allowed_namespaces {
                None => ServerAvailability::AllNamespaces,
                Some(namespaces) => ServerAvailability::OnlyNamespaces(namespaces.clone()),
            },
        }
    }
}
