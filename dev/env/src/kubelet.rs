//! What the control plane lacks to run a Deployment of the operator: the pods of a namespace are processes of the operator's
//! binary, with the arguments, the environment and the ServiceAccount of the pod; their status follows the readiness
//! probe. The status of PodDisruptionBudgets is written too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::control_plane::read_config;
use crate::error::{Error, Result};
use crate::paths::RunDirectory;
use crate::process::{End, Launch, Lifetime, Signal};
use crate::service::Service;
use crate::{operator, ports, process, progress, rights};

const PERIOD: Duration = Duration::from_millis(200);

/// Runs the pods of one namespace until it is dropped; their processes end then.
#[derive(Debug)]
pub struct Kubelet {
    task: JoinHandle<()>,
}

struct Node {
    client: Client,
    namespace: String,
    binary: PathBuf,
    administrator: PathBuf,
    processes: BTreeMap<String, Process>,
    run: RunDirectory,
}

/// The process of a pod.
struct Process {
    service: Service,
    port: u16,
    /// The last status that was written.
    ready: Option<bool>,
}

impl Kubelet {
    /// Runs the pods of a namespace with this binary, as a task of this runtime. `administrator` is the kubeconfig of the
    /// cluster's administrator.
    pub async fn start(binary: PathBuf, administrator: PathBuf, namespace: &str) -> Result<Self> {
        let mut node = Node {
            client: Client::try_from(read_config(&administrator).await?)?,
            namespace: namespace.to_owned(),
            binary,
            administrator,
            processes: BTreeMap::new(),
            run: RunDirectory::new()?,
        };
        let task = tokio::spawn(async move {
            let mut period = tokio::time::interval(PERIOD);
            let mut reported = String::new();
            loop {
                period.tick().await;
                if let Err(error) = node.sync().await {
                    let error = error.to_string();
                    if error != reported {
                        progress::line(&format!("  pods of {}: {error}", node.namespace));
                        reported = error;
                    }
                }
            }
        });
        Ok(Self { task })
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    async fn sync(&mut self) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let all = pods.list(&ListParams::default()).await?.items;
        let uids: BTreeSet<String> = all.iter().filter_map(ResourceExt::uid).collect();
        let ended: Vec<String> = self.processes.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        for uid in ended {
            if let Some(process) = self.processes.remove(&uid) {
                process.service.stop(Signal::TERM, Duration::from_secs(30)).await?;
            }
        }
        for pod in all.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            if pod.spec.as_ref().is_some_and(|spec| spec.restart_policy.as_deref() == Some("Never")) {
                self.run_once(&pods, pod).await?;
                continue;
            }
            let uid = pod.uid().unwrap_or_default();
            if !self.processes.contains_key(&uid) {
                let process = self.launch(pod).await?;
                process.service.start()?;
                self.processes.insert(uid.clone(), process);
            }
            let Some(process) = self.processes.get_mut(&uid) else { continue };
            // As a container that exits is restarted.
            process.service.start()?;
            let ready = matches!(operator::get(process.port, "/readyz").await, Ok((200, _)));
            if process.ready != Some(ready) {
                write_status(&pods, pod, ready).await?;
                process.ready = Some(ready);
            }
        }
        let ready = self.processes.values().filter(|process| process.ready == Some(true)).count();
        self.write_budgets(ready).await
    }

    /// Runs a pod to its end. What it asks of the Service is answered by a replica that is ready.
    async fn run_once(&self, pods: &Api<Pod>, pod: &Pod) -> Result<()> {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return Ok(());
        }
        let Some(replica) = self.processes.values().find(|process| process.ready == Some(true)) else {
            return Ok(());
        };
        let container = pod.spec.iter().flat_map(|spec| &spec.containers).next();
        let arguments = container.into_iter().flat_map(|container| container.args.iter().flatten());
        let arguments: Vec<String> = arguments
            .map(|argument| match argument.strip_prefix("http://").and_then(|rest| rest.split_once('/')) {
                Some((_, path)) => format!("http://127.0.0.1:{}/{path}", replica.port),
                None => argument.clone(),
            })
            .collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let phase = match process::run(&self.binary, &arguments, None).await {
            Ok(_) => "Succeeded",
            Err(error) => {
                progress::line(&format!("  {}: {error}", pod.name_any()));
                "Failed"
            }
        };
        let status = json!({"status": {"phase": phase}});
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }

    /// How the pod's container is run here. An error where a kubelet could not create it either.
    async fn launch(&self, pod: &Pod) -> Result<Process> {
        let spec = pod.spec.as_ref().ok_or_else(|| Error::message("a pod without a spec"))?;
        let container = spec.containers.first().ok_or_else(|| Error::message("a pod without a container"))?;
        let mounts_token = spec.volumes.iter().flatten().any(|volume| {
            let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
            sources.into_iter().any(|source| source.service_account_token.is_some())
        });
        if !mounts_token {
            return Err(Error::message("the pod mounts no token of its ServiceAccount"));
        }
        let directory = crate::paths::directory(self.run.path().join(pod.name_any()), 0o700)?;
        let kubeconfig = directory.join("kubeconfig");
        let account = spec.service_account_name.as_deref().unwrap_or("default");
        rights::write_kubeconfig(&self.administrator, &self.namespace, account, &kubeconfig).await?;
        let mounts = self.mount(spec, container, &directory).await?;
        let mut environment = vec![("KUBECONFIG".to_owned(), kubeconfig.display().to_string())];
        for variable in container.env.iter().flatten() {
            let mut value = self.value(variable, pod).await?;
            for (path, here) in &mounts {
                value = value.replace(path, here);
            }
            environment.push((variable.name.clone(), value));
        }
        let port = ports::free()?;
        let launch = Launch {
            name: pod.name_any(),
            program: self.binary.clone(),
            arguments: arguments(container, port),
            environment,
            log: directory.join("tenantry.log"),
            user: None,
            end: End::Kill,
        };
        Ok(Process { service: Service::new(launch, Lifetime::WithParent), port, ready: None })
    }

    /// Writes the mounted Secrets below the pod's directory. Returns each path in the container and where it is here.
    async fn mount(
        &self,
        spec: &PodSpec,
        container: &Container,
        directory: &Path,
    ) -> Result<Vec<(String, String)>> {
        let mut mounts = Vec::new();
        for volume in spec.volumes.iter().flatten() {
            let Some(source) = &volume.secret else { continue };
            let name = source.secret_name.as_deref().unwrap_or_default();
            let mut found =
                container.volume_mounts.iter().flatten().filter(|mount| mount.name == volume.name);
            let Some(mount) = found.next() else { continue };
            let here = directory.join(mount.mount_path.trim_start_matches('/'));
            let here = crate::paths::directory(here, 0o700)?;
            for item in source.items.iter().flatten() {
                let content = self.secret(name, &item.key).await?;
                crate::paths::write_secret(&here.join(&item.path), &content)?;
            }
            mounts.push((mount.mount_path.clone(), here.display().to_string()));
        }
        Ok(mounts)
    }

    async fn secret(&self, name: &str, key: &str) -> Result<String> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let missing = || Error::message(format!("the Secret {name} has no key {key}"));
        let secret = secrets.get_opt(name).await?.and_then(|secret| secret.data).ok_or_else(missing)?;
        let value = secret.get(key).ok_or_else(missing)?;
        Ok(String::from_utf8_lossy(&value.0).into_owned())
    }

    async fn value(&self, variable: &EnvVar, pod: &Pod) -> Result<String> {
        let Some(source) = &variable.value_from else {
            return Ok(variable.value.clone().unwrap_or_default());
        };
        if let Some(field) = &source.field_ref {
            return match field.field_path.as_str() {
                "metadata.uid" => Ok(pod.uid().unwrap_or_default()),
                "metadata.name" => Ok(pod.name_any()),
                path => Err(Error::message(format!("{}: {path} is not supported here", variable.name))),
            };
        }
        let key = source.secret_key_ref.as_ref();
        let key = key.ok_or_else(|| Error::message(format!("{} has no source", variable.name)))?;
        self.secret(&key.name, &key.key).await
    }

    /// As the disruption controller does.
    async fn write_budgets(&self, ready: usize) -> Result<()> {
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), &self.namespace);
        for budget in budgets.list(&ListParams::default()).await? {
            let before = budget.status.as_ref();
            let current = i32::try_from(ready).unwrap_or_default();
            let known = before.and_then(|status| status.observed_generation) == budget.metadata.generation;
            if known && before.is_some_and(|status| status.current_healthy == current) {
                continue;
            }
            let status = json!({"status": {
                "observedGeneration": budget.metadata.generation, "currentHealthy": current, "desiredHealthy": 1,
                "expectedPods": current, "disruptionsAllowed": (current - 1).max(0),
            }});
            budgets.patch_status(&budget.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await?;
        }
        Ok(())
    }
}

/// The container's arguments; its HTTP server listens on loopback, on a port of its own.
fn arguments(container: &Container, port: u16) -> Vec<String> {
    let all = container.args.iter().flatten().map(|argument| {
        if argument.starts_with("--http-address=") {
            format!("--http-address=127.0.0.1:{port}")
        } else {
            argument.clone()
        }
    });
    all.collect()
}

async fn write_status(pods: &Api<Pod>, pod: &Pod, ready: bool) -> Result<()> {
    let is = |ready: bool| if ready { "True" } else { "False" };
    let condition = |kind: &str, status: bool| json!({"type": kind, "status": is(status)});
    let container = pod.spec.iter().flat_map(|spec| &spec.containers).next();
    let (name, image) =
        container.map_or(("", ""), |found| (found.name.as_str(), found.image.as_deref().unwrap_or_default()));
    let status = json!({"status": {
        "phase": "Running",
        "conditions": [
            condition("PodScheduled", true), condition("Initialized", true),
            condition("ContainersReady", ready), condition("Ready", ready),
        ],
        "containerStatuses": [{
            "name": name, "image": image, "imageID": "", "ready": ready, "started": true, "restartCount": 0,
            "state": {"running": {}},
        }],
    }});
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}
