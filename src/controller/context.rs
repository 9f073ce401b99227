//! What every reconciliation is given.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use k8s_openapi::jiff::SignedDuration;
use kube::{
    Client,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::sync::Notify;

use super::{
    breaker::Breaker,
    clock::Clock,
    database_server::configuration::{DEFAULT_PREFIX, prefix},
    events::Events,
    servers::Servers,
    tenant::{
        alarms::Alarms, attempts::Attempts, bulk::Bulk, tombstones::Tombstones, usage::Recorded,
        watch::Scopes, written::Written,
    },
    tenant_plan::rollout::Rollout,
};
use crate::{
    api::{database_server::DatabaseServer, plan::TenantPlan},
    domain::{
        departure::PlanGrace,
        desired::{ServerOffer, Surroundings},
    },
    fence::Fence,
    leader::Leadership,
    metrics::Metrics,
    postgres::modules::Modules,
    registry::{Installation, Registry},
    turns::Turns,
};

/// Shared by all reconciliations of a leader.
pub struct Context {
    /// The Kubernetes API, for what visits ask and change.
    pub client: Client,
    /// The Kubernetes API, for watches: it asks again by itself, when the server wants to be asked.
    pub watching: Client,
    /// The system database.
    pub registry: Registry,
    /// This installation's id and its key for password digests.
    pub installation: Installation,
    /// The servers that are ready for work.
    pub servers: Servers,
    /// All plans.
    pub plans: Store<TenantPlan>,
    /// Something changed that a plan is told of.
    pub plan_news: Notify,
    /// The tenants that wait for a visit because their plan changed.
    pub rollout: Rollout,
    /// All servers' resources.
    pub database_servers: Store<DatabaseServer>,
    /// The Tenants and Secrets that are watched.
    pub scopes: Scopes,
    /// Uids of Secrets that are in some tenant's way, and watched until they go.
    pub conflicts: Arc<Mutex<HashSet<String>>>,
    /// What was written and may not be seen yet.
    pub written: Written,
    /// What was read in bulk at start-up.
    pub bulk: Bulk,
    /// The tombstones, by when they are to be looked at.
    pub tombstones: Tombstones,
    /// Whether purges may begin.
    pub breaker: Breaker,
    /// When time alone changes what tenants may do.
    pub alarms: Alarms,
    /// What was tried, and may be tried again.
    pub attempts: Attempts,
    /// Whose turn it is on a tenant.
    pub turns: Turns<(String, String)>,
    /// What time it is.
    pub clock: Clock,
    /// Where Events go.
    pub events: Events,
    /// Where figures go.
    pub metrics: Metrics,
    /// Whether anything may leave this process: asked before each session and each write.
    pub fence: Fence,
    /// Whether this process still leads: asked before each step.
    pub leadership: Leadership,
    /// Who led before, and may have sessions somewhere that nobody has ended yet.
    pub former_leaders: Vec<String>,
    /// Who this process is: `application_name` of its sessions, holder of its workflows.
    pub identity: String,
    /// Where the Secrets of `DatabaseServer`s are.
    pub operator_namespace: String,
    /// The most tenants of one server that are worked on at once.
    pub concurrency: u16,
    /// The tenants whose usage was recorded beside the samples.
    pub usage_recorded: Recorded,
    /// How often usage is sampled.
    pub usage_interval: SignedDuration,
    /// The most sessions on one server.
    pub max_connections: u32,
    /// The modules that tenants have, all or some of them.
    pub modules: Modules,
}

/// As the controllers pass it around.
pub type SharedContext = Arc<Context>;

impl Context {
    /// The `DatabaseServer` of this name.
    pub fn database_server(&self, name: &str) -> Option<Arc<DatabaseServer>> {
        self.database_servers.get(&ObjectRef::new(name))
    }

    /// The `TenantPlan` of this name.
    pub fn plan(&self, name: &str) -> Option<Arc<TenantPlan>> {
        self.plans.get(&ObjectRef::new(name))
    }

    /// Does something with what this plan says of the grace.
    pub fn with_plan_grace<T>(&self, plan: &str, of: impl FnOnce(PlanGrace<'_>) -> T) -> T {
        match self.plan(plan) {
            Some(plan) => of(PlanGrace::Says(plan.spec.grace_seconds.as_ref())),
            None => of(PlanGrace::NoPlan),
        }
    }

    /// What the names of the databases on a server begin with.
    pub fn prefix_of(&self, server: &str) -> String {
        self.database_server(server).map_or_else(|| DEFAULT_PREFIX.to_owned(), |server| prefix(&server))
    }
}

impl Surroundings for Context {
    fn has_plan(&self, name: &str) -> bool {
        self.plan(name).is_some()
    }

    fn server(&self, name: &str) -> ServerOffer {
        match self.database_server(name) {
            None => ServerOffer::Missing,
            Some(server) => match &server.spec.allowed_namespaces {
                None => ServerOffer::Everyone,
                Some(namespaces) => ServerOffer::Only(namespaces.clone()),
            },
        }
    }
}
