//! The commands of `docs/real-clusters.md`. What they need is not on this machine: bash reads them without running them, and
//! an API server takes the pod.

use std::process::Command;

use serde_json::Value;
use tenantry_dev::{ControlPlane, ControlPlaneOptions};

use crate::shell::{blocks, page};

/// The object that a block applies, as bash passes it on.
fn applied(block: &str) -> Option<String> {
    let (_, rest) = block.split_once("<<EOF\n")?;
    let (object, _) = rest.split_once("\nEOF")?;
    Some(object.replace("\\$", "$"))
}

#[test]
fn commands_and_objects_can_be_read() {
    let document = page("real-clusters.md");
    let blocks = blocks(&document);
    assert!(blocks.len() > 6, "{blocks:?}");
    for block in &blocks {
        let read = Command::new("bash").args(["-n", "-c", block]).output().unwrap();
        assert!(read.status.success() && read.stderr.is_empty(), "{block}\n{read:?}");
        if let Some(object) = applied(block) {
            let object: Value = serde_saphyr::from_str(&object).unwrap();
            assert!(object["kind"].is_string(), "{object}");
        }
    }
    // Each server has the variables that the blocks of docs/install.md use.
    for variable in ["DB_HOST=", "DB_PORT=", "TENANTRY_OPERATOR_PASSWORD="] {
        assert_eq!(document.matches(variable).count(), 4, "{variable}");
    }
    // The name by which the image is loaded.
    assert!(document.contains(&format!("IMAGE=localhost/tenantry TAG={}\n", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn pod_of_the_page_is_one_that_a_restricted_namespace_takes() {
    let document = page("real-clusters.md");
    let objects = blocks(&document).into_iter().filter_map(applied);
    let pod = objects.into_iter().find(|object| object.contains("kind: Pod")).unwrap();
    let plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let kubectl = plane.kubectl();
    kubectl.run(&["create", "namespace", "customers"]).await.unwrap();
    let restricted = "pod-security.kubernetes.io/enforce=restricted";
    kubectl.run(&["label", "namespace", "customers", restricted]).await.unwrap();
    let strictly = ["apply", "--server-side", "--validate=strict", "-f", "-"];
    kubectl.run_with(&strictly, &pod).await.unwrap();
    let run_as_root =
        pod.replace("runAsNonRoot: true", "runAsNonRoot: false").replace("first-client", "root");
    let error = kubectl.run_with(&strictly, &run_as_root).await.unwrap_err().to_string();
    assert!(error.contains("restricted"), "{error}");
}
