//! The commands of a page, and a shell as its reader has it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tenantry_dev::ControlPlane;
use tokio::process::Command;

/// A page of the documentation.
pub fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

/// The commands of a document, each block by itself.
pub fn blocks(document: &str) -> Vec<&str> {
    blocks_in(document, "sh")
}

/// Its manifests, each block by itself.
pub fn yaml_blocks(document: &str) -> Vec<&str> {
    blocks_in(document, "yaml")
}

/// Its blocks in a language.
pub fn blocks_in<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("\n```{language}\n");
    document.split(&start).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// A directory as a user has it: a checkout's charts and examples, and the programs.
pub struct Shell {
    pub directory: PathBuf,
    pub variables: Vec<(String, String)>,
}

impl Shell {
    /// The name is of the page, so that each has a directory of its own.
    pub fn new(plane: &ControlPlane, name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("tenantry-{name}-{}", std::process::id()));
        let bin = directory.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["charts", "examples"] {
            symlink(checkout.join(name), directory.join(name)).unwrap();
        }
        symlink(plane.binary(), bin.join("kubectl")).unwrap();
        symlink(env!("CARGO_BIN_EXE_tenantry"), bin.join("tenantry")).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let home = directory.display().to_string();
        let kubeconfig = plane.kubeconfig().display().to_string();
        let variables = [("PATH", path), ("HOME", home), ("KUBECONFIG", kubeconfig)];
        Self { directory, variables: variables.map(|(name, value)| (name.to_owned(), value)).into() }
    }

    /// Runs commands until one fails, which ends the test with what was printed. Returns what was printed.
    pub async fn run(&self, commands: &str) -> String {
        let script = ["-euo", "pipefail", "-c", commands];
        let variables = self.variables.iter().map(|(name, value)| (name, value));
        let mut bash = Command::new("bash");
        bash.args(script).env_clear().envs(variables).current_dir(&self.directory);
        let output = bash.kill_on_drop(true).output().await.unwrap();
        let (printed, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{commands}\n\n{printed}\n{errors}");
        printed.into_owned()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
