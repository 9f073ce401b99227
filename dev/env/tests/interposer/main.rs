//! The proxies between real clients and a real PostgreSQL server or API server.

mod api;
mod postgres;
mod trigger;

use std::sync::LazyLock;
use std::time::Duration;

use kube::Client;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tenantry_dev::control_plane::read_config;
use tenantry_dev::environment::on_a_thread;
use tenantry_dev::interposer::{ApiProxy, Effects, PostgresProxy};
use tenantry_dev::{ControlPlane, ControlPlaneOptions, Postgres, PostgresOptions};

static POSTGRES: LazyLock<Postgres> =
    LazyLock::new(|| on_a_thread(|| Postgres::start(PostgresOptions::default())).expect("a server"));

static PLANE: LazyLock<ControlPlane> = LazyLock::new(|| {
    on_a_thread(|| ControlPlane::start(ControlPlaneOptions::default())).expect("a control plane")
});

/// Longer than any successful operation takes.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long a test waits to verify that something does not happen.
const QUIET_PERIOD: Duration = Duration::from_millis(300);

/// Waits for a future that must complete.
async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, future).await.unwrap_or_else(|_| panic!("{what}: not within {TIMEOUT:?}"))
}

/// Waits until a condition is true.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    within(what, async {
        while !condition() {
            tick.tick().await;
        }
    })
    .await;
}

/// Verifies that a future does not complete within `QUIET_PERIOD`.
async fn never<T>(what: &str, future: impl Future<Output = T>) {
    assert!(tokio::time::timeout(QUIET_PERIOD, future).await.is_err(), "{what}");
}

fn postgres_proxy(effects: &Effects) -> PostgresProxy {
    PostgresProxy::start(POSTGRES.port(), effects).expect("a proxy")
}

async fn api_proxy(effects: &Effects) -> ApiProxy {
    ApiProxy::start(PLANE.config().await.expect("a configuration"), effects).expect("a proxy")
}

/// A superuser session through the proxy.
async fn session(proxy: &PostgresProxy) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = POSTGRES.admin_url("postgres").parse().expect("a URL");
    PgConnection::connect_with(&options.port(proxy.port()).application_name("interposed")).await
}

/// A superuser session without the proxy.
async fn direct() -> PgConnection {
    POSTGRES.connect("postgres").await.expect("a session")
}

/// A client that uses the proxy, without retries.
async fn client(proxy: &ApiProxy) -> Client {
    let mut config = read_config(proxy.kubeconfig()).await.expect("a kubeconfig");
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}
