//! What the chart renders is as it was read: `UPDATE=1 cargo test --test chart` writes it again.

use std::{fs, path::Path, process::Command};

use tenantry_dev::helm::{Helm, chart};

use crate::{file, text};

#[tokio::test]
async fn renders_are_as_reviewed() {
    let helm = Helm::new(None).await.unwrap();
    for set in ["everything", "smallest"] {
        let values = file(&format!("values/{set}.yaml")).display().to_string();
        let rendered = text(&helm, &["--values", &values, "--set", "crds.install=false"]).await;
        let golden = file(&format!("golden/{set}.yaml"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, &rendered).unwrap();
        }
        let reviewed = fs::read_to_string(&golden).unwrap_or_default();
        assert!(
            rendered == reviewed,
            "tests/chart/golden/{set}.yaml: review the difference, then UPDATE=1 cargo test --test chart"
        );
    }
}

#[tokio::test]
async fn lint_finds_nothing() {
    let helm = Helm::new(None).await.unwrap();
    let chart = chart().display().to_string();
    for set in ["everything", "smallest"] {
        let values = file(&format!("values/{set}.yaml")).display().to_string();
        let found = helm.run(&["lint", "--strict", "--quiet", "--values", &values, &chart]).await.unwrap();
        assert_eq!(found.trim(), "", "{set}");
    }
}

#[tokio::test]
async fn plain_manifests_are_current() {
    // Built first, with its progress on stderr.
    tenantry_dev::helm::find().await.unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rendered = std::env::temp_dir().join(format!("tenantry-manifests-{}", std::process::id()));
    fs::create_dir_all(&rendered).unwrap();
    let made = Command::new(root.join("dev/manifests.sh")).arg(&rendered).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for name in ["tenantry.yaml", "cluster-wide.yaml", "actors.yaml"] {
        let [there, wanted] = [root.join("manifests"), rendered.clone()]
            .map(|folder| fs::read_to_string(folder.join(name)).unwrap());
        assert!(there == wanted, "manifests/{name} is stale: run `make manifests`");
    }
    fs::remove_dir_all(&rendered).unwrap();
}
