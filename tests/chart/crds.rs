//! The CRDs of the chart are those of `crds/`, and stay when a release is uninstalled.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};
use tenantry_dev::helm::Helm;

use crate::{of_kind, render};

/// Helm packs the chart's own files only, so it has copies.
#[test]
fn files_of_the_chart_are_copies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |folder: &str| -> BTreeMap<String, String> {
        let files = fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap);
        let read = |file: fs::DirEntry| {
            (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap())
        };
        files.map(read).collect()
    };
    for (original, copy) in [("crds", "files/crds"), ("examples/plans", "files/plans")] {
        let copied = read(&format!("charts/tenantry/{copy}"));
        assert!(read(original) == copied, "charts/tenantry/{copy} is stale: run `make manifests`");
    }
}

const IMAGE: [&str; 2] = ["--set", "image.repository=tenantry"];

/// The CRDs without what the chart adds, by name, and the policies that it adds.
fn apart(crds: Vec<&Value>) -> (Vec<Value>, Vec<Value>) {
    let mut policies = Vec::new();
    let plain = crds.into_iter().cloned().map(|mut crd| {
        let metadata = crd["metadata"].as_object_mut().unwrap();
        let annotations = metadata.remove("annotations").unwrap_or_default();
        policies.push(annotations["helm.sh/resource-policy"].clone());
        let labels = metadata["labels"].as_object_mut().unwrap();
        labels.retain(|name, _| !name.starts_with("app.kubernetes.io/"));
        if labels.is_empty() {
            metadata.remove("labels");
        }
        crd
    });
    let plain = plain.collect();
    (sorted(plain), policies)
}

fn sorted(mut crds: Vec<Value>) -> Vec<Value> {
    crds.sort_by_key(|crd| crd["metadata"]["name"].to_string());
    crds.iter_mut().for_each(integers);
    crds
}

/// Helm writes whole numbers as integers.
fn integers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            #[allow(clippy::cast_possible_truncation)] // whole
            if let Some(whole) = number.as_f64().filter(|number| number.fract() == 0.0) {
                *value = json!(whole as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(integers),
        Value::Object(fields) => fields.values_mut().for_each(integers),
        _ => {}
    }
}

#[tokio::test]
async fn crds_are_those_of_the_repository() {
    let helm = Helm::new(None).await.unwrap();
    let wanted = tenantry::api::crds();
    let wanted = sorted(wanted.iter().map(|crd| serde_json::to_value(crd).unwrap()).collect());

    let kept = render(&helm, &IMAGE).await;
    let (crds, policies) = apart(of_kind(&kept, "CustomResourceDefinition"));
    assert!(crds == wanted, "copy crds/ to charts/tenantry/files/crds");
    assert_eq!(policies, vec![json!("keep"); wanted.len()]);

    let deleted = render(&helm, &[&IMAGE[..], &["--set", "crds.keep=false"]].concat()).await;
    let (crds, policies) = apart(of_kind(&deleted, "CustomResourceDefinition"));
    assert!(crds == wanted);
    assert_eq!(policies, vec![Value::Null; wanted.len()]);

    let without = render(&helm, &[&IMAGE[..], &["--set", "crds.install=false"]].concat()).await;
    assert!(of_kind(&without, "CustomResourceDefinition").is_empty());
}
