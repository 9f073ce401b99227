//! Recorded objects, evaluated by kstatus and by the scripts of Argo CD that `examples/gitops` has. The table of
//! `docs/gitops.md` is what they are expected to say.

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
};

use serde_json::{Map, Value, json};
use tenantry_dev::tools;

use crate::text;

/// Each object's results, of kstatus and of Argo CD.
type Results = BTreeMap<String, (String, String)>;

/// The scripts of the ConfigMap, by kind.
fn scripts() -> Map<String, Value> {
    let map: Value = serde_saphyr::from_str(&text("examples/gitops/argocd/health.yaml")).unwrap();
    let prefix = "resource.customizations.health.tenantry.dev_";
    let data = map["data"].as_object().unwrap();
    data.iter().map(|(key, script)| (key.strip_prefix(prefix).unwrap().to_owned(), script.clone())).collect()
}

/// The rows of the table in docs/gitops.md.
fn documented() -> Results {
    let page = text("docs/gitops.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    let rows = rows.map(|row| row.split(" | ").map(|cell| cell.trim_matches('`')).collect::<Vec<_>>());
    let rows = rows.filter(|row| row.len() == 4);
    rows.map(|row| (row[0].to_owned(), (row[2].to_owned(), row[3].to_owned()))).collect()
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn recorded_objects_are_evaluated_as_documented() {
    let program = tools::find("health").await.unwrap();
    let objects: Value = serde_json::from_str(&text("tests/gitops/objects.json")).unwrap();
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let input = json!({"objects": objects, "scripts": scripts()}).to_string();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let results: Map<String, Value> = serde_json::from_slice(&output.stdout).unwrap();
    for (name, result) in &results {
        println!("{name}: {result}");
    }
    let field = |result: &Value, name: &str| result[name].as_str().unwrap().to_owned();
    let found: Results = results
        .iter()
        .map(|(name, result)| (name.clone(), (field(result, "kstatus"), field(result, "argo"))))
        .collect();
    assert_eq!(found, documented(), "left: the real tools, right: the table of docs/gitops.md");
}

#[test]
fn every_kind_has_a_script() {
    let kinds: Vec<String> = scripts().into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds.len(), std::fs::read_dir(crate::file("crds")).unwrap().count(), "{kinds:?}");
}
