//! What an operator needs around it: its rights on a PostgreSQL server, and its objects in a cluster.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Context, Error, Result};
use crate::kubectl::Kubectl;
use crate::places;
use crate::postgres::Postgres;
use crate::process;

/// The operator's login on every PostgreSQL server here.
pub const OPERATOR_LOGIN: &str = "tenantry_operator";
/// The registry's database.
pub const SYSTEM_DATABASE: &str = "tenantry_system";
/// The namespace that the examples and most tests of a single operator use.
pub const CUSTOMERS: &str = "customers";

/// The names of an installation, so that several can share a cluster.
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

/// Runs `tenantry server-setup`: the operator's roles and login, and the registry's database. Can be repeated.
pub async fn set_up_server(tenantry: &Path, postgres: &Postgres, operator_password: &str) -> Result<()> {
    let mut command = std::process::Command::new(tenantry);
    command.args(["server-setup", "--system-database", SYSTEM_DATABASE]).stdin(std::process::Stdio::null());
    process::bare(&mut command);
    command
        .env("TENANTRY_ADMIN_URL", postgres.admin_url("postgres"))
        .env("TENANTRY_OPERATOR_USER", OPERATOR_LOGIN)
        .env("TENANTRY_OPERATOR_PASSWORD", operator_password);
    finish(command, "tenantry server-setup").await.map(|_| ())
}

/// Applies the CRDs that the binary carries, and waits until the API server serves them.
pub async fn install_crds(tenantry: &Path, kubectl: &Kubectl) -> Result<()> {
    let mut command = std::process::Command::new(tenantry);
    command.arg("crds").stdin(std::process::Stdio::null());
    process::bare(&mut command);
    let manifests = finish(command, "tenantry crds").await?;
    let applied = kubectl
        .run_with(&["apply", "--server-side", "--force-conflicts", "-o", "name", "-f", "-"], &manifests)
        .await?;
    let mut wait = vec!["wait", "--for=condition=Established", "--timeout=60s"];
    wait.extend(applied.lines());
    kubectl.run(&wait).await.map(|_| ())
}

async fn finish(command: std::process::Command, what: &str) -> Result<String> {
    let output = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output()
        .await
        .context(format!("running {what}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Error::message(format!("{what} failed ({}): {}", output.status, words.trim())))
}

/// Applies the namespaces, the Secret with the operator's login and the `DatabaseServer`, with these labels, at this
/// port of 127.0.0.1.
pub async fn install_server(
    kubectl: &Kubectl,
    names: &Names,
    labels: &BTreeMap<String, String>,
    port: u16,
    operator_password: &str,
) -> Result<()> {
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
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
    // Namespaces first: what is applied together is not always applied in order.
    kubectl.apply(&list(&[namespace(&names.namespace), namespace(CUSTOMERS)])).await?;
    kubectl.apply(&list(&[secret, server])).await.map(|_| ())
}

fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Applies the four plans that ship with the product.
pub async fn install_plans(kubectl: &Kubectl) -> Result<()> {
    let path = plans()?;
    kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &path]).await.map(|_| ())
}

/// Where the four plans are.
pub(crate) fn plans() -> Result<String> {
    let place = places::checkout().join("examples/plans");
    if !place.is_dir() {
        return Err(Error::message("examples/plans is missing in this checkout"));
    }
    Ok(place.display().to_string())
}
