//! What the chart renders is what this API server knows: kubeconform compares it with schemas that are made of the API
//! server's own OpenAPI document, so that a misspelt field is found without an installation.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Map, Value, json};
use tenantry_dev::{ControlPlane, ControlPlaneOptions, installation, paths::RunDirectory, tools};

use crate::file;

/// Kinds of the Prometheus operator, which this API server does not have.
const UNKNOWN: &str = "ServiceMonitor,PrometheusRule";

/// Makes a definition refuse what it does not name, and allows what OpenAPI has no word for.
fn strict(name: &str, definition: &mut Value) {
    if name.ends_with(".Quantity") || name.ends_with(".IntOrString") {
        *definition = json!({"type": ["string", "number"]});
    }
    let object = definition.as_object_mut().unwrap();
    if object.contains_key("properties") && !object.contains_key("additionalProperties") {
        object.insert("additionalProperties".to_owned(), json!(false));
    }
}

/// Writes a schema for each kind, with the names that kubeconform looks for.
fn write_schemas(directory: &Path, openapi: &str) {
    let document: Value = serde_json::from_str(openapi).unwrap();
    let mut definitions = document["definitions"].as_object().unwrap().clone();
    definitions.iter_mut().for_each(|(name, definition)| strict(name, definition));
    for (name, definition) in &definitions {
        for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let text = |field: &str| kind[field].as_str().unwrap();
            let group = text("group").split('.').next().unwrap();
            let group = if group.is_empty() { String::new() } else { format!("-{group}") };
            let file = format!("{}{group}-{}.json", text("kind").to_lowercase(), text("version"));
            let schema = json!({"$ref": format!("definitions.json#/definitions/{name}")});
            fs::write(directory.join(file), schema.to_string()).unwrap();
        }
    }
    let all = json!({"definitions": Map::from_iter(definitions)});
    fs::write(directory.join("definitions.json"), all.to_string()).unwrap();
}

/// What kubeconform finds in a file.
fn check(program: &Path, schemas: &Path, manifests: &Path) -> Result<(), String> {
    let location = format!("{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", schemas.display());
    let mut command = Command::new(program);
    command.args(["-strict", "-summary", "-skip", UNKNOWN, "-schema-location", &location]).arg(manifests);
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{}: {}", manifests.display(), printed.trim());
    if output.status.success() { Ok(()) } else { Err(printed) }
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn api_server_knows_every_field() {
    let program = tools::find("kubeconform").await.unwrap();
    let plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let kubectl = plane.kubectl();
    installation::install_crds(Path::new(env!("CARGO_BIN_EXE_tenantry")), &kubectl).await.unwrap();
    let run = RunDirectory::new().unwrap();
    // Published a moment after the CRDs are established.
    let openapi = tenantry_test_support::Wait::until("the API server publishes the CRDs' schemas");
    let openapi = openapi
        .observe(async || {
            let found = kubectl.run(&["get", "--raw", "/openapi/v2"]).await.unwrap();
            let kinds = ["TenantPlan", "DatabaseServer"].map(|kind| format!("\"kind\":\"{kind}\""));
            if kinds.iter().all(|kind| found.contains(kind)) { Ok(found) } else { Err(()) }
        })
        .await;
    write_schemas(run.path(), &openapi);

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = ["everything", "smallest"].map(|set| file(&format!("golden/{set}.yaml")));
    let plain = ["manifests/tenantry.yaml", "manifests/cluster-wide.yaml", "manifests/actors.yaml"]
        .map(|name| root.join(name));
    let examples =
        ["examples/plans", "examples/quickstart", "examples/support", "examples/gitops/repository"];
    let examples = examples.map(|name| root.join(name));
    let all: Vec<PathBuf> = golden.into_iter().chain(plain).chain(examples).collect();
    for manifests in &all {
        check(&program, run.path(), manifests).unwrap();
    }

    // It finds a misspelt field.
    let wrong =
        fs::read_to_string(&all[0]).unwrap().replace("readOnlyRootFilesystem", "readOnlyRootFileSystem");
    let path = run.path().join("wrong.yaml");
    fs::write(&path, wrong).unwrap();
    let found = check(&program, run.path(), &path).unwrap_err();
    assert!(found.contains("readOnlyRootFileSystem"), "{found}");
}
