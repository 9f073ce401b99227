//! Helm, run to its end.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Result;
use crate::paths::RunDirectory;
use crate::{build_script, paths, process, tools};

/// A Helm with directories of its own, and the cluster that it uses.
#[derive(Debug)]
pub struct Helm {
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
    run: RunDirectory,
}

/// The path of Helm's binary. It is built first if this machine has not built this release before: minutes, of which the
/// build reports on stderr.
pub async fn find() -> Result<PathBuf> {
    build_script::run("dev/tools/helm.sh", "Helm").await
}

/// The chart of this checkout.
pub fn chart() -> PathBuf {
    paths::checkout().join("charts/tenantry")
}

impl Helm {
    /// Finds it. Without a kubeconfig it renders only.
    pub async fn new(kubeconfig: Option<&Path>) -> Result<Self> {
        Self::at(find().await?, kubeconfig)
    }

    /// Helm 3 instead: built first if need be.
    pub async fn three(kubeconfig: Option<&Path>) -> Result<Self> {
        Self::at(tools::find("helm3").await?, kubeconfig)
    }

    fn at(program: PathBuf, kubeconfig: Option<&Path>) -> Result<Self> {
        Ok(Self { program, kubeconfig: kubeconfig.map(Path::to_owned), run: RunDirectory::new()? })
    }

    /// Runs it and returns its standard output; its error output becomes the error.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        process::clear_environment(&mut command);
        for (name, directory) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(name, self.run.path().join(directory));
        }
        // Never the caller's cluster.
        let none = self.run.path().join("no-kubeconfig");
        command.env("KUBECONFIG", self.kubeconfig.as_ref().unwrap_or(&none));
        process::text(command, &format!("helm {}", arguments.join(" ")), b"").await
    }
}
