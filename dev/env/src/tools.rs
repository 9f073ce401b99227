//! Programs of others that slow tests need, apart from Helm: each is built once per machine by its script in `dev/tools`.

use std::path::PathBuf;

use crate::build_script;
use crate::error::Result;

/// The path of a program, by the name of its script. It is built first if this machine has not built it before: minutes,
/// of which the build reports on stderr.
pub async fn find(name: &str) -> Result<PathBuf> {
    build_script::run(&format!("dev/tools/{name}.sh"), name).await
}
