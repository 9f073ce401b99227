//! The commands of `docs/install.md`, as they are printed and in that order, against a PostgreSQL with a private certificate
//! authority.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tenantry_dev::{
    ControlPlane, ControlPlaneOptions, Postgres, PostgresOptions, certificates::Authority, helm,
    kubelet::Kubelet,
};
use tokio::process::Command;

/// The commands of a document, each block by itself.
fn blocks(document: &str) -> Vec<&str> {
    document.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// A directory as a user has it: a checkout's charts and examples, and the programs.
struct Shell {
    directory: PathBuf,
    variables: Vec<(String, String)>,
}

impl Shell {
    async fn new(plane: &ControlPlane) -> Self {
        let directory = std::env::temp_dir().join(format!("tenantry-install-{}", std::process::id()));
        let bin = directory.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["charts", "examples"] {
            symlink(checkout.join(name), directory.join(name)).unwrap();
        }
        symlink(plane.binary(), bin.join("kubectl")).unwrap();
        symlink(helm::find().await.unwrap(), bin.join("helm")).unwrap();
        symlink(env!("CARGO_BIN_EXE_tenantry"), bin.join("tenantry")).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let home = directory.display().to_string();
        let kubeconfig = plane.kubeconfig().display().to_string();
        let variables = [("PATH", path), ("HOME", home), ("KUBECONFIG", kubeconfig)];
        Self { directory, variables: variables.map(|(name, value)| (name.to_owned(), value)).into() }
    }

    async fn run(&self, block: &str) {
        let script = ["-euo", "pipefail", "-c", block];
        let variables = self.variables.iter().map(|(name, value)| (name, value));
        let mut bash = Command::new("bash");
        bash.args(script).env_clear().envs(variables).current_dir(&self.directory);
        let output = bash.kill_on_drop(true).output().await.unwrap();
        let (printed, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{block}\n\n{printed}\n{errors}");
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn installation_works_as_printed() {
    let authority = Authority::new("private").unwrap();
    let tls = Some(authority.server(&["127.0.0.1"]).unwrap());
    let (plane, postgres) = tokio::join!(
        ControlPlane::start(ControlPlaneOptions::default()),
        Postgres::start(PostgresOptions { tls, ..PostgresOptions::default() })
    );
    let (plane, postgres) = (plane.unwrap(), postgres.unwrap());
    let mut shell = Shell::new(&plane).await;
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_tenantry"));
    let _kubelet = Kubelet::start(binary, plane.kubeconfig(), "tenantry-system").await.unwrap();

    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/install.md")).unwrap();
    let blocks = blocks(&document);
    assert!(blocks.len() > 10, "{blocks:?}");
    let certificate = shell.directory.join("db-ca.crt").display().to_string();
    fs::write(&certificate, authority.certificate()).unwrap();
    let admin = postgres.admin_url("postgres");
    let (admin, _) = admin.split_once('?').unwrap_or((&admin, ""));
    let own = [
        ("IMAGE", "registry.example/platform/tenantry".to_owned()),
        ("TAG", "0.1.0".to_owned()),
        ("DB_HOST", "127.0.0.1".to_owned()),
        ("DB_PORT", postgres.port().to_string()),
        ("DB_CA", certificate.clone()),
        ("TENANTRY_ADMIN_URL", format!("{admin}?sslmode=verify-full&sslrootcert={certificate}")),
        ("TENANTRY_OPERATOR_PASSWORD", "0123456789abcdef".to_owned()),
    ];
    for (name, value) in own {
        assert!(blocks[0].contains(&format!("{name}=")), "{name} is not in the first block");
        shell.variables.push((name.to_owned(), value));
    }
    for block in &blocks[1..] {
        shell.run(block).await;
    }
}
