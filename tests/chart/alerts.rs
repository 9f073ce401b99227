//! The alerts and the dashboard: they use metrics that exist, each alert has its section of the runbook and its test, and
//! promtool runs these tests.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;
use tenantry::{api::reason::Reason, metrics::catalog::METRICS};
use tenantry_dev::{
    helm::{Helm, chart},
    promtool,
};

use crate::{file, of_kind, render};

/// Labels that Prometheus adds to what it scrapes, and the one of buckets.
const ADDED: [&str; 5] = ["namespace", "job", "pod", "exported_namespace", "le"];

/// What each section of the runbook answers.
const ANSWERS: [&str; 4] = ["**Meaning**:", "**Impact**:", "**Diagnosis**", "**What to do**:"];

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn alerts() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(&text(&chart().join("files/alerts.yaml"))).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn runbooks() -> String {
    text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks.md"))
}

/// The faults of an expression: metrics, labels and reasons that do not exist.
fn unknown(expression: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("tenantry_").into_iter().chain(rest.find("process_")).min() {
        let end = rest[at..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, after) = rest[at..].split_at(end.unwrap_or(rest.len() - at));
        rest = after;
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let Some(metric) = METRICS
            .iter()
            .find(|entry| entry.name == name || family.is_some_and(|family| family == entry.name))
        else {
            found.push(format!("{name} does not exist"));
            continue;
        };
        let Some(matchers) = after.strip_prefix('{').and_then(|after| after.split('}').next()) else {
            continue;
        };
        for matcher in matchers.split(',') {
            let (label, value) = matcher.split_at(matcher.find(['=', '!']).unwrap());
            if !metric.labels.contains(&label) && !ADDED.contains(&label) {
                found.push(format!("{name} has no label {label}"));
            }
            let value = value.trim_matches(['=', '!', '~', '"']);
            if label == "reason" && Reason::ALL.iter().all(|reason| reason.as_str() != value) {
                found.push(format!("there is no reason {value}"));
            }
        }
    }
    found
}

#[test]
fn every_alert_is_complete_and_uses_metrics_that_exist() {
    let (runbooks, tests) = (runbooks(), text(&file("alerts_test.yaml")));
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap().to_owned();
        assert_eq!(unknown(alert["expr"].as_str().unwrap()), [""; 0], "{name}");
        let severity = alert["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning" | "info")), "{name}: {severity:?}");
        assert!(alert["for"].is_string(), "{name}: no `for`");
        for annotation in ["summary", "description"] {
            assert!(alert["annotations"][annotation].is_string(), "{name}: no {annotation}");
        }
        let section = format!("docs/runbooks.md#{}", name.to_lowercase());
        assert_eq!(alert["annotations"]["runbook_url"], section, "{name}");
        let (_, section) = runbooks.split_once(&format!("\n### {name}\n")).expect(&name);
        let section = section.split("\n#").next().unwrap();
        for answer in ANSWERS {
            assert!(section.contains(answer), "docs/runbooks.md, {name}: {answer} is missing");
        }
        assert!(
            tests.contains(&format!("- name: {name}\n")),
            "tests/chart/alerts_test.yaml has no test {name}"
        );
        assert!(names.insert(name), "two alerts of one name");
    }
    let sections: BTreeSet<String> =
        runbooks.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    assert_eq!(sections, names, "left: sections of docs/runbooks.md, right: alerts");
}

#[test]
fn dashboard_uses_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&text(&chart().join("files/dashboard.json"))).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut expressions = 0;
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            assert_eq!(unknown(expression), [""; 0], "{title}: {expression}");
            expressions += 1;
        }
    }
    assert!(expressions > 30, "{expressions}");
}

#[test]
fn unknown_metrics_labels_and_reasons_are_found() {
    assert_eq!(
        unknown("sum by (job) (rate(tenantry_step_duration_seconds_bucket{le=\"1\",step=~\"x\"}[5m]))"),
        [""; 0]
    );
    assert_eq!(unknown("tenantry_tenant > 0 and tenantry_leader == 1"), ["tenantry_tenant does not exist"]);
    let found = unknown("tenantry_modules{modul=\"x\",reason!=\"Halted\"}");
    assert_eq!(found, ["tenantry_modules has no label modul", "there is no reason Halted"]);
}

#[tokio::test]
#[ignore = "slow: make test-all"]
async fn alerts_fire_when_they_should() {
    let promtool = promtool::find().await.unwrap();
    let run = |what: &str, subject: &Path| {
        let output = Command::new(&promtool).args([what, "rules"]).arg(subject).output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&printed));
    };
    run("check", &chart().join("files/alerts.yaml"));
    run("test", &file("alerts_test.yaml"));
    // What the chart makes of it, whose links lead where the values say.
    let helm = Helm::new(None).await.unwrap();
    let values = file("values/everything.yaml").display().to_string();
    let rendered = render(&helm, &["--values", &values, "--set", "crds.install=false"]).await;
    let spec = &of_kind(&rendered, "PrometheusRule")[0]["spec"];
    let rules = std::env::temp_dir().join(format!("tenantry-rules-{}.yaml", std::process::id()));
    fs::write(&rules, spec.to_string()).unwrap();
    run("check", &rules);
    fs::remove_file(&rules).unwrap();
    let groups = spec["groups"].as_array().unwrap();
    let rendered: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert_eq!(rendered.len(), alerts().len());
    for alert in rendered {
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        assert!(url.starts_with("https://wiki.example/tenantry/runbooks#tenantry"), "{url}");
    }
}
