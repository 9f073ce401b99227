//! The Helm chart, with the real Helm: what it renders, what it refuses, and what it installs on the development control
//! plane. Helm is built once per machine (`dev/tools/helm.sh`).

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod access;
mod admission;
mod alerts;
mod crds;
mod flags;
mod golden;
mod helm3;
mod image;
mod release;
mod schemas;
mod wrong_values;

use serde_json::Value;
use tenantry_dev::helm::{Helm, chart};

/// The objects that a command like `helm template tenantry` renders with these arguments.
async fn render(helm: &Helm, arguments: &[&str]) -> Vec<Value> {
    serde_saphyr::from_multiple(&text(helm, arguments).await).unwrap()
}

async fn text(helm: &Helm, arguments: &[&str]) -> String {
    let chart = chart().display().to_string();
    let template = ["template", "tenantry", &chart, "--namespace", "tenantry-system"];
    helm.run(&[&template, arguments].concat()).await.unwrap()
}

/// The objects of a kind.
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// A file of this test.
fn file(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart").join(path)
}
