//! The operator's image, unpacked: the binary runs from its root, as its user and with nothing else of this machine.

use std::{
    collections::BTreeSet,
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
    tools,
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
    let entry = &read(&layout.join("index.json"))["manifests"][0];
    // As docs/real-clusters.md says.
    let name = format!("localhost/tenantry:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(entry["annotations"]["io.containerd.image.name"], name);
    let manifest = read(&blob(entry));
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

/// Name and version of each crate of a list.
fn crates(list: &Value) -> BTreeSet<(String, String)> {
    let text = |of: &Value, field: &str| of[field].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(|one| (text(one, "name"), text(one, "version"))).collect()
}

/// The list of crates in the program is read as scanners of images read it. Each is one of Cargo.lock, and none of the bill of
/// materials is missing. The list has more: what build scripts use, and optional dependencies of dependencies, which
/// stable Cargo reports as if they were in use.
async fn compare_crates(program: &Path, bill: &Value) {
    let reader = tools::find("rust-audit-info").await.unwrap().display().to_string();
    let list: Value = serde_json::from_str(&run(&reader, &[&program.display().to_string()])).unwrap();
    let (own, others): (Vec<_>, Vec<_>) =
        list["packages"].as_array().unwrap().iter().cloned().partition(|one| one["source"] == "local");
    let own = crates(&json!(own));
    assert_eq!(own, [("tenantry".to_owned(), env!("CARGO_PKG_VERSION").to_owned())].into());
    assert!(others.iter().all(|one| one["source"] == "crates.io"), "{list:#}");
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    for (name, version) in crates(&json!(others)) {
        let locked = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        assert!(lock.contains(&locked), "{name} {version} is in the binary, and not in Cargo.lock");
    }
    let (listed, billed) = (crates(&json!(others)), crates(&bill["components"]));
    let missing: Vec<_> = billed.difference(&listed).collect();
    assert!(missing.is_empty(), "in the bill of materials, and not in the binary: {missing:?}");
    println!("{} crates in the binary, {} in the bill of materials", listed.len(), billed.len());
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
    compare_crates(&root.join("tenantry"), &bill).await;

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
