//! Install, upgrade, rollback, uninstall and install again, with `helm --wait`, on a real control plane. The pods of the
//! Deployment are processes of the operator's binary under the chart's ServiceAccount (`tenantry_dev::kubelet`).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Pod, Secret},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;
use tenantry::api::{plan::TenantPlan, tenant_status::Access};
use tenantry_dev::{
    ControlPlane, ControlPlaneOptions, Postgres, PostgresOptions,
    helm::{Helm, chart},
    installation::{self, CUSTOMERS, Names, OPERATOR_LOGIN, SYSTEM_DATABASE},
    kubelet::Kubelet,
};
use tenantry_test_support::{Fleet, Wait};

const OPERATORS: &str = "tenantry-system";
const PASSWORD: &str = "operator-password";

/// A cluster and a PostgreSQL that are prepared as docs/install.md says.
struct Prepared {
    helm: Helm,
    fleet: Fleet,
    // The processes of pods end first.
    _kubelet: Kubelet,
    postgres: Postgres,
    plane: ControlPlane,
}

impl Prepared {
    /// With Helm 4, or with Helm 3.
    async fn with(three: bool) -> Self {
        let (plane, postgres) = tokio::join!(
            ControlPlane::start(ControlPlaneOptions::default()),
            Postgres::start(PostgresOptions::default())
        );
        let (plane, postgres) = (plane.unwrap(), postgres.unwrap());
        let binary = std::path::PathBuf::from(env!("CARGO_BIN_EXE_tenantry"));
        installation::set_up_server(&binary, &postgres, PASSWORD).await.unwrap();
        let kubectl = plane.kubectl();
        installation::install_namespaces(&kubectl, OPERATORS).await.unwrap();
        // Pods that are less restricted are refused.
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        kubectl.run(&["label", "namespace", OPERATORS, restricted]).await.unwrap();
        let url = postgres.url(OPERATOR_LOGIN, PASSWORD, SYSTEM_DATABASE);
        let registry = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tenantry-registry", "namespace": OPERATORS},
            "stringData": {"url": url},
        });
        kubectl.apply(&registry.to_string()).await.unwrap();
        let kubeconfig = plane.kubeconfig();
        let helm =
            if three { Helm::three(Some(&kubeconfig)).await } else { Helm::new(Some(&kubeconfig)).await };
        let fleet = Fleet::of(plane.client().await.unwrap(), CUSTOMERS, plane.api_server().log());
        Self {
            helm: helm.unwrap(),
            _kubelet: Kubelet::start(binary, kubeconfig, OPERATORS).await.unwrap(),
            fleet,
            postgres,
            plane,
        }
    }

    /// `helm VERB tenantry CHART`, waiting, with these arguments.
    async fn run(&self, verb: &str, more: &[&str]) -> tenantry_dev::Result<String> {
        let chart = chart().display().to_string();
        let release = [verb, "tenantry", &chart, "--namespace", OPERATORS, "--wait", "--timeout", "120s"];
        self.helm.run(&[&release[..], &["--set", "image.repository=tenantry"], more].concat()).await
    }

    /// For some seconds after the CRDs are created, the API server cannot apply the policies that record users.
    async fn declare_server(&self) {
        let names = Names::default();
        let (kubectl, port) = (self.plane.kubectl(), self.postgres.port());
        let wait = Wait::until("the API server takes a DatabaseServer");
        let declare = async || {
            let declared =
                installation::install_server(&kubectl, &names, &BTreeMap::new(), port, PASSWORD).await;
            declared.map_err(|error| error.to_string())
        };
        wait.observe(declare).await;
    }

    async fn deployment(&self) -> Deployment {
        Api::namespaced(self.fleet.client.clone(), OPERATORS).get("tenantry").await.unwrap()
    }

    /// What belongs to tenants and must outlive a release: uids of CRDs, plans, Tenants and their Secrets.
    async fn kept(&self) -> BTreeMap<String, String> {
        let client = &self.fleet.client;
        let all = ListParams::default();
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        let plans: Api<TenantPlan> = Api::all(client.clone());
        let mut kept = BTreeMap::new();
        let mut keep = |kind: &str, name: String, uid: Option<String>| {
            kept.insert(format!("{kind}/{name}"), uid.unwrap());
        };
        crds.list(&all).await.unwrap().iter().for_each(|it| keep("crd", it.name_any(), it.uid()));
        plans.list(&all).await.unwrap().iter().for_each(|it| keep("plan", it.name_any(), it.uid()));
        let tenants = self.fleet.tenants.list(&all).await.unwrap();
        tenants.iter().for_each(|it| keep("tenant", it.name_any(), it.uid()));
        let secrets: Api<Secret> = self.fleet.secrets.clone();
        secrets.list(&all).await.unwrap().iter().for_each(|it| keep("secret", it.name_any(), it.uid()));
        kept
    }
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn release_is_installed_upgraded_rolled_back_and_installed_again() {
    let prepared = Prepared::with(false).await;
    let fleet = &prepared.fleet;

    let plans = ["--set", "plans.install=true"];
    let error = prepared.run("install", &plans).await.unwrap_err().to_string();
    assert!(error.contains("plans.install: the kind TenantPlan does not exist yet"), "{error}");
    let notes = prepared.run("install", &[]).await.unwrap();
    assert!(notes.contains("kubectl explain databaseserver.spec"), "{notes}");
    prepared.declare_server().await;
    prepared.run("upgrade", &plans).await.unwrap();
    fleet.apply("acme", json!({})).await;
    fleet.ready("acme").await;
    fleet.login("acme").await.unwrap();
    let kept = prepared.kept().await;
    for name in ["crd/tenants.tenantry.dev", "plan/starter", "tenant/acme", "secret/acme-db"] {
        assert!(kept.contains_key(name), "{name}: {kept:?}");
    }

    prepared
        .run("upgrade", &["--rollback-on-failure", "--reuse-values", "--set", "concurrency=8"])
        .await
        .unwrap();
    let arguments = |deployment: Deployment| {
        let pod = deployment.spec.unwrap().template.spec.unwrap();
        pod.containers.into_iter().next().unwrap().args.unwrap()
    };
    let upgraded = arguments(prepared.deployment().await);
    assert!(upgraded.contains(&"--concurrency=8".to_owned()), "{upgraded:?}");

    // Its pods never start: the Secret does not exist. The old replicas go on meanwhile, and the release is as before.
    let broken = ["--rollback-on-failure", "--reuse-values", "--timeout", "15s"];
    let broken = [&broken[..], &["--set", "registry.urlSecret.name=missing"]].concat();
    let error = prepared.run("upgrade", &broken).await.unwrap_err().to_string();
    assert!(error.contains("rolled back"), "{error}");
    assert_eq!(arguments(prepared.deployment().await), upgraded);
    fleet.apply("globex", json!({})).await;
    fleet.ready("globex").await;
    assert!(prepared.kept().await.keys().cloned().collect::<Vec<_>>().len() > kept.len());

    let kept = prepared.kept().await;
    prepared.helm.run(&["uninstall", "tenantry", "--namespace", OPERATORS, "--wait"]).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(fleet.client.clone(), OPERATORS);
    Wait::until("no pod is left")
        .is_true(async || pods.list(&Default::default()).await.unwrap().items.is_empty())
        .await;
    assert_eq!(prepared.kept().await, kept);
    fleet.login("acme").await.unwrap();

    prepared.run("install", &plans).await.unwrap();
    assert_eq!(prepared.kept().await, kept);
    fleet.apply("acme", json!({"state": "Suspended", "stateReason": "unpaid"})).await;
    fleet.access("acme", Access::Blocked).await;
    fleet.apply("acme", json!({})).await;
    fleet.access("acme", Access::ReadWrite).await;
    fleet.login("acme").await.unwrap();
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn helm_3_installs_upgrades_rolls_back_and_uninstalls() {
    let prepared = Prepared::with(true).await;
    let fleet = &prepared.fleet;

    prepared.run("install", &[]).await.unwrap();
    prepared.declare_server().await;
    prepared.run("upgrade", &["--reuse-values", "--set", "plans.install=true"]).await.unwrap();
    fleet.apply("initech", json!({})).await;
    fleet.ready("initech").await;
    let kept = prepared.kept().await;
    assert!(kept.contains_key("plan/starter") && kept.contains_key("tenant/initech"), "{kept:?}");

    // What Helm 4 calls --rollback-on-failure.
    let broken =
        ["--atomic", "--reuse-values", "--timeout", "15s", "--set", "registry.urlSecret.name=missing"];
    let error = prepared.run("upgrade", &broken).await.unwrap_err().to_string();
    assert!(error.contains("rolled back"), "{error}");

    let placed = ["--namespace", OPERATORS, "--wait", "--timeout", "120s"];
    prepared.helm.run(&[&["rollback", "tenantry", "2"][..], &placed].concat()).await.unwrap();
    prepared.helm.run(&[&["uninstall", "tenantry"][..], &placed].concat()).await.unwrap();
    let deployments: Api<Deployment> = Api::namespaced(fleet.client.clone(), OPERATORS);
    assert!(deployments.list(&ListParams::default()).await.unwrap().items.is_empty());
    assert_eq!(prepared.kept().await, kept);
    fleet.login("initech").await.unwrap();

    prepared.run("install", &["--set", "plans.install=true"]).await.unwrap();
    assert_eq!(prepared.kept().await, kept);
    fleet.ready("initech").await;
}
