//! kubectl, run to its end.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::error::{Context, Error, Result};
use crate::places;
use crate::process::bare;

/// A kubectl and the cluster it talks to.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    /// What comes before the arguments: the part's name where the program is the control plane's binary.
    part: Option<&'static str>,
    /// The kubeconfig, if not the caller's.
    kubeconfig: Option<PathBuf>,
    /// Whether the caller's environment is passed on: plugins that log in to somebody's cluster may need it.
    inherits: bool,
}

impl Kubectl {
    /// The one in the control plane's binary.
    pub(crate) fn of_control_plane(binary: &Path, kubeconfig: &Path) -> Self {
        Self {
            program: binary.to_owned(),
            part: Some("kubectl"),
            kubeconfig: Some(kubeconfig.to_owned()),
            inherits: false,
        }
    }

    /// The caller's own, for the caller's own cluster; without a kubeconfig of ours, the caller's.
    pub(crate) fn of_caller(kubeconfig: Option<&Path>) -> Result<Self> {
        let program = places::on_path("kubectl")
            .ok_or_else(|| Error::message("kubectl is missing: install it to use an existing cluster"))?;
        Ok(Self { program, part: None, kubeconfig: kubeconfig.map(Path::to_owned), inherits: true })
    }

    /// The same program, with another kubeconfig.
    pub fn with_kubeconfig(&self, kubeconfig: &Path) -> Self {
        Self { kubeconfig: Some(kubeconfig.to_owned()), ..self.clone() }
    }

    /// The kubeconfig that it uses.
    pub fn kubeconfig(&self) -> Result<&Path> {
        self.kubeconfig.as_deref().ok_or_else(|| Error::message("this kubectl uses the caller's kubeconfig"))
    }

    /// Runs it and returns what it printed; what it complained of becomes the error.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, "").await
    }

    /// Applies manifests (YAML or JSON) on the server's side.
    pub async fn apply(&self, manifests: &str) -> Result<String> {
        self.run_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], manifests).await
    }

    /// Runs it with this on its standard input.
    pub async fn run_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = std::process::Command::new(&self.program);
        command.args(self.part).args(arguments);
        if !self.inherits {
            bare(&mut command);
        }
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = "running kubectl";
        let mut child = Command::from(command).kill_on_drop(true).spawn().context(failed)?;
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A command that ended early says why itself.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let ((), output) = tokio::join!(feed, child.wait_with_output());
        let output = output.context(failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::message(format!(
            "kubectl {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }
}
