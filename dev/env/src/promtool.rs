//! promtool, which checks and tests rules for Prometheus.

use std::path::PathBuf;

use crate::build_script;
use crate::error::Result;

/// The path of promtool's binary. It is built first if this machine has not built this release before: minutes, of which
/// the build reports on stderr.
pub async fn find() -> Result<PathBuf> {
    build_script::run("dev/tools/promtool.sh", "promtool").await
}
