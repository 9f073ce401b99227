//! The commands of `docs/install.md`, as they are printed and in that order, against a PostgreSQL with a private certificate
//! authority.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use tenantry_dev::{
    ControlPlane, ControlPlaneOptions, Postgres, PostgresOptions, certificates::Authority, helm,
    kubelet::Kubelet,
};

use crate::shell::{Shell, blocks, page};

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
    let mut shell = Shell::new(&plane, "install");
    symlink(helm::find().await.unwrap(), shell.directory.join("bin/helm")).unwrap();
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_tenantry"));
    let _kubelet = Kubelet::start(binary, plane.kubeconfig(), "tenantry-system").await.unwrap();

    let document = page("install.md");
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
