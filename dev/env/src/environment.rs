//! A complete environment: control plane, PostgreSQL and an operator.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;

use crate::control_plane::{ControlPlane, ControlPlaneOptions, read_config};
use crate::error::{Error, Result};
use crate::installation::{self, Names, OPERATOR_LOGIN, SYSTEM_DATABASE};
use crate::interposer::Interposer;
use crate::kubectl::Kubectl;
use crate::operator::{Operator, OperatorOptions};
use crate::paths::RunDirectory;
use crate::postgres::{self, Postgres, PostgresOptions};
use crate::process::Lifetime;
use crate::webhook::{self, InstalledWebhook};
use crate::{ports, progress, rights};

/// How an environment is started.
#[derive(Clone, Debug, Default)]
pub struct EnvironmentOptions {
    /// The `tenantry` binary; in an integration test `env!("CARGO_BIN_EXE_tenantry").into()`.
    pub tenantry: PathBuf,
    /// Options of the PostgreSQL server.
    pub postgres: PostgresOptions,
    /// Options of the control plane.
    pub control_plane: ControlPlaneOptions,
    /// Options of the operator's installation.
    pub installation: InstallationOptions,
}

/// How an operator is installed.
#[derive(Clone, Debug, Default)]
pub struct InstallationOptions {
    /// The names of its objects in the cluster.
    pub names: Names,
    /// The namespaces whose tenants the operator watches; all of them when empty.
    pub watch_namespaces: Vec<String>,
    /// The Lease's name, if not the default.
    pub lease_name: Option<String>,
    /// Additional arguments for `tenantry run`.
    pub arguments: Vec<String>,
    /// Additional environment variables for it.
    pub environment: Vec<(String, String)>,
    /// Whether the API server records which users change objects. Only if the CRDs are not installed yet.
    pub records_users: bool,
    /// What is asked of the operator's admission webhook.
    pub webhook: InstalledWebhook,
    /// The cluster has the CRDs and the plans already.
    pub crds_installed: bool,
    /// Labels of the `DatabaseServer`.
    pub server_labels: BTreeMap<String, String>,
    /// Whether the operator reaches PostgreSQL and the API server through proxies that can inject faults:
    /// `Installation::interposer`. Tenants' connection Secrets use the proxy too.
    pub interposed: bool,
}

/// An operator with a PostgreSQL server of its own on a shared control plane. Both end when this is dropped; the
/// objects in the cluster stay.
#[derive(Debug)]
pub struct Installation {
    operator: Operator,
    interposer: Option<Interposer>,
    postgres: Postgres,
    registry_url: String,
    options: OperatorOptions,
    run: RunDirectory,
}

impl Installation {
    /// Starts and prepares PostgreSQL, applies CRDs, plans, the operator's rights and the `DatabaseServer`, starts the
    /// operator under these rights and waits until it leads. The namespaces that it watches exist.
    pub async fn start(
        tenantry: PathBuf,
        kubectl: &Kubectl,
        postgres: PostgresOptions,
        options: InstallationOptions,
    ) -> Result<Self> {
        let postgres = Postgres::start(postgres).await?;
        Self::install(tenantry, kubectl, postgres, options).await
    }

    async fn install(
        tenantry: PathBuf,
        kubectl: &Kubectl,
        postgres: Postgres,
        options: InstallationOptions,
    ) -> Result<Self> {
        let step = progress::step("installing the operator");
        let outcome = async {
            let password = postgres::password();
            if options.crds_installed {
                installation::set_up_server(&tenantry, &postgres, &password).await?;
            } else {
                let (server, crds) = tokio::join!(
                    installation::set_up_server(&tenantry, &postgres, &password),
                    installation::install_crds(&tenantry, kubectl),
                );
                server.and(crds)?;
                installation::install_plans(kubectl).await?;
                match (options.records_users, options.webhook) {
                    (true, InstalledWebhook::Stamps) => webhook::install_policy(kubectl).await?,
                    (true, _) => installation::install_user_records(kubectl).await?,
                    (false, _) => {}
                }
            }
            let scope = rights::Scope {
                namespace: &options.names.namespace,
                watched: &options.watch_namespaces,
                lease: options.lease_name.as_deref(),
            };
            installation::install_rights(kubectl, scope).await?;
            let webhook_port = match options.webhook {
                InstalledWebhook::None => None,
                asked => {
                    let port = ports::free()?;
                    webhook::install(kubectl, scope, port, asked).await?;
                    Some(port)
                }
            };
            let run = RunDirectory::new()?;
            let own = run.path().join("kubeconfig");
            rights::write_kubeconfig(kubectl.kubeconfig()?, scope.namespace, rights::ACCOUNT, &own).await?;
            let interposer = if options.interposed {
                Some(Interposer::start(postgres.port(), read_config(&own).await?)?)
            } else {
                None
            };
            let registry_at = |port| postgres::url(port, OPERATOR_LOGIN, &password, SYSTEM_DATABASE);
            let (port, kubeconfig) = match &interposer {
                Some(interposer) => (interposer.postgres().port(), interposer.api().kubeconfig()),
                None => (postgres.port(), own.as_path()),
            };
            installation::install_server(kubectl, &options.names, &options.server_labels, port, &password)
                .await?;
            let operator_options = OperatorOptions {
                binary: tenantry,
                kubeconfig: kubeconfig.to_owned(),
                registry_url: registry_at(port),
                namespace: options.names.namespace,
                watch_namespaces: options.watch_namespaces,
                lease_name: options.lease_name,
                webhook: webhook_port,
                arguments: options.arguments,
                environment: options.environment,
            };
            let operator = Operator::new(&operator_options, run.path(), ports::free()?, Lifetime::WithParent);
            operator.start().await?;
            let registry_url = registry_at(postgres.port());
            Ok(Self { operator, interposer, postgres, registry_url, options: operator_options, run })
        };
        step.end(outcome.await)
    }

    /// The operator.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The PostgreSQL server.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The proxies between the operator and its servers, if it was installed `interposed`.
    pub fn interposer(&self) -> Option<&Interposer> {
        self.interposer.as_ref()
    }

    /// The registry's URL with the operator's login, without a proxy.
    pub fn registry_url(&self) -> &str {
        &self.registry_url
    }

    /// How the operator is started: through the proxies, if it was installed `interposed`.
    pub fn operator_options(&self) -> &OperatorOptions {
        &self.options
    }

    /// Another replica of the operator, not started; `change` may change its options.
    pub fn replica(&self, change: impl FnOnce(&mut OperatorOptions)) -> Result<Operator> {
        let mut options = self.options.clone();
        // The API server asks the first one.
        options.webhook = options.webhook.map(|_| ports::free()).transpose()?;
        change(&mut options);
        let port = ports::free()?;
        let directory = crate::paths::directory(self.run.path().join(format!("replica-{port}")), 0o700)?;
        Ok(Operator::new(&options, &directory, port, Lifetime::WithParent))
    }
}

/// A complete environment for tests: one per test run, or one for a single test. It ends and is removed when dropped.
#[derive(Debug)]
pub struct Environment {
    // Dropped before the control plane, so that the operator ends first.
    installation: Installation,
    control_plane: ControlPlane,
}

impl Environment {
    /// Starts control plane and PostgreSQL, installs the operator and waits until it leads. Afterwards the plans, the
    /// namespaces `tenantry-system` and `customers` and the `DatabaseServer` `default` exist.
    pub async fn start(options: EnvironmentOptions) -> Result<Self> {
        let (control_plane, postgres) =
            tokio::join!(ControlPlane::start(options.control_plane), Postgres::start(options.postgres));
        let (control_plane, postgres) = (control_plane?, postgres?);
        let kubectl = control_plane.kubectl();
        let installation =
            Installation::install(options.tenantry, &kubectl, postgres, options.installation).await?;
        Ok(Self { installation, control_plane })
    }

    /// As `start`, on a thread of its own: for an environment that all tests of a run share, and that outlives the
    /// runtime of the test which creates it.
    pub fn start_blocking(options: EnvironmentOptions) -> Result<Self> {
        on_a_thread(move || Self::start(options))
    }

    /// The control plane.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// The operator and its PostgreSQL server.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }
}

impl Deref for Environment {
    type Target = Installation;

    fn deref(&self) -> &Installation {
        &self.installation
    }
}

/// Runs a future to its end on a thread with a runtime of its own.
pub fn on_a_thread<T, F>(make: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| Error::message(format!("no runtime: {error}")))?.block_on(make())
    });
    thread.join().map_err(|_| Error::message("the thread that starts the environment panicked"))?
}
