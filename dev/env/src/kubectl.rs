//! kubectl, run to its end.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::{paths, process};

/// A kubectl and the cluster it uses.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    /// The first argument when the program is the control plane's binary: the name of the part.
    part: Option<&'static str>,
    /// The kubeconfig, unless it is the caller's.
    kubeconfig: Option<PathBuf>,
    /// Whether it inherits the caller's environment: credential plugins for the caller's cluster may need it.
    inherits: bool,
}

impl Kubectl {
    /// The kubectl in the control plane's binary.
    pub(crate) fn of_control_plane(binary: &Path, kubeconfig: &Path) -> Self {
        Self {
            program: binary.to_owned(),
            part: Some("kubectl"),
            kubeconfig: Some(kubeconfig.to_owned()),
            inherits: false,
        }
    }

    /// The caller's kubectl, for the caller's cluster: with this kubeconfig, else with the caller's.
    pub(crate) fn of_caller(kubeconfig: Option<&Path>) -> Result<Self> {
        let program = paths::on_path("kubectl")
            .ok_or_else(|| Error::message("kubectl is missing: install it to use an existing cluster"))?;
        Ok(Self { program, part: None, kubeconfig: kubeconfig.map(Path::to_owned), inherits: true })
    }

    /// The same program with another kubeconfig.
    pub fn with_kubeconfig(&self, kubeconfig: &Path) -> Self {
        Self { kubeconfig: Some(kubeconfig.to_owned()), ..self.clone() }
    }

    /// Its kubeconfig; an error if it uses the caller's.
    pub fn kubeconfig(&self) -> Result<&Path> {
        self.kubeconfig.as_deref().ok_or_else(|| Error::message("this kubectl uses the caller's kubeconfig"))
    }

    /// Runs it and returns its standard output; its error output becomes the error.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, "").await
    }

    /// Applies manifests (YAML or JSON) with server-side apply.
    pub async fn apply(&self, manifests: &str) -> Result<String> {
        self.run_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], manifests).await
    }

    /// Runs it with this standard input.
    pub async fn run_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(self.part).args(arguments);
        if !self.inherits {
            process::clear_environment(&mut command);
        }
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        process::text(command, &format!("kubectl {}", arguments.join(" ")), input.as_bytes()).await
    }
}
