//! Helm 3 renders what Helm 4 renders: the chart has nothing that only one of them understands.

use std::fs;

use serde_json::Value;
use tenantry_dev::helm::{Helm, chart};

use crate::{file, render};

/// A Helm that is built from its module says that it is for Kubernetes 1.20. The binaries that its project releases know
/// a recent Kubernetes.
const KUBERNETES: [&str; 2] = ["--kube-version", "1.33.0"];
/// What a cluster of Helm 4's version serves, and one of 1.33 does not.
const SERVED: [&str; 2] = ["--api-versions", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"];

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn helm_3_renders_the_same_objects() {
    let helm = Helm::three(None).await.unwrap();
    let version = helm.run(&["version", "--short"]).await.unwrap();
    assert!(version.starts_with("v3."), "{version}");
    let chart = chart().display().to_string();
    for set in ["everything", "smallest"] {
        let values = file(&format!("values/{set}.yaml")).display().to_string();
        let given = [&["--values", &values][..], &KUBERNETES].concat();
        let without_crds = ["--set", "crds.install=false"];
        let rendered = render(&helm, &[&given, &SERVED[..], &without_crds[..]].concat()).await;
        let golden = fs::read_to_string(file(&format!("golden/{set}.yaml"))).unwrap();
        let golden: Vec<Value> = serde_saphyr::from_multiple(&golden).unwrap();
        assert!(!golden.is_empty());
        assert_eq!(rendered, golden, "{set}");

        let found = helm.run(&[&["lint", "--strict", "--quiet", &chart][..], &given].concat()).await.unwrap();
        assert_eq!(found.trim(), "", "{set}");
    }
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn helm_3_names_a_wrong_value() {
    let helm = Helm::three(None).await.unwrap();
    let chart = chart().display().to_string();
    let template = ["template", "tenantry", &chart, "--set", "image.repository=tenantry"];
    for (wrong, named) in [("replica=2", "'replica' not allowed"), ("replicas=0", "/replicas")] {
        let given = [&template[..], &KUBERNETES, &["--set", wrong]].concat();
        let error = helm.run(&given).await.unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
