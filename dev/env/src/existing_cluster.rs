//! The user's own cluster, for `make demo EXISTING=1`. The demo changes nothing in it except CRDs, two namespaces and
//! the objects of its own.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::installation::{self, Names};
use crate::kubectl::Kubectl;
use crate::{paths, progress};

/// The cluster of `KUBECONFIG`'s current context.
#[derive(Debug)]
pub(crate) struct ExistingCluster {
    /// The API server's address.
    pub(crate) server: String,
    kubeconfig: String,
}

impl ExistingCluster {
    /// Reads the user's kubeconfig, reduced to the current context.
    pub(crate) async fn current() -> Result<Self> {
        let kubectl = Kubectl::of_caller(None)?;
        let view = ["config", "view", "--minify", "--flatten", "--raw"];
        let kubeconfig = kubectl.run(&view).await.map_err(|error| {
            Error::message(format!(
                "EXISTING=1: KUBECONFIG and its current context must name a cluster: {error}"
            ))
        })?;
        let path = "jsonpath={.clusters[0].cluster.server}";
        let server = kubectl.run(&["config", "view", "--minify", "-o", path]).await?.trim().to_owned();
        if server.is_empty() {
            return Err(Error::message("EXISTING=1: the current context of KUBECONFIG names no cluster"));
        }
        Ok(Self { server, kubeconfig })
    }

    /// Stores a copy of the kubeconfig and returns a kubectl that uses it: a later switch of the user's context must not
    /// change the cluster that the demo and `make down` use.
    pub(crate) fn pin(&self, home: &Path) -> Result<Kubectl> {
        paths::write_secret(&file(home), &self.kubeconfig)?;
        pinned(home)
    }
}

/// kubectl for the cluster that was pinned.
fn pinned(home: &Path) -> Result<Kubectl> {
    let file = file(home);
    if !file.is_file() {
        return Err(Error::message(format!("{} does not exist any more", file.display())));
    }
    Kubectl::of_caller(Some(&file))
}

fn file(home: &Path) -> PathBuf {
    home.join("callers-kubeconfig")
}

/// The caller's environment, which access to the cluster may need, such as the profile of a cloud provider.
pub(crate) fn environment() -> Vec<(String, String)> {
    std::env::vars().filter(|(name, _)| !name.starts_with("TENANTRY_") && !name.starts_with("PG")).collect()
}

/// Refuses a cluster in which Tenantry is in use: a demo would replace its `DatabaseServer` and its plans.
pub(crate) async fn refuse_in_use(kubectl: &Kubectl) -> Result<()> {
    let crds =
        kubectl.run(&["get", "crd", "tenants.tenantry.dev", "--ignore-not-found", "-o", "name"]).await?;
    if crds.trim().is_empty() {
        return Ok(());
    }
    let used = kubectl.run(&["get", "tenants,databaseservers,tenantplans", "-A", "-o", "name"]).await?;
    match used.lines().next() {
        Some(object) => Err(Error::message(format!(
            "Tenantry is in use in this cluster ({object}): the demo changes nothing in it"
        ))),
        None => Ok(()),
    }
}

/// Removes the demo's objects from the cluster. The operator must still run, so that it removes its finalizers. CRDs and
/// namespaces stay: other users may have objects in them.
pub(crate) async fn clean_up(home: &Path) -> Result<()> {
    let kubectl = pinned(home)?;
    let step = progress::step("removing the demo's tenants, server and plans from your cluster");
    let names = Names::default();
    let examples = paths::checkout().join("examples/quickstart").display().to_string();
    let plans = installation::plans()?;
    let outcome = async {
        for what in [
            vec!["-f", &examples, "--timeout=120s"],
            vec!["databaseserver", &names.server, "--timeout=60s"],
            vec!["-f", &plans, "--timeout=60s"],
            vec!["secret", &names.secret, "-n", &names.namespace],
        ] {
            kubectl.run(&[vec!["delete", "--ignore-not-found"], what].concat()).await?;
        }
        Ok(())
    };
    step.end(outcome.await)
}
