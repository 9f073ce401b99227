//! Metrics, for Prometheus.
//!
//! A tenant's name is a label only while the tenant is near a limit, and of a thousand tenants at most: otherwise, ten thousand
//! tenants would create ten thousand series per metric.

mod process;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From 5 ms, a statement, to 80 s, a server that does not respond.
const BUCKETS: [f64; 15] =
    [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0];

/// The maximum of tenants and limits that are labels.
const MAX_NEAR: usize = 1000;

/// A tenant that is near a limit, or exceeds it.
#[derive(Clone, Debug, PartialEq)]
pub struct NearLimit {
    /// The Tenant's namespace.
    pub namespace: String,
    /// The Tenant's name.
    pub tenant: String,
    /// The limit.
    pub limit: String,
    /// The share of it that is used: 1.0 is all of it.
    pub ratio: f64,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStep {
    step: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByModule {
    module: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByAccess {
    access: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLimit {
    namespace: String,
    tenant: String,
    limit: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
    revision: &'static str,
}

/// All metrics of this process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<ByResult, Counter>,
    reconcile_durations: Histograms<ByOutcome>,
    reconcile_errors: Family<ByReason, Counter>,
    steps: Family<ByStep, Counter>,
    step_durations: Histograms<ByStep>,
    tenants: Family<ByState, Gauge>,
    tombstones: Family<ByAccess, Gauge>,
    leftover_databases: Gauge,
    vanished_tenants: Gauge,
    leftover_logins: Gauge,
    tenant_sessions_ended: Family<ByReason, Counter>,
    limits: Family<ByLimit, Gauge<f64, AtomicU64>>,
    near: Arc<Mutex<HashSet<ByLimit>>>,
    provision_durations: Histogram,
    leader: Gauge,
    breaker: Gauge,
    invalid_objects: Family<ByKind, Gauge>,
    modules_behind: Family<ByModule, Gauge>,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Metrics {
    /// Creates and registers all metrics.
    pub fn new() -> Self {
        let mut process_wide = Registry::default();
        process_wide.register_collector(Box::new(process::Process));
        let registry = process_wide.sub_registry_with_prefix("tenantry");

        let reconciles = Family::default();
        registry.register("reconcile", "Reconciliations, by result", reconciles.clone());
        let reconcile_durations = Histograms::new_with_constructor(histogram as fn() -> Histogram);
        registry.register(
            "reconcile_duration_seconds",
            "How long reconciliations took, by outcome",
            reconcile_durations.clone(),
        );
        let reconcile_errors = Family::default();
        registry.register("reconcile_errors", "Failed reconciliations, by reason", reconcile_errors.clone());
        let steps = Family::default();
        registry.register("steps", "Steps of workflows, by step and outcome", steps.clone());
        let step_durations = Histograms::new_with_constructor(histogram as fn() -> Histogram);
        registry.register(
            "step_duration_seconds",
            "How long steps of workflows took, by step and outcome",
            step_durations.clone(),
        );
        let tenants = Family::default();
        registry.register("tenants", "Tenants, by state", tenants.clone());
        let tombstones = Family::default();
        registry.register(
            "tombstones",
            "Tenants that are being deprovisioned, by access: Blocked once revocation is verified",
            tombstones.clone(),
        );
        let leftover_databases = Gauge::default();
        registry.register(
            "leftover_databases",
            "Databases that exist although their tenant is deprovisioned, or unknown to the registry",
            leftover_databases.clone(),
        );
        let vanished_tenants = Gauge::default();
        registry.register(
            "vanished_tenants",
            "Registered tenants that have no Tenant and keep their access while the breaker is open",
            vanished_tenants.clone(),
        );
        let leftover_logins = Gauge::default();
        registry.register(
            "leftover_logins",
            "Logins that exist although their tenant is deprovisioned, or unknown to the registry",
            leftover_logins.clone(),
        );
        let tenant_sessions_ended = Family::default();
        registry.register(
            "tenant_sessions_ended",
            "Sessions and prepared transactions of tenants that were ended because others depend on what they used, by reason",
            tenant_sessions_ended.clone(),
        );
        let limits = Family::default();
        registry.register(
            "tenant_limit_usage_ratio",
            "Share of a limit that a tenant uses, for tenants near a limit (80 %) or beyond it",
            limits.clone(),
        );
        let provision_durations = histogram();
        registry.register(
            "provision_duration_seconds",
            "From the first reconcile of a Tenant to its activation",
            provision_durations.clone(),
        );
        let leader = Gauge::default();
        registry.register("leader", "1 on the process that leads, 0 on the others", leader.clone());
        let breaker = Gauge::default();
        registry.register(
            "mass_deletion_breaker_open",
            "1 while purges are frozen because of many deletions, many purges, or many vanished Tenants at once, 0 otherwise",
            breaker.clone(),
        );
        let invalid_objects = Family::default();
        registry.register(
            "invalid_objects",
            "Objects that exist and cannot be decoded, by kind",
            invalid_objects.clone(),
        );
        let modules_behind = Family::default();
        registry.register(
            "module_tenants_behind",
            "Tenants that are not at the target version of a module, by module",
            modules_behind.clone(),
        );
        registry.register(
            "build",
            "Version and revision of this build",
            Info::new(Build { version: env!("CARGO_PKG_VERSION"), revision: revision() }),
        );

        Self {
            registry: Arc::new(process_wide),
            reconciles,
            reconcile_durations,
            reconcile_errors,
            steps,
            step_durations,
            tenants,
            tombstones,
            leftover_databases,
            vanished_tenants,
            leftover_logins,
            tenant_sessions_ended,
            limits,
            near: Arc::default(),
            provision_durations,
            leader,
            breaker,
            invalid_objects,
            modules_behind,
        }
    }

    /// A reconcile has ended. `outcome` has few values.
    pub fn reconciled(&self, outcome: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ByResult { result: outcome }).inc();
        self.reconcile_durations.get_or_create(&ByOutcome { outcome }).observe(took.as_secs_f64());
    }

    /// A reconcile has failed, for this reason of a condition.
    pub fn reconcile_failed(&self, reason: &'static str) {
        self.reconcile_errors.get_or_create(&ByReason { reason: reason.to_owned() }).inc();
    }

    /// A step has ended, as `succeeded` or `failed`.
    pub fn step(&self, step: &'static str, outcome: &'static str, took: Duration) {
        let labels = ByStep { step, outcome };
        self.steps.get_or_create(&labels).inc();
        self.step_durations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// The number of tombstones, and of those whose access is not verified to be revoked.
    pub fn tombstones(&self, all: usize, access_open: usize) {
        let set = |access, count| {
            self.tombstones.get_or_create(&ByAccess { access }).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set("Blocked", all.saturating_sub(access_open));
        set("Unknown", access_open);
    }

    /// The numbers of databases and of logins whose tenant is deprovisioned, or unknown to the registry.
    pub fn leftovers(&self, databases: usize, logins: usize) {
        self.leftover_databases.set(i64::try_from(databases).unwrap_or(i64::MAX));
        self.leftover_logins.set(i64::try_from(logins).unwrap_or(i64::MAX));
    }

    /// A session or a prepared transaction of a tenant was ended, since others depend on what it used. `reason` has few
    /// values.
    pub fn tenant_session_ended(&self, reason: &'static str) {
        self.tenant_sessions_ended.get_or_create(&ByReason { reason: reason.to_owned() }).inc();
    }

    /// The number of tenants in each state. A state that is not listed keeps its number: list all of them.
    pub fn tenants<'a>(&self, counts: impl IntoIterator<Item = (&'a str, i64)>) {
        for (state, count) in counts {
            self.tenants.get_or_create(&ByState { state: state.to_owned() }).set(count);
        }
    }

    /// The tenants that are near a limit or exceed it. Others have no series. At most [`MAX_NEAR`] are exported.
    pub fn near_limits(&self, near: impl IntoIterator<Item = NearLimit>) {
        let mut current = HashSet::new();
        for NearLimit { namespace, tenant, limit, ratio } in near.into_iter().take(MAX_NEAR) {
            let labels = ByLimit { namespace, tenant, limit };
            self.limits.get_or_create(&labels).set(ratio);
            current.insert(labels);
        }
        // Only the others are removed: a scrape in between must not find none.
        let mut before = self.near.lock().unwrap_or_else(PoisonError::into_inner);
        for former in before.difference(&current) {
            self.limits.remove(former);
        }
        *before = current;
    }

    /// The number of tenants that are behind, of every module that exists.
    pub fn modules_behind<'a>(&self, counts: impl IntoIterator<Item = (&'a str, i64)>) {
        // There are few modules, and a scrape in between is harmless.
        self.modules_behind.clear();
        for (module, count) in counts {
            self.modules_behind.get_or_create(&ByModule { module: module.to_owned() }).set(count);
        }
    }

    /// A tenant was provisioned.
    pub fn provisioned(&self, took: Duration) {
        self.provision_durations.observe(took.as_secs_f64());
    }

    /// Whether this process leads.
    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// The number of registered tenants that have no Tenant and keep their access.
    pub fn vanished_tenants(&self, count: usize) {
        self.vanished_tenants.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether the breaker of mass deletions is open.
    pub fn breaker(&self, open: bool) {
        self.breaker.set(i64::from(open));
    }

    /// The number of objects of a kind that cannot be decoded changed in one watch.
    pub fn invalid_objects(&self, kind: &str, before: usize, after: usize) {
        let [before, after] = [before, after].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        self.invalid_objects.get_or_create(&ByKind { kind: kind.to_owned() }).inc_by(after - before);
    }

    /// All metrics, as OpenMetrics text: see [`CONTENT_TYPE`].
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The revision of this build: `TENANTRY_REVISION` at build time.
pub fn revision() -> &'static str {
    option_env!("TENANTRY_REVISION").unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_stable() {
        let metrics = Metrics::new();
        metrics.reconciled("changed", Duration::from_millis(3));
        metrics.reconcile_failed("ServerUnreachable");
        metrics.step("CreateDatabase", "succeeded", Duration::from_millis(54));
        metrics.tenants([("active", 3), ("failed", 0)]);
        metrics.tenant_session_ended("Kept");
        metrics.modules_behind([("former", 1)]);
        metrics.modules_behind([("billing", 2)]);
        metrics.provisioned(Duration::from_millis(700));
        metrics.leader(true);
        let near = |tenant: &str| NearLimit {
            namespace: "customers".into(),
            tenant: tenant.into(),
            limit: "users".into(),
            ratio: 0.8,
        };
        metrics.near_limits([near("former")]);
        metrics.near_limits([near("acme")]);
        let text = metrics.encode().unwrap();
        for line in [
            r#"tenantry_reconcile_total{result="changed"} 1"#,
            r#"tenantry_reconcile_duration_seconds_bucket{le="0.005",outcome="changed"} 1"#,
            r#"tenantry_reconcile_errors_total{reason="ServerUnreachable"} 1"#,
            r#"tenantry_steps_total{step="CreateDatabase",outcome="succeeded"} 1"#,
            r#"tenantry_step_duration_seconds_count{step="CreateDatabase",outcome="succeeded"} 1"#,
            r#"tenantry_tenant_sessions_ended_total{reason="Kept"} 1"#,
            r#"tenantry_tenants{state="active"} 3"#,
            r#"tenantry_tenants{state="failed"} 0"#,
            r#"tenantry_module_tenants_behind{module="billing"} 2"#,
            "tenantry_provision_duration_seconds_sum 0.7",
            "tenantry_leader 1",
            r#"tenantry_tenant_limit_usage_ratio{namespace="customers",tenant="acme",limit="users"} 0.8"#,
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("=\"former\""), "{text}");
        assert!(
            text.contains(&format!("tenantry_build_info{{version=\"{}\"", env!("CARGO_PKG_VERSION"))),
            "{text}"
        );
    }
}
