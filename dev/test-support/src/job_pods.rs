//! What a kubelet does with the pods of migration Jobs: runs their command with their environment, and writes their status.

use std::{collections::HashMap, process::Command};

use k8s_openapi::{
    api::core::v1::{Pod, Secret},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tenantry::controller::tenant_module::job::{CONTAINER, LABEL_RUN};

/// The pods of the migration Jobs in a namespace, and their Secrets.
pub struct JobPods {
    pods: Api<Pod>,
    secrets: Api<Secret>,
}

impl JobPods {
    /// Those of a namespace.
    pub fn new(client: &Client, namespace: &str) -> Self {
        let (pods, secrets) = (client.clone(), client.clone());
        Self { pods: Api::namespaced(pods, namespace), secrets: Api::namespaced(secrets, namespace) }
    }

    /// The pods that have not ended.
    pub async fn waiting(&self) -> Vec<Pod> {
        let pods = self.pods.list(&ListParams::default().labels(LABEL_RUN)).await.unwrap().items;
        let is_open = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
        };
        pods.into_iter().filter(is_open).collect()
    }

    /// The Secrets of runs that are there.
    pub async fn secrets(&self) -> Vec<Secret> {
        self.secrets.list(&ListParams::default().labels(LABEL_RUN)).await.unwrap().items
    }

    /// Runs a pod's container, a tool that says how it connects, and writes the pod's status. Returns the exit code; none if the
    /// run was wound up, and its Secret is gone.
    pub async fn run(&self, pod: &Pod) -> Option<i32> {
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let mut variables = HashMap::new();
        for variable in container.env.iter().flatten() {
            let source = variable.value_from.as_ref().unwrap().secret_key_ref.as_ref().unwrap();
            let data = self.secrets.get_opt(&source.name).await.unwrap()?.data.unwrap();
            variables.insert(variable.name.clone(), String::from_utf8(data[&source.key].0.clone()).unwrap());
        }
        let expand = |argument: &String| {
            let replaced =
                |text: String, (name, value): (&String, &String)| text.replace(&format!("$({name})"), value);
            variables.iter().fold(argument.clone(), replaced)
        };
        let expanded: Vec<String> = container.command.iter().flatten().map(expand).collect();
        let mut command = Command::new(&expanded[0]);
        command
            .args(&expanded[1..])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(&variables);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let code = output.status.code().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        self.complete(pod, code, &format!("connected to {}\n{log}", variables["DATABASE_URL"])).await;
        Some(code)
    }

    async fn complete(&self, pod: &Pod, exit_code: i32, log: &str) {
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap().to_string();
        let (phase, reason) = if exit_code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
        let status = json!({"status": {"phase": phase, "containerStatuses": [{
            "name": CONTAINER, "image": "registry.example/shop:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": exit_code, "reason": reason, "message": log,
                "startedAt": now, "finishedAt": now}},
        }]}});
        self.pods
            .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }
}
