//! `tenantry run`: the operator.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};
use k8s_openapi::jiff::SignedDuration;
use kube::{Client, Config};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{retention::RetentionArguments, webhook::WebhookArguments};
use crate::{
    controller::{
        client::client as fenced_client,
        clock::Clock,
        run::{LeaderError, LeaderResources, Options, run as run_controllers},
        state::failed_lists::FailedLists,
        supervisor::LoopEnded,
    },
    domain::{breaker::BreakerThresholds, module_schemas::ModuleSchemas},
    fence::Fence,
    leader::{self, Election, Leadership, Timing},
    metrics::Metrics,
    postgres::{tenant::credentials::SecretText, while_let_in},
    registry::{self, Installation, Registry},
    telemetry::{self, LogFormat, Statements},
    traces::{self, Traces},
    web,
    webhook::Webhook,
};

/// Flags of `tenantry run`.
#[derive(Args)]
#[command(after_help = "\
The operator talks to the cluster of KUBECONFIG, or to the one it runs in. It connects to PostgreSQL with the \
logins from the Secrets that DatabaseServers name, and to the registry with the URL below; neither needs to be a \
superuser (see `tenantry server-setup --help`).\n\n\
Run two replicas for failover: one holds the Lease and leads, the other takes over within 20 seconds. A container that \
is restarted in its pod leads again after 4 seconds (--pod-uid).\n\n\
Endpoints at --http-address: /livez, /readyz, /health, /metrics.")]
pub struct Arguments {
    /// URL of the registry, the system database: postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full
    #[arg(long, env = "TENANTRY_SYSTEM_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    system_database_url: SecretText,

    /// Namespace of the operator's Lease, of the Secrets that DatabaseServers name, and of the ConfigMaps that TenantModules
    /// name
    #[arg(
        long,
        env = "TENANTRY_OPERATOR_NAMESPACE",
        default_value = "tenantry-system",
        value_name = "NAMESPACE"
    )]
    operator_namespace: String,

    /// Namespace of the Jobs that run the migration tools of applications (TenantModules with source.job), and of the Secrets
    /// with their logins; default: --operator-namespace. A user who may read Secrets or start pods there can use such a login
    /// while a run lasts
    #[arg(long, env = "TENANTRY_MIGRATION_NAMESPACE", value_name = "NAMESPACE")]
    migration_namespace: Option<String>,

    /// Manage the Tenants of these namespaces only, separated by commas; default: all namespaces
    #[arg(long, env = "TENANTRY_WATCH_NAMESPACES", value_delimiter = ',', value_name = "NAMESPACES")]
    watch_namespaces: Vec<String>,

    /// Manage the DatabaseServers with these labels only, as in `kubectl get -l`; default: all. For several operators in
    /// one cluster: each needs a registry, namespaces and servers of its own
    #[arg(long, env = "TENANTRY_SERVER_SELECTOR", value_name = "SELECTOR")]
    server_selector: Option<String>,

    /// Manage the TenantModules with these labels only; default: all. For several operators in one cluster: one of them has
    /// no selector, and lists the modules that ship with Tenantry
    #[arg(long, env = "TENANTRY_MODULE_SELECTOR", value_name = "SELECTOR")]
    module_selector: Option<String>,

    /// Name of the Lease. Operators with different Leases do not coordinate: give them disjoint namespaces and registries
    #[arg(long, env = "TENANTRY_LEASE_NAME", default_value = "tenantry", value_name = "NAME")]
    lease_name: String,

    /// Seconds for which the Lease is valid after a renewal: how long other replicas wait for a leader that does not renew.
    /// Longer than --lease-renew-deadline. Advanced, and for tests; the same for all replicas
    #[arg(long, env = "TENANTRY_LEASE_DURATION", default_value_t = 15, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(2..=3600))]
    lease_duration: u32,

    /// Seconds after which a leader that could not renew its Lease stops. At least twice --lease-retry-period
    #[arg(long, env = "TENANTRY_LEASE_RENEW_DEADLINE", default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    lease_renew_deadline: u32,

    /// Seconds between two attempts to acquire or renew the Lease
    #[arg(long, env = "TENANTRY_LEASE_RETRY_PERIOD", default_value_t = 2, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    lease_retry_period: u32,

    /// Uid of the pod of this process, from the downward API (metadata.uid), never another text. With it, a container that
    /// is restarted in its pod takes the Lease of its predecessor after 4 s; without it, after 15 s
    #[arg(long, env = "TENANTRY_POD_UID", value_name = "UID", value_parser = NonEmptyStringValueParser::new())]
    pod_uid: Option<String>,

    /// Address of the health and metrics endpoints
    #[arg(long, env = "TENANTRY_HTTP_ADDRESS", default_value = "0.0.0.0:8080", value_name = "ADDRESS:PORT")]
    http_address: SocketAddr,

    #[command(flatten)]
    webhook: WebhookArguments,

    /// Maximum number of Tenants of one DatabaseServer that are reconciled at once
    #[arg(long, env = "TENANTRY_CONCURRENCY", default_value_t = 16, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,

    /// Maximum number of sessions on one PostgreSQL server, including those in tenant databases. Beyond it are the
    /// session that watches what tenants use, and at times a few short ones
    #[arg(long, env = "TENANTRY_MAX_CONNECTIONS_PER_SERVER", default_value_t = 10, value_name = "N",
          value_parser = clap::value_parser!(u32).range(4..=1000))]
    max_connections_per_server: u32,

    /// Maximum number of sessions in the registry, besides two of the admission webhook
    #[arg(long, env = "TENANTRY_REGISTRY_CONNECTIONS", default_value_t = 5, value_name = "N",
          value_parser = clap::value_parser!(u32).range(2..=1000))]
    registry_connections: u32,

    /// Freeze purges when many tenants are deleted at once, or when the Tenant CRD is deleted
    #[arg(long, env = "TENANTRY_MASS_DELETION_BREAKER", value_enum, default_value_t = Switch::On)]
    mass_deletion_breaker: Switch,

    /// Deletions tolerated per 10 minutes
    #[arg(long, env = "TENANTRY_MASS_DELETION_MINIMUM", default_value_t = 10, value_name = "N")]
    mass_deletion_minimum: u32,

    /// Same, as a percentage of all tenants; the larger applies
    #[arg(long, env = "TENANTRY_MASS_DELETION_PERCENT", default_value_t = 5, value_name = "PERCENT",
          value_parser = clap::value_parser!(u32).range(0..=100))]
    mass_deletion_percent: u32,

    /// Usage sampling interval, in seconds. A tenant without writes is sampled once an hour
    #[arg(long, env = "TENANTRY_USAGE_INTERVAL", default_value_t = 60, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    usage_interval: u32,

    /// Drift check interval, in seconds: how soon manual changes in PostgreSQL are repaired. Advanced, and for tests
    #[arg(long, env = "TENANTRY_DRIFT_INTERVAL", default_value_t = 30, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    drift_interval: u32,

    /// Lock watch interval, in seconds: sessions of tenants that keep locks on shared objects for longer, or use too
    /// much of what all databases of a server share, are ended. Advanced, and for tests
    #[arg(long, env = "TENANTRY_LOCK_WATCH_INTERVAL", default_value_t = 2, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(2..=3600))]
    lock_watch_interval: u32,

    /// Modules that ship with Tenantry and that tenants have unless they or their plan name others, separated by commas.
    /// (A TenantModule says this itself: spec.default)
    #[arg(
        long,
        env = "TENANTRY_DEFAULT_MODULES",
        default_value = "core,identity,projects",
        value_delimiter = ',',
        value_name = "MODULES"
    )]
    default_modules: Vec<String>,

    /// Schemas of the tenants' databases for modules that ship with Tenantry, as in core=app_core,identity=app_identity;
    /// default: public. Once a tenant has a module, its schema cannot be changed. (A TenantModule says this itself: spec.schema)
    #[arg(long, env = "TENANTRY_MODULE_SCHEMAS", default_value = "", value_name = "MODULE=SCHEMA,…")]
    module_schemas: ModuleSchemas,

    #[command(flatten)]
    retention: RetentionArguments,

    /// For tests: lead without a Lease, even if another process leads
    #[arg(long, hide = true)]
    test_ignore_lease: bool,

    /// For tests: how often the registry is gone through for outdated rows, in seconds
    #[arg(long, hide = true, default_value_t = 24 * 3600, value_name = "SECONDS")]
    test_retention_interval: u32,

    /// For tests: a file with the seconds by which the clock for deadlines is ahead of the system clock
    #[arg(long, hide = true, value_name = "FILE")]
    test_clock: Option<PathBuf>,

    /// Log format
    #[arg(long, env = "TENANTRY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// Log level, or tracing directives: info, debug, tenantry=debug,sqlx=warn …
    #[arg(long, env = "TENANTRY_LOG_LEVEL", default_value = "info", value_name = "DIRECTIVES")]
    log_level: String,
}

impl Arguments {
    /// How long each part of the leader election takes.
    fn timing(&self) -> Timing {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Timing {
            lease: seconds(self.lease_duration),
            renew_deadline: seconds(self.lease_renew_deadline),
            retry: seconds(self.lease_retry_period),
        }
    }
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Why the operator stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The log cannot be set up.
    #[error("--log-level: {0}")]
    Telemetry(#[from] telemetry::Error),
    /// A variable of OpenTelemetry cannot be used.
    #[error(transparent)]
    Traces(#[from] traces::Error),
    /// The times of the Lease contradict each other.
    #[error(transparent)]
    LeaseTiming(#[from] leader::TimingError),
    /// No usable configuration for the cluster.
    #[error("no configuration for the Kubernetes API: {0}; set KUBECONFIG, or run in a cluster")]
    Config(#[from] kube::config::InferConfigError),
    /// The client could not be created.
    #[error("could not create a client for the Kubernetes API: {0}")]
    Client(#[from] kube::Error),
    /// The registry is not usable.
    #[error("the registry (TENANTRY_SYSTEM_DATABASE_URL): {0}")]
    Registry(#[from] registry::Error),
    /// The address is in use, or not available.
    #[error("--http-address: {0}")]
    Web(#[from] std::io::Error),
    /// Another replica leads now.
    #[error("the Lease is lost: {0}; this process ends, so that none of its work continues")]
    LeaseLost(String),
    /// A loop or controller ended before shutdown.
    #[error(transparent)]
    LoopEnded(#[from] LoopEnded),
}

impl From<LeaderError> for RunError {
    fn from(error: LeaderError) -> Self {
        match error {
            LeaderError::Registry(error) => Self::Registry(error),
            LeaderError::LoopEnded(error) => Self::LoopEnded(error),
        }
    }
}

/// Runs the operator until SIGTERM or SIGINT, or until it loses the Lease.
pub async fn run(arguments: Arguments) -> Result<(), RunError> {
    let settings = traces::Settings::read(|name| std::env::var(name).ok())?;
    let statements = if settings.is_some() { Statements::Traced } else { Statements::Logged };
    telemetry::init(arguments.log_format, &arguments.log_level, statements)?;
    // Several libraries use rustls; all must use the same provider, ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let identity = leader::identity(&std::env::var("HOSTNAME").unwrap_or_else(|_| "tenantry".into()));
    let metrics = Metrics::new();
    let Some(settings) = settings else { return operate(arguments, identity, metrics).await };
    let counted = metrics.clone();
    let count = Arc::new(move |outcome: traces::SpanOutcome, spans| {
        counted.trace_spans(outcome.as_str(), spans);
    });
    let traces = Traces::start(&settings, &identity, count)?;
    info!("traces are on");
    let outcome = operate(arguments, identity, metrics).await;
    // A process that lost its Lease must end at once.
    if !matches!(outcome, Err(RunError::LeaseLost(_))) {
        traces.end().await;
    }
    outcome
}

async fn operate(arguments: Arguments, identity: String, metrics: Metrics) -> Result<(), RunError> {
    info!(version = env!("CARGO_PKG_VERSION"), identity, "starting");

    let timing = arguments.timing().validate()?;
    let shutdown = CancellationToken::new();
    let readiness = web::Readiness::default();
    let registry_gate = readiness.gate("registry");
    // A replica that does not lead lists nothing.
    let lists_gate = readiness.gate("lists");
    lists_gate.open();
    let failed_lists = FailedLists::new(move |why| match why {
        Some(why) => lists_gate.close(why),
        None => lists_gate.open(),
    });
    let server = web::WebServer::bind(arguments.http_address).await?;
    info!(address = %server.address()?, "serving /livez, /readyz, /health, /metrics");
    let health = web::Health::default();
    let pages = web::Pages { readiness, health: health.clone(), metrics: metrics.clone() };
    let serving = tokio::spawn(server.serve(pages, shutdown.clone().cancelled_owned()));
    stop_on_signal(shutdown.clone());

    let fence = Fence::default();
    let config = Config::infer().await?;
    let client = Client::try_from(config.clone())?;
    let webhook = arguments.webhook.settings(&arguments.operator_namespace);
    let webhook = webhook.map(|settings| Webhook::start(settings, client.clone()));
    let url = arguments.system_database_url.expose();
    let connecting = async {
        let registry =
            Registry::connect_fenced(url, &identity, arguments.registry_connections, fence.clone()).await?;
        // Not migrated yet: while this process waits, another release may lead.
        registry.check_schema().await?;
        Ok::<_, registry::Error>(registry)
    };
    // The registry may be on a server with tenants: no lock of theirs keeps the operator from starting.
    let registry = while_let_in(url, &identity, connecting).await?;
    registry_gate.open();
    if let Some(webhook) = &webhook {
        webhook.set_registry(registry.for_admission());
    }

    let election = Election {
        namespace: arguments.operator_namespace.clone(),
        name: arguments.lease_name,
        identity: identity.clone(),
        pod: arguments.pod_uid,
        timing,
    };
    let leadership =
        if arguments.test_ignore_lease { Leadership::assumed() } else { election.start(client.clone()) };
    info!("waiting for the Lease");
    tokio::select! {
        () = leadership.wait() => {}
        () = shutdown.cancelled() => {
            if let Some(webhook) = webhook {
                webhook.stop().await;
            }
            return Ok(());
        }
    }
    let current = leadership.clone();
    fence.set(move || current.is_current());
    let prepared = tokio::select! {
        prepared = while_let_in(url, &identity, prepare(&registry)) => prepared,
        why = leadership.lost() => return Err(RunError::LeaseLost(why)),
    };
    let installation = match prepared {
        Ok(installation) => installation,
        Err(error) => {
            // Another replica, perhaps of the release before, can lead at once.
            registry.disconnect().await;
            leadership.release().await;
            return Err(error.into());
        }
    };
    info!(installation = %installation.id, "leading");
    metrics.leader(true);
    let resources = LeaderResources {
        client: fenced_client(config, fence.clone())?,
        watching: client,
        registry: registry.clone(),
        installation,
        metrics: metrics.clone(),
        leadership: leadership.clone(),
        fence,
        failed_lists,
        report_health: Arc::new(move |causes| health.report(causes)),
    };
    let options = Options {
        watch_namespaces: arguments.watch_namespaces,
        server_selector: arguments.server_selector,
        module_selector: arguments.module_selector,
        migration_namespace: arguments
            .migration_namespace
            .filter(|namespace| !namespace.is_empty())
            .unwrap_or_else(|| arguments.operator_namespace.clone()),
        operator_namespace: arguments.operator_namespace,
        drift_interval: Duration::from_secs(arguments.drift_interval.into()),
        lock_watch_interval: Duration::from_secs(arguments.lock_watch_interval.into()),
        concurrency: arguments.concurrency,
        usage_interval: SignedDuration::from_secs(i64::from(arguments.usage_interval)),
        retention: arguments.retention.retention(),
        retention_interval: Duration::from_secs(arguments.test_retention_interval.into()),
        default_modules: arguments.default_modules.into_iter().filter(|name| !name.is_empty()).collect(),
        module_schemas: arguments.module_schemas,
        breaker: (arguments.mass_deletion_breaker == Switch::On).then_some(BreakerThresholds {
            minimum: arguments.mass_deletion_minimum,
            percent: arguments.mass_deletion_percent,
        }),
        max_connections: arguments.max_connections_per_server,
        records_deletions: webhook.is_some(),
        identity,
        clock: arguments.test_clock.as_deref().map_or_else(Clock::default, Clock::ahead_by),
    };
    let outcome = tokio::select! {
        result = run_controllers(resources, options, shutdown.clone()) => result.map_err(RunError::from),
        why = leadership.lost() => Err(RunError::LeaseLost(why)),
    };
    metrics.leader(false);
    // A process that lost its Lease has nothing to release, and must end at once.
    if matches!(outcome, Ok(()) | Err(RunError::LoopEnded(_))) {
        // In this order: all claims of this process have ended before the next one leads.
        registry.disconnect().await;
        leadership.release().await;
    }
    shutdown.cancel();
    let _ = serving.await;
    if let Some(webhook) = webhook {
        webhook.stop().await;
    }
    info!("stopped");
    outcome
}

/// Migrates the registry, as the leader.
async fn prepare(registry: &Registry) -> registry::Result<Installation> {
    registry.migrate().await?;
    registry.installation().await
}

fn stop_on_signal(shutdown: CancellationToken) {
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            error!("could not install signal handlers; only SIGKILL ends this process");
            return;
        };
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: ending running reconciles"),
            _ = interrupt.recv() => info!("SIGINT: ending running reconciles"),
        }
        shutdown.cancel();
    });
}
