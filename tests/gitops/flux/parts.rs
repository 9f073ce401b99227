//! Flux on loopback: an S3 server as its source, source-controller and kustomize-controller.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    runtime::wait::{await_condition, conditions::is_deleted},
};
use serde_json::{Value, json};
use tenantry_dev::{
    ControlPlane,
    kubectl::Kubectl,
    paths::RunDirectory,
    ports,
    process::{End, Launch, Lifetime},
    service::Service,
    tools,
};
use tenantry_test_support::Wait;
use tokio::process::Command;

const NAMESPACE: &str = "flux-system";
const BUCKET: &str = "customers";
const KEY: &str = "flux";
const SECRET: &str = "flux-secret";

/// Flux, and the bucket that it reconciles. Its processes end with it.
pub struct Flux {
    kubectl: Kubectl,
    client: Client,
    storage: String,
    kustomize_log: PathBuf,
    sources: ApiResource,
    kustomizations: ApiResource,
    _services: Vec<Service>,
    _run: RunDirectory,
}

fn resource(group: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(&format!("{group}.toolkit.fluxcd.io"), "v1", kind))
}

impl Flux {
    /// Installs Flux's CRDs and starts its parts.
    pub async fn start(plane: &ControlPlane) -> Self {
        let kubectl = plane.kubectl();
        let run = RunDirectory::new().unwrap();
        let mut flux = Self {
            client: plane.client().await.unwrap(),
            storage: format!("http://127.0.0.1:{}", ports::free().unwrap()),
            kustomize_log: run.path().join("kustomize-controller.log"),
            sources: resource("source", "Bucket"),
            kustomizations: resource("kustomize", "Kustomization"),
            kubectl,
            _services: Vec::new(),
            _run: run,
        };
        flux.start_storage().await;
        let source_address = format!("127.0.0.1:{}", ports::free().unwrap());
        let artifacts = flux.directory("artifacts");
        let arguments = [
            format!("--storage-path={artifacts}"),
            format!("--storage-addr={source_address}"),
            format!("--storage-adv-addr={source_address}"),
        ];
        flux.start_controller("source-controller", plane, arguments.into()).await;
        let arguments = ["--requeue-dependency=1s".to_owned()];
        flux.start_controller("kustomize-controller", plane, arguments.into()).await;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        let secret = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": BUCKET, "namespace": NAMESPACE},
            "stringData": {"accesskey": KEY, "secretkey": SECRET}});
        flux.kubectl.apply(&namespace.to_string()).await.unwrap();
        flux.kubectl.apply(&secret.to_string()).await.unwrap();
        flux
    }

    /// A new directory of this run.
    fn directory(&self, name: &str) -> String {
        let path = self._run.path().join(name);
        fs::create_dir(&path).unwrap();
        path.display().to_string()
    }

    fn start_process(
        &mut self,
        name: &str,
        program: &Path,
        arguments: Vec<String>,
        environment: &[(&str, &str)],
    ) {
        let launch = Launch {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments,
            environment: environment.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            log: self._run.path().join(format!("{name}.log")),
            user: None,
            end: End::Kill,
        };
        let service = Service::new(launch, Lifetime::WithParent);
        service.start().unwrap();
        self._services.push(service);
    }

    async fn start_storage(&mut self) {
        let program = tools::find("versitygw").await.unwrap();
        let data = self.directory("data");
        let address = self.storage.strip_prefix("http://").unwrap().to_owned();
        let arguments = ["--port", &address, "posix", &data].map(str::to_owned).to_vec();
        let keys = [("ROOT_ACCESS_KEY", KEY), ("ROOT_SECRET_KEY", SECRET)];
        self.start_process("versitygw", &program, arguments, &keys);
        let wait = Wait::until("the bucket exists").log(&self._run.path().join("versitygw.log"));
        wait.observe(async || self.try_curl(&["-X", "PUT"], "").await).await;
    }

    async fn start_controller(&mut self, name: &str, plane: &ControlPlane, mut arguments: Vec<String>) {
        let program = tools::find(name).await.unwrap();
        let crds = program.with_file_name("crds").display().to_string();
        let crds = ["apply", "--server-side", "-f", &crds];
        self.kubectl.run(&crds).await.unwrap();
        let (metrics, health) = (ports::free().unwrap(), ports::free().unwrap());
        arguments.extend([
            format!("--metrics-addr=127.0.0.1:{metrics}"),
            format!("--health-addr=127.0.0.1:{health}"),
            "--enable-leader-election=false".to_owned(),
            "--watch-all-namespaces=true".to_owned(),
            "--log-encoding=json".to_owned(),
        ]);
        let kubeconfig = plane.kubeconfig().display().to_string();
        let temporary = self.directory(&format!("{name}-tmp"));
        let environment =
            [("KUBECONFIG", &*kubeconfig), ("RUNTIME_NAMESPACE", NAMESPACE), ("TMPDIR", &temporary)];
        self.start_process(name, &program, arguments, &environment);
    }

    /// A signed request to the S3 server.
    async fn try_curl(&self, arguments: &[&str], path: &str) -> Result<(), String> {
        let url = format!("{}/{BUCKET}/{path}", self.storage);
        let user = format!("{KEY}:{SECRET}");
        let common = ["--silent", "--show-error", "--fail", "--noproxy", "*", "--user", &user];
        let mut curl = Command::new("curl");
        curl.args(common).args(["--aws-sigv4", "aws:amz:us-east-1:s3"]);
        curl.args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]).args(arguments).arg(url);
        let output = curl.kill_on_drop(true).output().await.unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Writes a file of the repository.
    pub async fn put(&self, path: &str, content: &str) {
        let local = self._run.path().join("upload");
        fs::write(&local, content).unwrap();
        self.try_curl(&["--upload-file", &local.display().to_string()], path).await.unwrap();
    }

    /// Removes a file of the repository.
    pub async fn remove(&self, path: &str) {
        self.try_curl(&["-X", "DELETE"], path).await.unwrap();
    }

    /// Applies the examples, with the bucket instead of their GitRepository.
    pub async fn apply(&self, manifests: &str) {
        let objects: Vec<Value> = serde_saphyr::from_multiple(manifests).unwrap();
        for mut object in objects {
            if object["kind"] == "GitRepository" {
                object["kind"] = json!("Bucket");
                object["spec"] = json!({
                    "interval": "10m", "provider": "generic", "bucketName": BUCKET, "insecure": true,
                    "endpoint": self.storage.strip_prefix("http://"), "secretRef": {"name": BUCKET},
                });
            } else {
                object["spec"]["sourceRef"]["kind"] = json!("Bucket");
            }
            self.kubectl.apply(&object.to_string()).await.unwrap();
        }
    }

    fn api(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), NAMESPACE, resource)
    }

    /// Asks for a reconcile of an object, and waits until it has been done.
    async fn request(&self, resource: &ApiResource, name: &str) -> DynamicObject {
        let token = uuid::Uuid::new_v4().to_string();
        let patch = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": token}}});
        let api = self.api(resource);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        let wait = Wait::until(format!("{} {name} is reconciled", resource.kind)).log(&self.kustomize_log);
        wait.observe(async || {
            let object = api.get(name).await.unwrap();
            if object.data["status"]["lastHandledReconcileAt"] == token {
                Ok(object)
            } else {
                Err(object.data)
            }
        })
        .await
    }

    /// Has the source read the bucket now, and the Kustomizations reconcile what they find.
    pub async fn fetch(&self) {
        self.request(&self.sources, BUCKET).await;
    }

    /// Has a Kustomization reconcile now.
    pub async fn reconcile(&self, name: &str) {
        self.request(&self.kustomizations, name).await;
    }

    /// Waits until `Ready` of a Kustomization is so for the newest content of the bucket; returns its message.
    async fn until(&self, name: &str, status: &str) -> String {
        let (sources, kustomizations) = (self.api(&self.sources), self.api(&self.kustomizations));
        let wait = Wait::until(format!("Kustomization {name} is Ready={status}")).log(&self.kustomize_log);
        wait.observe(async || {
            let source = sources.get(BUCKET).await.unwrap();
            let object = kustomizations.get(name).await.unwrap();
            let revision = &source.data["status"]["artifact"]["revision"];
            let field = if status == "True" { "lastAppliedRevision" } else { "lastAttemptedRevision" };
            let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
            let found = ready.filter(|ready| ready["status"] == status && ready["reason"] != "Progressing");
            match found {
                Some(ready) if revision.is_string() && object.data["status"][field] == *revision => {
                    Ok(ready["message"].as_str().unwrap().to_owned())
                }
                _ => Err(object.data["status"].clone()),
            }
        })
        .await
    }

    /// Waits until a Kustomization has applied the bucket's content and everything in it is ready.
    pub async fn ready(&self, name: &str) {
        self.until(name, "True").await;
    }

    /// Waits until a Kustomization has failed with the bucket's content; returns its message.
    pub async fn failed(&self, name: &str) -> String {
        self.until(name, "False").await
    }

    /// What the last server-side apply of a Kustomization changed, by its log.
    pub fn last_applied(&self, name: &str) -> String {
        let log = fs::read_to_string(&self.kustomize_log).unwrap();
        let mut lines = log.lines().filter(|line| line.contains("server-side apply") && line.contains(name));
        lines.next_back().unwrap().to_owned()
    }

    /// Deletes a Kustomization and waits until it is gone.
    pub async fn delete(&self, name: &str) {
        let api = self.api(&self.kustomizations);
        let uid = api.get(name).await.unwrap().metadata.uid.unwrap();
        api.delete(name, &DeleteParams::default()).await.unwrap();
        let wait = Wait::until(format!("Kustomization {name} is deleted"));
        wait.future(await_condition(api, name, is_deleted(&uid))).await.unwrap();
    }
}
