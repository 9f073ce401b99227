//! What an operator needs before it starts: its roles on a PostgreSQL server and its objects in a cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Context, Error, Result};
use crate::kubectl::Kubectl;
use crate::postgres::Postgres;
use crate::{paths, process, rights};

/// The operator's login on every PostgreSQL server of an environment.
pub const OPERATOR_LOGIN: &str = "tenantry_operator";
/// The database of the registry.
pub const SYSTEM_DATABASE: &str = "tenantry_system";
/// The namespace of the examples, and of most tests that run one operator.
pub const CUSTOMERS: &str = "customers";
/// Longer than the API server needs for new policies.
const IN_FORCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The names of one installation's objects: several installations can share a cluster.
#[derive(Clone, Debug)]
pub struct Names {
    /// The operator's namespace.
    pub namespace: String,
    /// The `DatabaseServer`.
    pub server: String,
    /// The Secret with the operator's login, in the operator's namespace.
    pub secret: String,
}

impl Default for Names {
    fn default() -> Self {
        let [namespace, server, secret] = ["tenantry-system", "default", "db-admin"].map(str::to_owned);
        Self { namespace, server, secret }
    }
}

/// Runs `tenantry server-setup`: creates the operator's roles and login and the registry's database. Idempotent.
pub async fn set_up_server(tenantry: &Path, postgres: &Postgres, operator_password: &str) -> Result<()> {
    let mut command = std::process::Command::new(tenantry);
    command.args(["server-setup", "--system-database", SYSTEM_DATABASE]);
    process::clear_environment(&mut command);
    command
        .env("TENANTRY_ADMIN_URL", postgres.admin_url("postgres"))
        .env("TENANTRY_OPERATOR_USER", OPERATOR_LOGIN)
        .env("TENANTRY_OPERATOR_PASSWORD", operator_password);
    process::text(command, "tenantry server-setup", b"").await.map(drop)
}

/// Applies the CRDs that the binary contains, and waits until the API server serves them.
pub async fn install_crds(tenantry: &Path, kubectl: &Kubectl) -> Result<()> {
    let mut command = std::process::Command::new(tenantry);
    command.arg("crds");
    process::clear_environment(&mut command);
    let manifests = process::text(command, "tenantry crds", b"").await?;
    let applied = kubectl
        .run_with(&["apply", "--server-side", "--force-conflicts", "-o", "name", "-f", "-"], &manifests)
        .await?;
    let mut wait = vec!["wait", "--for=condition=Established", "--timeout=60s"];
    wait.extend(applied.lines());
    kubectl.run(&wait).await.map(drop)
}

/// Applies the operator's namespace and `customers`. Before the objects in them: kubectl does not always apply the items of a
/// list in order.
pub async fn install_namespaces(kubectl: &Kubectl, operators: &str) -> Result<()> {
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    kubectl.apply(&list(&[namespace(operators), namespace(CUSTOMERS)])).await.map(drop)
}

/// Applies the operator's namespace and its rights there, in the namespaces that it watches and in the cluster. Returns when
/// they are in force.
pub async fn install_rights(kubectl: &Kubectl, scope: rights::Scope<'_>) -> Result<()> {
    install_namespaces(kubectl, scope.namespace).await?;
    kubectl.apply(&list(&rights::objects(scope)?)).await?;
    rights::wait_in_force(kubectl.kubeconfig()?, scope).await
}

/// Applies the Secret with the operator's login, and the `DatabaseServer` with these labels for the server on this port
/// of 127.0.0.1.
pub async fn install_server(
    kubectl: &Kubectl,
    names: &Names,
    labels: &BTreeMap<String, String>,
    port: u16,
    operator_password: &str,
) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": names.secret, "namespace": names.namespace},
        "stringData": {"username": OPERATOR_LOGIN, "password": operator_password},
    });
    let server = json!({
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "DatabaseServer",
        "metadata": {"name": names.server, "labels": labels},
        "spec": {
            "engine": "PostgreSQL",
            "host": "127.0.0.1",
            "port": port,
            "adminSecretRef": {"name": names.secret},
            "tls": {"mode": "Disable"},
        },
    });
    kubectl.apply(&list(&[secret, server])).await.map(drop)
}

/// Applies the admission policies that record users, and waits until they are in force: for some seconds after the CRDs are
/// created, the API server cannot apply them. The plans exist.
pub async fn install_user_records(kubectl: &Kubectl) -> Result<()> {
    let manifests = paths::checkout().join("manifests/actors.yaml");
    let text = std::fs::read_to_string(&manifests).at("reading", &manifests)?;
    kubectl.apply(&text).await?;
    let plan = json!({
        "apiVersion": "tenantry.dev/v1alpha1", "kind": "TenantPlan", "metadata": {"name": "recorded"}, "spec": {"limits": {"users": 1}},
    })
    .to_string();
    let record = ["create", "--dry-run=server", "-o", "jsonpath={.metadata.annotations}", "-f", "-"];
    let forge =
        ["annotate", "--overwrite", "--dry-run=server", "tenantplan", "free", "tenantry.dev/changes=forged"];
    let started = Instant::now();
    loop {
        let (recorded, forged) = tokio::join!(kubectl.run_with(&record, &plan), kubectl.run(&forge));
        let is_recorded = recorded.as_ref().is_ok_and(|found| found.contains("tenantry.dev/changes"));
        let is_refused = forged.as_ref().is_err_and(|error| error.to_string().contains("denied request"));
        if is_recorded && is_refused {
            return Ok(());
        }
        if started.elapsed() > IN_FORCE {
            return Err(Error::message(format!("users are not recorded: {recorded:?}, {forged:?}")));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Applies the four plans that ship with the product.
pub async fn install_plans(kubectl: &Kubectl) -> Result<()> {
    let path = plans()?;
    kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &path]).await.map(drop)
}

/// The directory of the four plans.
pub(crate) fn plans() -> Result<String> {
    let directory = paths::checkout().join("examples/plans");
    if !directory.is_dir() {
        return Err(Error::message("examples/plans is missing in this checkout"));
    }
    Ok(directory.display().to_string())
}
