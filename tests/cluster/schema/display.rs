//! What kubectl shows.

use std::time::Duration;

use kube::CustomResourceExt;
use serde_json::{Value, json};
use tenantry::api::{
    database_server::DatabaseServer, plan::TenantPlan, tenant::Tenant, tenant_module::TenantModule,
};
use tenantry_dev::kubectl::Kubectl;

use super::{definition_in, tenant};
use tenantry_test_support::shared_operator;

const GROUP: &str = "display.example";

/// kubectl, and a CRD of this test's own.
async fn kubectl<K: CustomResourceExt>() -> Kubectl {
    let plane = shared_operator::ENVIRONMENT.control_plane();
    let client = plane.client().await.unwrap();
    super::install(&client, &definition_in::<K>(GROUP)).await.unwrap();
    plane.kubectl()
}

fn manifest(kind: &str, metadata: Value, spec: Value) -> String {
    json!({"apiVersion": format!("{GROUP}/v1alpha1"), "kind": kind, "metadata": metadata, "spec": spec})
        .to_string()
}

/// Runs kubectl until it succeeds: discovery shows a new CRD a little later.
async fn eventually(kubectl: &Kubectl, arguments: &[&str]) -> String {
    let answer = async {
        loop {
            if let Ok(answer) = kubectl.run(arguments).await {
                return answer;
            }
        }
    };
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, answer)
        .await
        .unwrap_or_else(|_| panic!("kubectl {arguments:?} never worked"))
}

/// The header and the only row, without the age, split where two columns are.
#[track_caller]
fn table(text: &str) -> (Vec<&str>, Vec<&str>) {
    let lines: Vec<&str> = text.lines().collect();
    let [header, row] = lines[..] else { panic!("a header and a row were expected:\n{text}") };
    (header.split_whitespace().collect(), row.split_whitespace().collect())
}

#[tokio::test]
async fn tenant_columns() {
    let kubectl = kubectl::<Tenant>().await;
    kubectl.run(&["create", "namespace", "display"]).await.unwrap();
    let object = manifest("Tenant", json!({"name": "one", "namespace": "display"}), tenant());
    kubectl.apply(&object).await.unwrap();
    let tenants = ["-n", "display", "get", "tenants.display.example"];

    // Not observed by an operator: the columns are empty.
    let text = kubectl.run(&tenants).await.unwrap();
    let (header, row) = table(&text);
    assert_eq!(header, ["NAME", "SLUG", "PLAN", "STATE", "ACCESS", "READY", "OPEN", "GATES", "AGE"]);
    assert_eq!(row[..2], ["one", "acme"]);
    assert_eq!(row.len(), 3, "{text}");

    let condition = |type_: &str, status: &str, reason: &str| {
        json!({
            "type": type_, "status": status, "reason": reason, "message": "",
            "lastTransitionTime": "2026-11-21T00:00:00Z", "observedGeneration": 1,
        })
    };
    let status = json!({"status": {
        "observedGeneration": 1, "state": "Active", "plan": "starter", "access": "ReadWrite",
        "server": "default", "database": "tenant_acme", "slug": "acme-old", "openGates": ["contract", "go-live"],
        "conditions": [condition("Registered", "True", "Provisioned"), condition("Ready", "False", "Waiting")],
    }});
    let status = status.to_string();
    let patch = [
        "-n",
        "display",
        "patch",
        "tenants.display.example",
        "one",
        "--subresource=status",
        "--type=merge",
        "-p",
    ];
    kubectl.run(&[&patch[..], &[&status]].concat()).await.unwrap();
    let text = kubectl.run(&tenants).await.unwrap();
    let shown = ["one", "acme", "starter", "Active", "ReadWrite", "False", r#"["contract","go-live"]"#];
    assert_eq!(table(&text).1[..7], shown);
    let text = kubectl.run(&[&tenants[..], &["-o", "wide"]].concat()).await.unwrap();
    let (header, row) = table(&text);
    assert_eq!(
        header,
        [
            "NAME", "SLUG", "PLAN", "STATE", "ACCESS", "READY", "OPEN", "GATES", "DATABASE", "SERVER",
            "PRESENT", "SLUG", "REASON", "PAUSED", "AGE"
        ]
    );
    assert_eq!(row[7..11], ["tenant_acme", "default", "acme-old", "Waiting"]);

    for (selector, found) in [
        ("spec.plan=starter", true),
        ("spec.plan=free", false),
        ("spec.slug=acme", true),
        ("status.state=Active", true),
        ("status.state=Suspended", false),
    ] {
        let selector = format!("--field-selector={selector}");
        let text = kubectl.run(&[&tenants[..], &["-o", "name", &selector]].concat()).await.unwrap();
        assert_eq!(!text.is_empty(), found, "{selector}: {text:?}");
    }
}

#[tokio::test]
async fn plan_columns_show_limits() {
    let kubectl = kubectl::<TenantPlan>().await;
    let limits =
        json!({"users": 100, "projects": "unlimited", "storageBytes": 10737418240_i64, "connections": 50});
    let spec = json!({"limits": limits, "features": ["sso"], "sla": "99.5"});
    kubectl.apply(&manifest("TenantPlan", json!({"name": "one"}), spec)).await.unwrap();
    let text = kubectl.run(&["get", "tenantplans.display.example"]).await.unwrap();
    let (header, row) = table(&text);
    assert_eq!(
        header,
        [
            "NAME",
            "USERS",
            "PROJECTS",
            "STORAGE",
            "CONNECTIONS",
            "SLA",
            "USED",
            "BY",
            "READY",
            "LIMITS",
            "KNOWN",
            "AGE"
        ]
    );
    // No operator has read it: these columns are empty.
    assert_eq!(row[..6], ["one", "100", "unlimited", "10737418240", "50", "99.5"]);
    assert_eq!(row.len(), 7, "{text}");
    let status = json!({"status": {"observedGeneration": 1, "usedBy": 1000, "pending": 360, "conditions": [{
        "type": "Ready", "status": "False", "reason": "Enforcing", "message": "",
        "lastTransitionTime": "2026-11-21T00:00:00Z",
    }, {
        "type": "LimitsKnown", "status": "False", "reason": "UnknownLimit", "message": "",
        "lastTransitionTime": "2026-11-21T00:00:00Z",
    }]}});
    let status = status.to_string();
    let plans = "tenantplans.display.example";
    kubectl
        .run(&["patch", plans, "one", "--subresource=status", "--type=merge", "-p", &status])
        .await
        .unwrap();
    let text = kubectl.run(&["get", plans]).await.unwrap();
    assert_eq!(table(&text).1[6..9], ["1000", "False", "False"]);
    let text = kubectl.run(&["get", "tenantplans.display.example", "-o", "wide"]).await.unwrap();
    let (header, row) = table(&text);
    assert_eq!((header[6], row[6]), ("FEATURES", r#"["sso"]"#));
    assert_eq!((header[12], row[10]), ("PENDING", "360"));
}

#[tokio::test]
async fn server_columns_show_readiness() {
    let kubectl = kubectl::<DatabaseServer>().await;
    let spec = json!({"engine": "PostgreSQL", "host": "db.example", "adminSecretRef": {"name": "db-admin"}});
    kubectl.apply(&manifest("DatabaseServer", json!({"name": "one"}), spec)).await.unwrap();
    let status = json!({"status": {"observedGeneration": 1, "version": "18.1", "tenants": 7, "pending": 2, "conditions": [{
        "type": "Ready", "status": "True", "reason": "Connected", "message": "",
        "lastTransitionTime": "2026-11-21T00:00:00Z",
    }]}});
    let status = status.to_string();
    let servers = "databaseservers.display.example";
    kubectl
        .run(&["patch", servers, "one", "--subresource=status", "--type=merge", "-p", &status])
        .await
        .unwrap();
    let text = kubectl.run(&["get", servers]).await.unwrap();
    let (header, row) = table(&text);
    assert_eq!(header, ["NAME", "HOST", "VERSION", "TENANTS", "PENDING", "READY", "AGE"]);
    assert_eq!(row[..6], ["one", "db.example", "18.1", "7", "2", "True"]);
    let text = kubectl.run(&["get", servers, "-o", "wide"]).await.unwrap();
    let (header, row) = table(&text);
    assert_eq!((header[6], row[6]), ("REASON", "Connected"));
}

#[tokio::test]
async fn module_columns_show_versions_and_tenants() {
    let kubectl = kubectl::<TenantModule>().await;
    let spec = json!({"source": {"configMaps": [{"name": "billing-1"}]}});
    kubectl.apply(&manifest("TenantModule", json!({"name": "one"}), spec)).await.unwrap();
    let status = json!({"status": {"observedGeneration": 1, "source": "ConfigMaps", "version": "7", "latest": "8",
        "tenants": {"total": 30, "current": 28, "behind": 2, "failed": 1},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-11-21T00:00:00Z"}]}});
    let status = status.to_string();
    let modules = "tenantmodules.display.example";
    kubectl
        .run(&["patch", modules, "one", "--subresource=status", "--type=merge", "-p", &status])
        .await
        .unwrap();
    let text = kubectl.run(&["get", modules]).await.unwrap();
    let (header, row) = table(&text);
    assert_eq!(
        header,
        ["NAME", "SOURCE", "VERSION", "LATEST", "TENANTS", "BEHIND", "READY", "REASON", "AGE"]
    );
    assert_eq!(row[..8], ["one", "ConfigMaps", "7", "8", "30", "2", "True", "Accepted"]);
}

#[tokio::test]
async fn short_names_category_and_manual_work() {
    let kubectl = shared_operator::ENVIRONMENT.control_plane().kubectl();
    kubectl.run(&["create", "namespace", "display-words"]).await.unwrap();
    for name in ["ten", "tenant", "tenantplan", "hold", "dbs", "databaseserver", "tmod", "supp", "tenantry"] {
        eventually(&kubectl, &["-n", "display-words", "get", name]).await;
    }

    let resources = kubectl.run(&["api-resources", "--categories=tenantry", "--no-headers"]).await.unwrap();
    let mut kinds: Vec<&str> = resources.lines().filter_map(|line| line.split_whitespace().last()).collect();
    kinds.sort_unstable();
    let expected = [
        "DatabaseServer",
        "SupportAccess",
        "Tenant",
        "TenantAccount",
        "TenantHold",
        "TenantModule",
        "TenantPlan",
    ];
    assert_eq!(kinds, expected);

    for (path, words) in [
        ("tenant", "A Tenant is a customer with a PostgreSQL database of its own."),
        ("tenant.spec", "A slug is unique among all tenants"),
        ("tenant.spec.deletionPolicy", "Retain never drops it"),
        (
            "tenant.spec.offboarding.gracePeriodSeconds",
            "Grace period in seconds, from 0 to 315360000 (ten years).",
        ),
        ("tenant.spec.admins.credential", "OneTimePassword: a password that must be replaced"),
        ("tenant.status.workflow.steps.sqlState", "PostgreSQL's error code"),
        ("tenantplan.spec.limits", "apiCallsPer15Minutes"),
        ("tmod", "NNNN_name.sql, from 0001 without gaps"),
        ("tmod.spec.source.configMaps", "ConfigMaps in the operator's namespace whose keys are files"),
        ("dbs.spec.tls.mode", "VerifyFull (the default)"),
    ] {
        // kubectl wraps lines.
        let text = eventually(&kubectl, &["explain", path]).await;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(words), "kubectl explain {path}: {text}");
    }
}

#[tokio::test]
async fn kubectl_refuses_unknown_field() {
    let kubectl = shared_operator::ENVIRONMENT.control_plane().kubectl();
    kubectl.run(&["create", "namespace", "display-unknown"]).await.unwrap();
    let mut spec = tenant();
    spec["offBoarding"] = json!({"gracePeriodSeconds": 0});
    let object = json!({
        "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
        "metadata": {"name": "one", "namespace": "display-unknown"}, "spec": spec,
    });
    let error = kubectl.run_with(&["apply", "-f", "-"], &object.to_string()).await.unwrap_err().to_string();
    assert!(error.contains(r#"unknown field "spec.offBoarding""#), "{error}");
}
