//! The control plane's one binary, built from `dev/controlplane` once per machine.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result};
use crate::paths;

/// The path of `controlplane`. It is built first if this machine has not built these sources before: several minutes, of
/// which the build reports on stderr.
pub async fn find() -> Result<PathBuf> {
    let script = paths::checkout().join("dev/controlplane/build.sh");
    // The whole environment: it configures Go's proxies and caches and the machine's certificates.
    let mut command = Command::new(&script);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output =
        tokio::process::Command::from(command).kill_on_drop(true).output().await.at("running", &script)?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if !output.status.success() || !path.is_file() {
        return Err(Error::message("there is no control plane: its build failed, see above"));
    }
    Ok(path)
}
