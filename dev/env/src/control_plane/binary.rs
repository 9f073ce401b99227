//! The control plane's one binary, built from `dev/controlplane` once per machine.

use std::path::PathBuf;

use crate::build_script;
use crate::error::Result;

/// The path of `controlplane`. It is built first if this machine has not built these sources before: several minutes, of
/// which the build reports on stderr.
pub async fn find() -> Result<PathBuf> {
    build_script::run("dev/controlplane/build.sh", "control plane").await
}
