//! A Kubernetes control plane on loopback: etcd, kube-apiserver, the necessary controllers of kube-controller-manager, and
//! kubectl.
//!
//! There is no kubelet: pods stay pending. Validation, admission policies, RBAC, service account tokens, garbage
//! collection and the deletion of namespaces behave as in production.

pub mod binary;

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::{Deserialize, Serialize};

use crate::certificates::{Authority, Certificate, signing_key};
use crate::error::Result;
use crate::kubectl::Kubectl;
use crate::paths::{self, RunDirectory};
use crate::process::{End, Launch, Lifetime};
use crate::service::Service;
use crate::{ports, progress, rights};

const TIMEOUT: Duration = Duration::from_secs(120);

const AUDIT_LOG: &str = "audit.log";

/// Which requests are recorded: those of ServiceAccounts, once each, without their bodies. A watch is recorded when it begins
/// and when it ends.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: ['system:serviceaccounts']}
- {level: None}
";

/// The ports of a control plane. A restart keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlPlanePorts {
    /// etcd's port for kube-apiserver.
    pub etcd: u16,
    /// etcd's port for peers. It has none, but listens for them.
    pub etcd_peers: u16,
    /// kube-apiserver's port.
    pub api_server: u16,
}

impl ControlPlanePorts {
    /// Picks free ports.
    pub fn pick() -> Result<Self> {
        Ok(Self { etcd: ports::free()?, etcd_peers: ports::free()?, api_server: ports::free()? })
    }
}

/// How a control plane is started.
#[derive(Clone, Debug, Default)]
pub struct ControlPlaneOptions {
    /// Additional arguments for kube-apiserver.
    pub api_server_arguments: Vec<String>,
    /// Whether the requests of ServiceAccounts, such as those of operators, are recorded: `ControlPlane::audit_log`.
    pub audited: bool,
}

/// A running control plane. It ends and its data is removed when this is dropped, unless it was started with
/// `start_detached`.
#[derive(Debug)]
pub struct ControlPlane {
    controller_manager: Service,
    api_server: Service,
    etcd: Service,
    binary: PathBuf,
    directory: PathBuf,
    // Dropped last, so that the data is removed after the servers have ended.
    _run: Option<RunDirectory>,
}

impl ControlPlane {
    /// Starts a new control plane for this process, on free ports.
    pub async fn start(options: ControlPlaneOptions) -> Result<Self> {
        let binary = binary::find().await?;
        let step = progress::step("Kubernetes control plane");
        let outcome = async {
            let run = RunDirectory::new()?;
            let ports = ControlPlanePorts::pick()?;
            prepare(run.path(), ports)?;
            let mut plane = Self::describe(binary, run.path(), ports, &options, Lifetime::WithParent);
            plane._run = Some(run);
            plane.start_again().await?;
            Ok(plane)
        };
        step.end(outcome.await)
    }

    /// Starts the parts that do not run of the control plane whose data is in `directory`; the data is created if there is
    /// none. The control plane keeps running when this process ends.
    pub async fn start_detached(directory: &Path, ports: ControlPlanePorts) -> Result<Self> {
        let binary = binary::find().await?;
        let step = progress::step(format!("Kubernetes control plane on port {}", ports.api_server));
        let outcome = async {
            if !directory.join("kubeconfig").is_file() {
                prepare(directory, ports)?;
            }
            let plane =
                Self::describe(binary, directory, ports, &ControlPlaneOptions::default(), Lifetime::Detached);
            plane.start_again().await?;
            Ok(plane)
        };
        step.end(outcome.await)
    }

    fn describe(
        binary: PathBuf,
        directory: &Path,
        ports: ControlPlanePorts,
        options: &ControlPlaneOptions,
        lifetime: Lifetime,
    ) -> Self {
        let service = |name: &str, arguments: Vec<String>| {
            let launch = Launch {
                name: name.to_owned(),
                program: binary.clone(),
                arguments: std::iter::once(name.to_owned()).chain(arguments).collect(),
                environment: Vec::new(),
                log: directory.join(format!("{name}.log")),
                user: None,
                end: End::Kill,
            };
            Service::new(launch, lifetime)
        };
        let mut api_server = api_server_arguments(directory, ports);
        if options.audited {
            api_server.extend([
                format!("--audit-policy-file={}", directory.join("audit-policy.yaml").display()),
                format!("--audit-log-path={}", directory.join(AUDIT_LOG).display()),
            ]);
        }
        api_server.extend(options.api_server_arguments.iter().cloned());
        Self {
            etcd: service("etcd", etcd_arguments(directory, ports)),
            api_server: service("kube-apiserver", api_server),
            controller_manager: service("kube-controller-manager", controller_manager_arguments(directory)),
            binary: binary.clone(),
            directory: directory.to_owned(),
            _run: None,
        }
    }

    /// Starts the parts that do not run, with the same ports and data, and waits until all parts serve.
    pub async fn start_again(&self) -> Result<()> {
        if self.etcd.start()? {
            self.api_server.start()?;
            self.wait_ready().await?;
        } else {
            self.start_api_server().await?;
        }
        if self.controller_manager.start()? {
            // It creates the service accounts of namespaces; pods and token requests fail until they exist.
            let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, "default");
            let published = async || accounts.get_opt("default").await.is_ok_and(|account| account.is_some());
            self.controller_manager.wait_until(TIMEOUT, published).await?;
        }
        Ok(())
    }

    /// Starts kube-apiserver if it does not run, and waits until it is ready.
    pub async fn start_api_server(&self) -> Result<()> {
        if self.api_server.start()? {
            self.wait_ready().await?;
        }
        Ok(())
    }

    async fn wait_ready(&self) -> Result<()> {
        let client = self.client().await?;
        let ready = async || match http::Request::get("/readyz").body(Vec::new()) {
            Ok(request) => client.request_text(request).await.is_ok(),
            Err(_) => false,
        };
        self.api_server.wait_until(TIMEOUT, ready).await
    }

    /// Kills kube-apiserver, as a crash of its node would. `start_api_server` starts it on the same port.
    pub async fn kill_api_server(&self) -> Result<()> {
        self.api_server.kill().await
    }

    /// kube-apiserver's process.
    pub fn api_server(&self) -> &Service {
        &self.api_server
    }

    /// etcd's process.
    pub fn etcd(&self) -> &Service {
        &self.etcd
    }

    /// kube-controller-manager's process.
    pub fn controller_manager(&self) -> &Service {
        &self.controller_manager
    }

    /// The cluster administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// What ServiceAccounts requested, a JSON text in each line, if the control plane was started `audited`.
    pub fn audit_log(&self) -> PathBuf {
        self.directory.join(AUDIT_LOG)
    }

    /// The binary. Run by the name `kubectl`, it is kubectl.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// kubectl, as the cluster administrator.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::of_control_plane(&self.binary, &self.kubeconfig())
    }

    /// The cluster administrator's configuration.
    pub async fn config(&self) -> Result<Config> {
        read_config(&self.kubeconfig()).await
    }

    /// A client with the rights of the cluster administrator. It works only in the runtime that it is created in: create
    /// one per test.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::try_from(self.config().await?)?)
    }

    /// A configuration with a new token of an existing service account.
    pub async fn service_account_config(&self, namespace: &str, name: &str) -> Result<Config> {
        let token = rights::token(self.client().await?, namespace, name, 24 * 3600).await?;
        let mut config = self.config().await?;
        config.auth_info = kube::config::AuthInfo { token: Some(token.into()), ..Default::default() };
        Ok(config)
    }
}

/// Reads a kubeconfig file; the caller's environment variables do not override it.
pub async fn read_config(kubeconfig: &Path) -> Result<Config> {
    Ok(Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &KubeConfigOptions::default())
        .await?)
}

/// Creates the files that the parts read when they start: certificates, keys and the administrator's kubeconfig.
fn prepare(directory: &Path, ports: ControlPlanePorts) -> Result<()> {
    let authority = Authority::new("tenantry-dev")?;
    let write = |name: &str, content: &str| paths::write_secret(&directory.join(name), content);
    let pair = |name: &str, pair: &Certificate| {
        write(&format!("{name}.crt"), &pair.certificate)?;
        write(&format!("{name}.key"), &pair.key)
    };
    write("ca.crt", authority.certificate())?;
    let names =
        ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.0.0.1"];
    pair("server", &authority.server(&names)?)?;
    pair("admin", &authority.client("tenantry-dev", "system:masters")?)?;
    let (private, public) = signing_key()?;
    write("service-accounts.key", &private)?;
    write("service-accounts.pub", &public)?;
    write("audit-policy.yaml", AUDIT_POLICY)?;
    let path = directory.display();
    // Last: a directory without it is incomplete.
    write(
        "kubeconfig",
        &format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: tenantry-dev\n  \
               cluster:\n    \
                 server: https://127.0.0.1:{port}\n    \
                 certificate-authority: {path}/ca.crt\n\
             users:\n\
             - name: tenantry-dev\n  \
               user:\n    \
                 client-certificate: {path}/admin.crt\n    \
                 client-key: {path}/admin.key\n\
             contexts:\n\
             - name: tenantry-dev\n  \
               context: {{cluster: tenantry-dev, user: tenantry-dev}}\n\
             current-context: tenantry-dev\n",
            port = ports.api_server,
        ),
    )
}

fn etcd_arguments(directory: &Path, ports: ControlPlanePorts) -> Vec<String> {
    let local = |port| format!("http://127.0.0.1:{port}");
    vec![
        format!("--data-dir={}", directory.join("etcd").display()),
        format!("--client-url={}", local(ports.etcd)),
        format!("--peer-url={}", local(ports.etcd_peers)),
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn api_server_arguments(directory: &Path, ports: ControlPlanePorts) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    vec![
        format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        // It would publish the address to pods, which do not exist, and refuses a loopback address.
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--secure-port={}", ports.api_server),
        format!("--cert-dir={}", directory.display()),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--service-account-key-file={}", file("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", file("service-accounts.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

fn controller_manager_arguments(directory: &Path) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    vec![
        format!("--kubeconfig={}", file("kubeconfig")),
        format!("--root-ca-file={}", file("ca.crt")),
        format!("--service-account-private-key-file={}", file("service-accounts.key")),
    ]
}
