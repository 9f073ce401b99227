//! `tenantry run`: the operator.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};
use k8s_openapi::jiff::SignedDuration;
use kube::{Client, Config};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    controller::{
        client::client as fenced_client,
        clock::Clock,
        run::{Ground, Options, run as run_controllers},
    },
    domain::breaker::Limits,
    fence::Fence,
    leader::{self, Election, Leadership, Timing},
    metrics::Metrics,
    postgres::credentials::SecretText,
    registry::{self, Registry},
    telemetry::{self, LogFormat},
    web,
};

/// Flags of `tenantry run`.
#[derive(Args)]
#[command(after_help = "\
The operator talks to the cluster of KUBECONFIG, or to the one it runs in. It connects to PostgreSQL with the \
logins from the Secrets that DatabaseServers name, and to the registry with the URL below; neither needs to be a \
superuser (see `tenantry server-setup --help`).\n\n\
Several replicas may run: one holds the Lease and works, the others wait and take over within 20 seconds. A container \
that is started again in its pod goes on after 4 seconds (--pod-uid).\n\n\
Endpoints at --http-address: /livez, /readyz, /metrics.")]
pub struct Arguments {
    /// URL of the registry, the system database: postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full
    #[arg(long, env = "TENANTRY_SYSTEM_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    system_database_url: SecretText,

    /// Namespace of the operator: of its Lease and of the Secrets that DatabaseServers name
    #[arg(
        long,
        env = "TENANTRY_OPERATOR_NAMESPACE",
        default_value = "tenantry-system",
        value_name = "NAMESPACE"
    )]
    operator_namespace: String,

    /// Manage the Tenants of these namespaces only, separated by commas; none: of all namespaces
    #[arg(long, env = "TENANTRY_WATCH_NAMESPACES", value_delimiter = ',', value_name = "NAMESPACES")]
    watch_namespaces: Vec<String>,

    /// Manage the DatabaseServers with these labels only, as in `kubectl get -l`; none: all of them. For several
    /// operators in one cluster: each needs a registry, namespaces and servers of its own
    #[arg(long, env = "TENANTRY_SERVER_SELECTOR", value_name = "SELECTOR")]
    server_selector: Option<String>,

    /// Name of the Lease. Operators with different Leases do not know of each other: give them disjoint namespaces
    /// and registries
    #[arg(long, env = "TENANTRY_LEASE_NAME", default_value = "tenantry", value_name = "NAME")]
    lease_name: String,

    /// The uid of the pod that this process runs in, from the downward API (metadata.uid), never a text of your own. With
    /// it, a container that is started again in its pod takes over after 4 s what the one before held; without it, after
    /// the 15 s of the Lease
    #[arg(long, env = "TENANTRY_POD_UID", value_name = "UID", value_parser = NonEmptyStringValueParser::new())]
    pod_uid: Option<String>,

    /// Address of health and metrics
    #[arg(long, env = "TENANTRY_HTTP_ADDRESS", default_value = "0.0.0.0:8080", value_name = "ADDRESS:PORT")]
    http_address: SocketAddr,

    /// The most Tenants of one DatabaseServer worked on at once
    #[arg(long, env = "TENANTRY_CONCURRENCY", default_value_t = 16, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,

    /// The most sessions on one PostgreSQL server, those into tenant databases included
    #[arg(long, env = "TENANTRY_MAX_CONNECTIONS_PER_SERVER", default_value_t = 8, value_name = "N",
          value_parser = clap::value_parser!(u32).range(3..=1000))]
    max_connections_per_server: u32,

    /// The most sessions in the registry
    #[arg(long, env = "TENANTRY_REGISTRY_CONNECTIONS", default_value_t = 5, value_name = "N",
          value_parser = clap::value_parser!(u32).range(2..=1000))]
    registry_connections: u32,

    /// Whether purges are frozen when many tenants go away at once, or when the definition of Tenants does
    #[arg(long, env = "TENANTRY_MASS_DELETION_BREAKER", value_enum, default_value_t = Switch::On)]
    mass_deletion_breaker: Switch,

    /// So many tenants that begin to go away within ten minutes never open the breaker
    #[arg(long, env = "TENANTRY_MASS_DELETION_MINIMUM", default_value_t = 10, value_name = "N")]
    mass_deletion_minimum: u32,

    /// Nor does this share of all tenants; the larger of the two counts
    #[arg(long, env = "TENANTRY_MASS_DELETION_PERCENT", default_value_t = 5, value_name = "PERCENT",
          value_parser = clap::value_parser!(u32).range(0..=100))]
    mass_deletion_percent: u32,

    /// How often it is looked how much tenants use of what their plans limit, in seconds. A tenant that nobody writes to
    /// is looked at once an hour at most
    #[arg(long, env = "TENANTRY_USAGE_INTERVAL", default_value_t = 60, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    usage_interval: u32,

    /// For tests: lead without a Lease, whoever else leads
    #[arg(long, hide = true)]
    test_ignore_lease: bool,

    /// For tests: a file with the seconds by which the clock of all deadlines is ahead of the system's
    #[arg(long, hide = true, value_name = "FILE")]
    test_clock: Option<PathBuf>,

    /// Format of the log
    #[arg(long, env = "TENANTRY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// What is logged, as tracing's directives: info, debug, tenantry=debug,sqlx=warn …
    #[arg(long, env = "TENANTRY_LOG_LEVEL", default_value = "info", value_name = "DIRECTIVES")]
    log_level: String,
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
    /// No usable configuration for the cluster.
    #[error("no way to the Kubernetes API: {0}; set KUBECONFIG, or run in a cluster")]
    Config(#[from] kube::config::InferConfigError),
    /// The client could not be made.
    #[error("no way to the Kubernetes API: {0}")]
    Client(#[from] kube::Error),
    /// The registry does not do.
    #[error("the registry (TENANTRY_SYSTEM_DATABASE_URL): {0}")]
    Registry(#[from] registry::Error),
    /// The address is taken, or not ours.
    #[error("--http-address: {0}")]
    Web(#[from] std::io::Error),
    /// Another replica leads now.
    #[error("the Lease is lost: {0}; this process ends, so that nothing it had begun goes on")]
    LeaseLost(String),
}

/// Runs the operator until SIGTERM or SIGINT, or until it loses the Lease.
pub async fn run(arguments: Arguments) -> Result<(), RunError> {
    telemetry::init(arguments.log_format, &arguments.log_level)?;
    // Two libraries use rustls; both get the same provider, ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let identity = leader::identity(&std::env::var("HOSTNAME").unwrap_or_else(|_| "tenantry".into()));
    info!(version = env!("CARGO_PKG_VERSION"), identity, "starting");

    let shutdown = CancellationToken::new();
    let metrics = Metrics::new();
    let readiness = web::Readiness::default();
    let registry_gate = readiness.gate("registry");
    let server = web::Server::bind(arguments.http_address).await?;
    info!(address = %server.address()?, "serving /livez, /readyz, /metrics");
    let pages = web::Pages { readiness, metrics: metrics.clone() };
    let serving = tokio::spawn(server.serve(pages, shutdown.clone().cancelled_owned()));
    stop_on_signal(shutdown.clone());

    let fence = Fence::default();
    let config = Config::infer().await?;
    let client = Client::try_from(config.clone())?;
    let url = arguments.system_database_url.expose();
    let registry =
        Registry::connect_fenced(url, &identity, arguments.registry_connections, fence.clone()).await?;
    registry.migrate().await?;
    let installation = registry.installation().await?;
    registry_gate.open();

    let election = Election {
        namespace: arguments.operator_namespace.clone(),
        name: arguments.lease_name,
        identity: identity.clone(),
        pod: arguments.pod_uid,
        timing: Timing::default(),
    };
    let leadership =
        if arguments.test_ignore_lease { Leadership::assumed() } else { election.start(client.clone()) };
    info!("waiting for the Lease");
    tokio::select! {
        () = leadership.wait() => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    info!(installation = %installation.id, "leading");
    metrics.leader(true);
    let asked = leadership.clone();
    fence.set(move || asked.is_current());
    let ground = Ground {
        client: fenced_client(config, fence.clone())?,
        watching: client,
        registry: registry.clone(),
        installation,
        metrics: metrics.clone(),
        leadership: leadership.clone(),
        fence,
    };
    let options = Options {
        watch_namespaces: arguments.watch_namespaces,
        server_selector: arguments.server_selector,
        operator_namespace: arguments.operator_namespace,
        concurrency: arguments.concurrency,
        usage_interval: SignedDuration::from_secs(i64::from(arguments.usage_interval)),
        breaker: (arguments.mass_deletion_breaker == Switch::On).then_some(Limits {
            minimum: arguments.mass_deletion_minimum,
            percent: arguments.mass_deletion_percent,
        }),
        max_connections: arguments.max_connections_per_server,
        identity,
        clock: arguments.test_clock.as_deref().map_or_else(Clock::default, Clock::ahead_by),
    };
    let outcome = tokio::select! {
        result = run_controllers(ground, options, shutdown.clone()) => result.map_err(RunError::from),
        why = leadership.lost() => Err(RunError::LeaseLost(why)),
    };
    metrics.leader(false);
    // A holder that lost its Lease has nothing to release, and must not go on for a moment longer.
    if outcome.is_ok() {
        // In this order: the next leader never meets a claim that is still ending.
        registry.disconnect().await;
        leadership.release().await;
    }
    shutdown.cancel();
    let _ = serving.await;
    info!("stopped");
    outcome
}

fn stop_on_signal(shutdown: CancellationToken) {
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            error!("signals cannot be handled; only SIGKILL ends this process");
            return;
        };
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: ending running visits"),
            _ = interrupt.recv() => info!("SIGINT: ending running visits"),
        }
        shutdown.cancel();
    });
}
