//! The operator as a child process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::{Context, Error, Result};
use crate::process::{End, Launch, Lifetime, Signal};
use crate::service::Service;
use crate::webhook;

const TIMEOUT: Duration = Duration::from_secs(60);

/// How an operator is started.
#[derive(Clone, Debug, Default)]
pub struct OperatorOptions {
    /// The `tenantry` binary.
    pub binary: PathBuf,
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
    /// The registry's URL with the operator's login. Passed by the environment, since it contains a password.
    pub registry_url: String,
    /// Its namespace: that of the servers' Secrets and of the Lease.
    pub namespace: String,
    /// The namespaces whose tenants it watches; all of them when empty.
    pub watch_namespaces: Vec<String>,
    /// The Lease's name, if not the default.
    pub lease_name: Option<String>,
    /// The port of its admission webhook, if it serves one.
    pub webhook: Option<u16>,
    /// Additional arguments for `tenantry run`.
    pub arguments: Vec<String>,
    /// Additional environment variables.
    pub environment: Vec<(String, String)>,
}

/// Where an operator of an environment differs from the defaults: tests and the demo delete many tenants, and read usage
/// right after they have changed it. Arguments and `OperatorOptions::environment` override these.
const DEVELOPMENT_SETTINGS: [(&str, &str); 2] =
    [("TENANTRY_MASS_DELETION_BREAKER", "off"), ("TENANTRY_USAGE_INTERVAL", "5")];

impl OperatorOptions {
    fn launch(&self, directory: &Path, port: u16) -> Launch {
        let mut arguments = vec![
            "run".to_owned(),
            format!("--http-address=127.0.0.1:{port}"),
            format!("--operator-namespace={}", self.namespace),
        ];
        if !self.watch_namespaces.is_empty() {
            arguments.push(format!("--watch-namespaces={}", self.watch_namespaces.join(",")));
        }
        arguments.extend(self.lease_name.iter().map(|name| format!("--lease-name={name}")));
        if let Some(port) = self.webhook {
            arguments.push(format!("--webhook-address=127.0.0.1:{port}"));
            arguments.push("--webhook-names=127.0.0.1".to_owned());
            arguments.push(format!("--webhook-configuration={}", webhook::configuration(&self.namespace)));
        }
        arguments.extend(self.arguments.iter().cloned());
        let mut environment: Vec<_> =
            DEVELOPMENT_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        // The same after a restart, as for a container that the kubelet restarts. A replica has another port.
        environment.push(("TENANTRY_POD_UID".to_owned(), format!("port-{port}")));
        environment.extend(self.environment.iter().cloned());
        environment.push(("KUBECONFIG".to_owned(), self.kubeconfig.display().to_string()));
        environment.push(("TENANTRY_SYSTEM_DATABASE_URL".to_owned(), self.registry_url.clone()));
        Launch {
            name: "tenantry".to_owned(),
            program: self.binary.clone(),
            arguments,
            environment,
            log: directory.join("tenantry.log"),
            user: None,
            end: End::Kill,
        }
    }
}

/// An operator.
#[derive(Debug)]
pub struct Operator {
    service: Service,
    port: u16,
}

impl Operator {
    /// Describes an operator that logs to `directory` and serves on this port. A detached one that runs is adopted.
    pub fn new(options: &OperatorOptions, directory: &Path, port: u16, lifetime: Lifetime) -> Self {
        Self { service: Service::new(options.launch(directory, port), lifetime), port }
    }

    /// Starts it unless it runs, and waits until it leads. Use `start_standby` if another replica holds the Lease.
    pub async fn start(&self) -> Result<()> {
        self.start_standby().await?;
        self.wait_leading().await
    }

    /// Starts it unless it runs, and waits until it is ready, whether or not it leads.
    pub async fn start_standby(&self) -> Result<()> {
        self.service.start()?;
        let ready = async || matches!(self.get("/readyz").await, Ok((200, _)));
        self.service.wait_until(TIMEOUT, ready).await
    }

    /// Waits until it leads.
    pub async fn wait_leading(&self) -> Result<()> {
        self.service.wait_until(TIMEOUT, async || self.leads().await).await
    }

    /// Whether its metrics show that it leads.
    pub async fn leads(&self) -> bool {
        self.metrics().await.is_ok_and(|text| text.lines().any(|line| line == "tenantry_leader 1"))
    }

    /// Stops it with SIGTERM: it releases its Lease.
    pub async fn stop(&self) -> Result<()> {
        self.service.stop(Signal::TERM, Duration::from_secs(30)).await
    }

    /// Kills it, as a crash of its node would.
    pub async fn kill(&self) -> Result<()> {
        self.service.kill().await
    }

    /// Its metrics in the Prometheus text format.
    pub async fn metrics(&self) -> Result<String> {
        match self.get("/metrics").await? {
            (200, text) => Ok(text),
            (status, text) => Err(Error::message(format!("/metrics answers {status}: {text}"))),
        }
    }

    /// Requests a path from its HTTP server; returns the status and the body.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        get(self.port, path).await
    }

    /// The URL of its health and metrics endpoints.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port of its HTTP server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its log file.
    pub fn log(&self) -> PathBuf {
        self.service.log()
    }

    /// The process, to kill, freeze or inspect it.
    pub fn service(&self) -> &Service {
        &self.service
    }
}

/// One GET over plain HTTP/1.0, whose answer ends with the connection: health and metrics need no more.
pub(crate) async fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let what = || format!("GET http://127.0.0.1:{port}{path}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.context(what())?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context(what())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context(what())?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    match (status, answer.split_once("\r\n\r\n")) {
        (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
        _ => Err(Error::message(format!("{}: not an HTTP answer", what()))),
    }
}
