//! What is exported, and how, is the catalog's.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn near(tenant: &str) -> NearLimit {
    NearLimit { namespace: "customers".into(), tenant: tenant.into(), limit: "users".into(), ratio: 0.8 }
}

/// All metrics, each with a value.
fn full() -> Metrics {
    let metrics = Metrics::new();
    metrics.reconciled("changed", Duration::from_millis(3));
    metrics.reconcile_failed("ServerUnreachable");
    metrics.step("CreateDatabase", "succeeded", Duration::from_millis(54));
    metrics.provision_step_failed("CreateDatabase", "DiskFull");
    let active = TenantSeries { state: "Active", condition: "Ready", reason: "Active".into(), count: 3 };
    metrics.tenants(3, [TenantSeries { state: "Failed", ..active.clone() }]);
    metrics.tenants(3, [active]);
    let workflow = WorkflowSeries { kind: "Provision", condition: "Stalled", count: 1, oldest_seconds: 7.5 };
    metrics.workflows(&[workflow]);
    metrics.tenant_credentials(86_400.5, 60.0);
    metrics.purges(&PurgeSeries {
        by_state: vec![("Due", 2)],
        next: Some(1_700_000_000),
        within_day: 4,
        overdue_seconds: 9.0,
    });
    let object =
        |name: &str| ObjectSeries { name: name.into(), condition: "Stalled", reason: "TlsFailed".into() };
    let server = ServerSeries {
        name: "default".into(),
        tenants: Some(3),
        pending: Some(1),
        login_changed: Some(1_700_000_000),
        authority_expires: Some(1_800_000_000),
    };
    metrics.database_servers(vec![object("default")], &[server]);
    metrics.modules(vec![object("billing")]);
    let by_state = [("Current", 1), ("Pending", 2), ("Stalled", 0)];
    metrics.plan_tenants(vec![PlanSeries { plan: "free".into(), by_state }]);
    metrics.registry_tenants([("active", 3), ("failed", 0)]);
    metrics.registry_up(true);
    metrics.tombstones(2, 1);
    metrics.leftovers(1, 1);
    metrics.vanished_tenants(1);
    metrics.breaker(true);
    metrics.invalid_objects("Tenant", 0, 1);
    metrics.tenant_session_ended("Kept");
    metrics.modules_behind([("former", 1)]);
    metrics.modules_behind([("billing", 2)]);
    metrics.provisioned(Duration::from_millis(700));
    metrics.leader(true);
    metrics.trace_spans("exported", 3);
    metrics.near_limits([near("former")]);
    metrics.near_limits([near("acme")]);
    metrics
}

#[test]
fn names_and_labels_are_stable() {
    let text = full().encode().unwrap();
    for line in [
        r#"tenantry_reconcile_total{result="changed"} 1"#,
        r#"tenantry_reconcile_duration_seconds_bucket{le="0.005",outcome="changed"} 1"#,
        r#"tenantry_reconcile_errors_total{reason="ServerUnreachable"} 1"#,
        r#"tenantry_steps_total{step="CreateDatabase",outcome="succeeded"} 1"#,
        r#"tenantry_step_duration_seconds_count{step="CreateDatabase",outcome="succeeded"} 1"#,
        r#"tenantry_provision_step_failures_total{step="CreateDatabase",reason="DiskFull"} 1"#,
        r#"tenantry_tenant_sessions_ended_total{reason="Kept"} 1"#,
        r#"tenantry_tenants{state="Active",condition="Ready",reason="Active"} 3.0"#,
        r#"tenantry_database_servers{server="default",condition="Stalled",reason="TlsFailed"} 1.0"#,
        r#"tenantry_module_tenants_behind{module="billing"} 2"#,
        r#"tenantry_trace_spans_total{outcome="exported"} 3"#,
        "tenantry_provision_duration_seconds_sum 0.7",
        "tenantry_leader 1",
        "tenantry_active_tenants 3.0",
        "tenantry_tenant_credentials_oldest_age_seconds 86400.5",
        "tenantry_tenant_credentials_rotation_overdue_seconds 60.0",
        r#"tenantry_tenant_limit_usage_ratio{namespace="customers",tenant="acme",limit="users"} 0.8"#,
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    for former in ["=\"former\"", "state=\"Failed\""] {
        assert!(!text.contains(former), "{text}");
    }
    assert!(
        text.contains(&format!("tenantry_build_info{{version=\"{}\"", env!("CARGO_PKG_VERSION"))),
        "{text}"
    );
}

/// The metrics of a text in the OpenMetrics format: the name in queries, the type, and the labels.
fn exported(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut types = BTreeMap::new();
    let mut found: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            types.insert(name.to_owned(), kind.to_owned());
        } else if !line.starts_with('#') {
            let sample = line.split([' ', '{']).next().unwrap();
            let family = ["", "_total", "_info", "_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| sample.strip_suffix(suffix).filter(|name| types.contains_key(*name)));
            let family = family.unwrap_or_else(|| panic!("{line} has no type"));
            let kind = types[family].clone();
            let name = if kind == "histogram" { family } else { sample };
            let labels = line.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap());
            let labels = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            let entry = found.entry(name.to_owned()).or_insert((kind, BTreeSet::new()));
            entry.1.extend(labels.filter(|label| label != "le"));
        }
    }
    found
}

#[test]
fn every_metric_is_in_the_catalog_as_it_is_exported() {
    let catalogued: BTreeMap<String, (String, BTreeSet<String>)> = catalog::METRICS
        .iter()
        .map(|entry| {
            let kind = if entry.name.ends_with("_info") { "info".into() } else { entry.kind.to_string() };
            let labels = entry.labels.iter().map(|label| (*label).to_owned()).collect();
            (entry.name.to_owned(), (kind, labels))
        })
        .collect();
    assert_eq!(exported(&full().encode().unwrap()), catalogued, "left: exported, right: the catalog");
}

#[test]
fn replica_that_does_not_lead_reports_no_tenants() {
    let text = Metrics::new().encode().unwrap();
    for name in ["tenantry_active_tenants", "tenantry_registry_up", "tenantry_purge_overdue_seconds"] {
        assert!(!text.contains(&format!("\n{name}")), "{text}");
    }
}
