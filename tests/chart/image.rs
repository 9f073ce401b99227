//! The operator's image, unpacked: the binary runs from its root, as its user and with nothing else of this machine.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tenantry_dev::{
    ControlPlane, ControlPlaneOptions, Operator, OperatorOptions, Postgres, PostgresOptions,
    installation::{self, Names, OPERATOR_LOGIN, SYSTEM_DATABASE},
    ports,
    process::Lifetime,
    rights::{self, Scope},
};

/// A directory that is removed.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Unpacks the image of a layout, and verifies the digests on the way. Returns its configuration.
fn unpack(layout: &Path, root: &Path) -> Value {
    let blob = |descriptor: &Value| -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let path = layout.join("blobs/sha256").join(digest);
        assert_eq!(json!(fs::metadata(&path).unwrap().len()), descriptor["size"]);
        assert!(run("sha256sum", &[&path.display().to_string()]).starts_with(digest));
        path
    };
    let manifest = read(&blob(&read(&layout.join("index.json"))["manifests"][0]));
    for layer in manifest["layers"].as_array().unwrap() {
        run("tar", &["-xzf", &blob(layer).display().to_string(), "-C", &root.display().to_string()]);
    }
    read(&blob(&manifest["config"]))["config"].clone()
}

/// A script that runs the image's program as a container does: from its root, as its user.
fn entry(scratch: &Path, root: &Path, user: &str) -> PathBuf {
    let path = scratch.join("tenantry");
    // Every runtime provides these devices.
    fs::create_dir_all(root.join("dev")).unwrap();
    let change = match run("id", &["-u"]).trim() {
        "0" => {
            for (name, minor) in [("random", "8"), ("urandom", "9")] {
                let path = root.join("dev").join(name).display().to_string();
                run("mknod", &["-m", "444", &path, "c", "1", minor]);
            }
            format!("chroot --userspec={user}")
        }
        _ => "unshare --user --map-root-user chroot".to_owned(),
    };
    fs::write(&path, format!("#!/bin/sh\nexec {change} '{}' /tenantry \"$@\"\n", root.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn paths(root: &Path) -> String {
    run("find", &[&root.display().to_string(), "-newer", &root.join("tenantry").display().to_string()])
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn image_runs_from_its_root() {
    let scratch = Scratch(std::env::temp_dir().join(format!("tenantry-image-{}", std::process::id())));
    let root = scratch.0.join("root");
    fs::create_dir_all(&root).unwrap();
    let image = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
    let made = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/image.sh")).arg(&image).status();
    assert!(made.unwrap().success());
    let configuration = unpack(&image.join("layout"), &root);
    assert_eq!(configuration["Entrypoint"], json!(["/tenantry"]));
    assert_eq!(configuration["User"], "65532:65532");
    let mut top: Vec<String> =
        fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    top.sort();
    assert_eq!(top, ["etc", "tenantry", "usr"], "and no shell");
    let bill = read(&image.join("sbom.cdx.json"));
    assert!(bill["components"].as_array().unwrap().len() > 100);

    let (plane, postgres) = tokio::join!(
        ControlPlane::start(ControlPlaneOptions::default()),
        Postgres::start(PostgresOptions::default())
    );
    let (plane, postgres) = (plane.unwrap(), postgres.unwrap());
    let (kubectl, names) = (plane.kubectl(), Names::default());
    let program = entry(&scratch.0, &root, "65532:65532");
    // As a kubelet mounts them; the operator's own name for a host is then resolved by what is in the image.
    fs::copy("/etc/hosts", root.join("etc/hosts")).unwrap();
    installation::set_up_server(&program, &postgres, "operator-password").await.unwrap();
    installation::install_crds(&program, &kubectl).await.unwrap();
    let scope = Scope { namespace: &names.namespace, watched: &[], lease: None };
    installation::install_rights(&kubectl, scope).await.unwrap();
    let outside = scratch.0.join("kubeconfig");
    rights::write_kubeconfig(&plane.kubeconfig(), scope.namespace, rights::ACCOUNT, &outside).await.unwrap();
    let mut kubeconfig = read(&outside);
    let authority = kubeconfig["clusters"][0]["cluster"]["certificate-authority"].take();
    fs::copy(authority.as_str().unwrap(), root.join("etc/authority.crt")).unwrap();
    kubeconfig["clusters"][0]["cluster"]["certificate-authority"] = json!("/etc/authority.crt");
    fs::write(root.join("etc/kubeconfig"), kubeconfig.to_string()).unwrap();
    for name in ["etc/kubeconfig", "etc/authority.crt"] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o444)).unwrap();
    }
    let before = paths(&root);
    let options = OperatorOptions {
        binary: program,
        kubeconfig: "/etc/kubeconfig".into(),
        registry_url: postgres
            .url(OPERATOR_LOGIN, "operator-password", SYSTEM_DATABASE)
            .replace("127.0.0.1", "localhost"),
        namespace: names.namespace.clone(),
        ..OperatorOptions::default()
    };
    let operator = Operator::new(&options, &scratch.0, ports::free().unwrap(), Lifetime::WithParent);
    operator.start().await.unwrap();
    operator.stop().await.unwrap();
    assert_eq!(paths(&root), before, "its root can be read-only");
}
