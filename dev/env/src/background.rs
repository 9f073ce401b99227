//! The environment of `make up`: it runs in the background until `make down`, one per checkout.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::control_plane::{ControlPlane, ControlPlanePorts, read_config};
use crate::error::{Context, Error, Result};
use crate::existing_cluster::{self, ExistingCluster};
use crate::installation::{self, Names, OPERATOR_LOGIN, SYSTEM_DATABASE};
use crate::kubectl::Kubectl;
use crate::operator::{Operator, OperatorOptions};
use crate::postgres::{self, Postgres, PostgresOptions};
use crate::process::{Lifetime, ProcessRecord, Signal};
use crate::webhook::{self, InstalledWebhook};
use crate::{paths, ports, progress, rights};

/// The properties of an environment. Its processes are recorded in a pid file each, beside their logs.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    control_plane: ControlPlanePorts,
    postgres: u16,
    operator: u16,
    /// The port of the admission webhook. An environment of an earlier checkout has none.
    #[serde(default)]
    webhook: Option<u16>,
    superuser_password: String,
    operator_password: String,
    /// A digest of the binary from which the operator was last started.
    operator_digest: String,
    /// Whether namespaces, plans and the `DatabaseServer` were applied. They are applied once: later changes are the user's.
    installed: bool,
    /// The address of the API server of an existing cluster, unless the control plane is the environment's own.
    existing: Option<String>,
    /// Whether objects may have been applied to the cluster.
    touched: bool,
}

/// An environment in the background.
#[derive(Debug)]
pub struct Background {
    /// None with an existing cluster.
    control_plane: Option<ControlPlane>,
    kubectl: Kubectl,
    operator: Operator,
    registry_url: String,
}

/// The directory of the state and data of this checkout's environment.
fn home() -> Result<PathBuf> {
    let digest = Sha256::digest(paths::checkout().as_os_str().as_encoded_bytes());
    let name = format!("up-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]);
    Ok(paths::persistent_root()?.join(name))
}

/// The directory in the checkout with the environment's file of variables and links to its programs.
fn dev() -> PathBuf {
    paths::checkout().join(".dev")
}

impl Background {
    /// Starts the parts that do not run, and restarts an operator that runs from another binary. `existing`: installs into
    /// the cluster of the user's kubeconfig and starts no control plane.
    pub async fn up(tenantry: &Path, existing: bool) -> Result<Self> {
        let home = paths::directory(home()?, paths::private_mode()?)?;
        let _lock = paths::lock(home.join("lock"), "another `make up` or `make down` runs").await?;
        let existing_cluster = if existing { Some(ExistingCluster::current().await?) } else { None };
        let address = existing_cluster.as_ref().map(|cluster| cluster.server.clone());
        let mut state = match State::read(&home)? {
            Some(state) if state.existing != address => {
                return Err(Error::message(
                    "an environment for another cluster is up: run `make down` first",
                ));
            }
            Some(state) => state,
            None => State::new(address)?,
        };
        let existing_kubectl = match existing_cluster {
            Some(cluster) => {
                let kubectl = cluster.pin(&home)?;
                if !state.touched {
                    existing_cluster::refuse_in_use(&kubectl).await?;
                }
                Some(kubectl)
            }
            None => None,
        };
        state.touched = true;
        state.write(&home)?;

        let on_disk = PostgresOptions { fsync: true, ..Default::default() };
        let (cluster, postgres) = tokio::join!(
            async {
                match existing_kubectl {
                    Some(kubectl) => Ok((kubectl, None)),
                    None => {
                        let plane = ControlPlane::start_detached(&home, state.control_plane).await?;
                        Ok::<_, Error>((plane.kubectl(), Some(plane)))
                    }
                }
            },
            Postgres::start_detached(&home, state.postgres, &state.superuser_password, &on_disk),
        );
        let ((kubectl, control_plane), postgres) = (cluster?, postgres?);

        let own = home.join("operator-kubeconfig");
        let options = OperatorOptions {
            binary: tenantry.to_owned(),
            // In the user's own cluster, the demo needs no rights but the user's.
            kubeconfig: if existing { kubectl.kubeconfig()?.to_owned() } else { own.clone() },
            registry_url: postgres.url(OPERATOR_LOGIN, &state.operator_password, SYSTEM_DATABASE),
            namespace: Names::default().namespace,
            // The API server of another cluster does not reach this machine.
            webhook: state.webhook.filter(|_| !existing),
            environment: if existing { existing_cluster::environment() } else { Vec::new() },
            ..Default::default()
        };
        let operator = Operator::new(&options, &home, state.operator, Lifetime::Detached);
        let digest = digest(tenantry)?;
        if digest != state.operator_digest {
            operator.stop().await?;
        }
        if digest != state.operator_digest || !state.installed {
            let step = progress::step("server setup, CRDs");
            let outcome = async {
                installation::set_up_server(tenantry, &postgres, &state.operator_password).await?;
                installation::install_crds(tenantry, &kubectl).await?;
                let namespace = Names::default().namespace;
                if existing {
                    installation::install_namespaces(&kubectl, &namespace).await?;
                } else {
                    let scope = rights::Scope { namespace: &namespace, watched: &[], lease: None };
                    installation::install_rights(&kubectl, scope).await?;
                    let administrator = kubectl.kubeconfig()?;
                    rights::write_kubeconfig(administrator, &namespace, rights::ACCOUNT, &own).await?;
                    if let Some(port) = state.webhook {
                        webhook::install(&kubectl, scope, port, InstalledWebhook::Checks).await?;
                    }
                }
                if !state.installed {
                    installation::install_plans(&kubectl).await?;
                    if !existing {
                        installation::install_user_records(&kubectl).await?;
                    }
                    let (names, password) = (Names::default(), &state.operator_password);
                    installation::install_server(
                        &kubectl,
                        &names,
                        &BTreeMap::new(),
                        postgres.port(),
                        password,
                    )
                    .await?;
                }
                Ok(())
            };
            step.end(outcome.await)?;
            (state.operator_digest, state.installed) = (digest, true);
            state.write(&home)?;
        }
        let step = progress::step(format!("operator on port {}", state.operator));
        step.end(operator.start().await)?;
        // Its first check creates a template database: the first tenant would wait for that.
        let ready = ["wait", "--for=condition=Ready", "databaseservers", "--all", "--timeout=60s"];
        let step = progress::step("DatabaseServer");
        if let Err(error) = step.end(kubectl.run(&ready).await) {
            progress::line(&format!("not every DatabaseServer is ready yet: {error}"));
        }

        let background = Self { control_plane, kubectl, operator, registry_url: options.registry_url };
        background.publish(tenantry, &postgres.admin_url("postgres"))?;
        Ok(background)
    }

    /// kubectl for the environment's cluster.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The operator.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The registry's URL with the operator's login.
    pub fn registry_url(&self) -> &str {
        &self.registry_url
    }

    /// A client of the environment's cluster, with the rights of its kubeconfig.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::try_from(read_config(self.kubectl.kubeconfig()?).await?)?)
    }

    /// Writes `.dev/env` and `.dev/bin`.
    fn publish(&self, tenantry: &Path, admin_url: &str) -> Result<()> {
        let bin = dev().join("bin");
        std::fs::create_dir_all(&bin).at("creating", &bin)?;
        let mut programs = vec![("tenantry", tenantry.to_owned())];
        let plugin = tenantry.with_file_name("kubectl-tenantry");
        if plugin.is_file() {
            programs.push(("kubectl-tenantry", plugin));
        }
        if let Some(plane) = &self.control_plane {
            programs.push(("kubectl", plane.binary().to_owned()));
        }
        for (name, target) in programs {
            let link = bin.join(name);
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(&target, &link).at("linking", &link)?;
        }
        let pid = self.operator.service().record().map(|record| record.pid.to_string()).unwrap_or_default();
        let mut text = "# Written by `make up`; read it into a shell with: . .dev/env\n".to_owned();
        for (name, value) in [
            ("KUBECONFIG", self.kubectl.kubeconfig()?.display().to_string()),
            ("TENANTRY_SYSTEM_DATABASE_URL", self.registry_url.clone()),
            ("DEV_PG_ADMIN_URL", admin_url.to_owned()),
            ("TENANTRY_HTTP", self.operator.base_url()),
            ("TENANTRY_LOG", self.operator.log().display().to_string()),
            ("TENANTRY_PID", pid),
        ] {
            let _ = writeln!(text, "export {name}={}", quoted(&value));
        }
        let bin = quoted(&bin.display().to_string());
        // A second reading of the file must not extend the path again.
        let _ = writeln!(text, "case \":$PATH:\" in *:{bin}:*) ;; *) export PATH={bin}:\"$PATH\" ;; esac");
        paths::write_secret(&dev().join("env"), &text)
    }
}

/// Stops the environment of this checkout and removes its data. Returns false if there is none.
pub async fn down() -> Result<bool> {
    let home = home()?;
    if !home.is_dir() {
        let _ = std::fs::remove_dir_all(dev());
        return Ok(false);
    }
    let _lock = paths::lock(home.join("lock"), "another `make up` or `make down` runs").await?;
    if State::read(&home)?.is_some_and(|state| state.existing.is_some() && state.touched) {
        // An unreachable cluster must not prevent the removal of the local parts.
        if let Err(error) = existing_cluster::clean_up(&home).await {
            progress::line(&format!("  your cluster could not be cleaned up: {error}"));
        }
    }
    let step = progress::step("stopping");
    // The operator before its dependencies. PostgreSQL ends sessions on SIGINT, and waits for them on SIGTERM.
    for (name, signal) in [
        ("tenantry", Signal::TERM),
        ("kube-controller-manager", Signal::TERM),
        ("kube-apiserver", Signal::TERM),
        ("etcd", Signal::TERM),
        ("postgres", Signal::INT),
    ] {
        if let Some(record) = ProcessRecord::read(&home.join(format!("{name}.pid"))) {
            end(record, signal).await?;
        }
    }
    drop(step);
    std::fs::remove_dir_all(&home).at("removing", &home)?;
    match std::fs::remove_dir_all(dev()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("removing", &dev()),
        _ => Ok(true),
    }
}

async fn end(record: ProcessRecord, signal: Signal) -> Result<()> {
    record.signal(signal)?;
    let started = std::time::Instant::now();
    while record.is_alive() {
        if started.elapsed() > Duration::from_secs(20) {
            record.signal(Signal::KILL)?;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

impl State {
    fn new(existing: Option<String>) -> Result<Self> {
        Ok(Self {
            control_plane: ControlPlanePorts::pick()?,
            postgres: ports::free()?,
            operator: ports::free()?,
            webhook: Some(ports::free()?),
            superuser_password: postgres::password(),
            operator_password: postgres::password(),
            operator_digest: String::new(),
            installed: false,
            existing,
            touched: false,
        })
    }

    fn read(home: &Path) -> Result<Option<Self>> {
        let path = home.join("state.json");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(serde_json::from_str(&text)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("reading", &path),
        }
    }

    /// Writes the file atomically.
    fn write(&self, home: &Path) -> Result<()> {
        let (new, path) = (home.join("state.new"), home.join("state.json"));
        paths::write_secret(&new, &serde_json::to_string_pretty(self)?)?;
        std::fs::rename(&new, &path).at("writing", &path)
    }
}

fn digest(file: &Path) -> Result<String> {
    let content = std::fs::read(file).at("reading", file)?;
    Ok(Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Quotes a text for a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_arguments_are_quoted() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
