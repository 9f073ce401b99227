//! The operator, run as a process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::{Context, Error, Result};
use crate::process::{End, Launch, Lifetime, Signal};
use crate::service::Service;

const PATIENCE: Duration = Duration::from_secs(60);

/// How an operator is run.
#[derive(Clone, Debug, Default)]
pub struct OperatorOptions {
    /// The `tenantry` binary.
    pub binary: PathBuf,
    /// The kubeconfig it uses.
    pub kubeconfig: PathBuf,
    /// The registry, as its own login. It goes by the environment: it holds a password.
    pub registry_url: String,
    /// Its namespace: Secrets of servers, the Lease.
    pub namespace: String,
    /// The only namespaces whose tenants it sees; all of them when empty.
    pub watch_namespaces: Vec<String>,
    /// The Lease's name, if not the default.
    pub lease_name: Option<String>,
    /// More arguments for `tenantry run`.
    pub arguments: Vec<String>,
    /// More environment variables.
    pub environment: Vec<(String, String)>,
}

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
        arguments.extend(self.arguments.iter().cloned());
        // Tests and demos delete by the dozen; `--mass-deletion-breaker=on` wins over this.
        let mut environment = vec![
            ("TENANTRY_MASS_DELETION_BREAKER".to_owned(), "off".to_owned()),
            // And look at what they have just done.
            ("TENANTRY_USAGE_INTERVAL".to_owned(), "5".to_owned()),
        ];
        // A restart finds what one by the kubelet would find. A replica has another port.
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
    /// Describes one that logs into `directory` and serves on this port; a detached one that runs is taken over.
    pub fn new(options: &OperatorOptions, directory: &Path, port: u16, lifetime: Lifetime) -> Self {
        Self { service: Service::new(options.launch(directory, port), lifetime), port }
    }

    /// Starts it unless it runs, and waits until it leads. For one that must wait for another's Lease: `start_standby`.
    pub async fn start(&self) -> Result<()> {
        self.start_standby().await?;
        self.wait_leading().await
    }

    /// Starts it unless it runs, and waits until it is ready, leading or not.
    pub async fn start_standby(&self) -> Result<()> {
        self.service.start()?;
        let ready = async || matches!(self.get("/readyz").await, Ok((200, _)));
        self.service.wait_until(PATIENCE, ready).await
    }

    /// Waits until it leads.
    pub async fn wait_leading(&self) -> Result<()> {
        self.service.wait_until(PATIENCE, async || self.leads().await).await
    }

    /// Whether it leads, by its own metrics.
    pub async fn leads(&self) -> bool {
        self.metrics().await.is_ok_and(|text| text.lines().any(|line| line == "tenantry_leader 1"))
    }

    /// Ends it in order: it gives its Lease back.
    pub async fn stop(&self) -> Result<()> {
        self.service.stop(Signal::TERM, Duration::from_secs(30)).await
    }

    /// Kills it, as a crash of its node would.
    pub async fn kill(&self) -> Result<()> {
        self.service.kill().await
    }

    /// Its metrics, in Prometheus' text format.
    pub async fn metrics(&self) -> Result<String> {
        match self.get("/metrics").await? {
            (200, text) => Ok(text),
            (status, text) => Err(Error::message(format!("/metrics answers {status}: {text}"))),
        }
    }

    /// Asks its HTTP server for a path: the status and the body.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        get(self.port, path).await
    }

    /// Where it serves health and metrics.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port it serves on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its log file.
    pub fn log(&self) -> PathBuf {
        self.service.log()
    }

    /// The process, to be killed, frozen and looked at.
    pub fn service(&self) -> &Service {
        &self.service
    }
}

/// One GET over plain HTTP/1.0, which ends with the connection: all that health and metrics need.
async fn get(port: u16, path: &str) -> Result<(u16, String)> {
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
