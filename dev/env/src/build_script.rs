//! The scripts that build a program once per machine, and print its path.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result};
use crate::paths;

/// Runs a script of this checkout, which reports on stderr, and returns the path of the program. `what` names it in the
/// error.
pub async fn run(script: &str, what: &str) -> Result<PathBuf> {
    let script = paths::checkout().join(script);
    // The whole environment: it configures Go's proxies and caches and the machine's certificates.
    let mut command = Command::new(&script);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output =
        tokio::process::Command::from(command).kill_on_drop(true).output().await.at("running", &script)?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if !output.status.success() || !path.is_file() {
        return Err(Error::message(format!("there is no {what}: its build failed, see above")));
    }
    Ok(path)
}
