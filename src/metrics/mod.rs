//! Metrics, for Prometheus.
//!
//! A tenant's name is a label only while the tenant is near a limit, and of a thousand tenants at most: otherwise, ten thousand
//! tenants would create ten thousand series per metric.

pub mod catalog;
mod fleet;
mod process;
mod series;

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry},
};

pub use self::fleet::{ObjectSeries, PlanSeries, PurgeSeries, ServerSeries, TenantSeries, WorkflowSeries};
use self::{fleet::FleetGauges, series::Series};

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
struct ByFailedStep {
    step: &'static str,
    reason: &'static str,
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
    provision_failures: Family<ByFailedStep, Counter>,
    fleet: FleetGauges,
    tombstones: Family<ByAccess, Gauge>,
    leftover_databases: Gauge,
    vanished_tenants: Gauge,
    leftover_logins: Gauge,
    tenant_sessions_ended: Family<ByReason, Counter>,
    limits: Series,
    provision_durations: Histogram,
    leader: Gauge,
    breaker: Gauge,
    invalid_objects: Family<ByKind, Gauge>,
    modules_behind: Family<ByModule, Gauge>,
    trace_spans: Family<ByOutcome, Counter>,
}

/// Registers the metric that has this name in queries, with its help text. The library adds what the type requires.
fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, metric: &M) {
    let short = name.trim_start_matches("tenantry_").trim_end_matches("_total");
    registry.register(short, catalog::help(name), metric.clone());
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
        add(registry, "tenantry_reconcile_total", &reconciles);
        let reconcile_durations = Histograms::new_with_constructor(histogram as fn() -> Histogram);
        add(registry, "tenantry_reconcile_duration_seconds", &reconcile_durations);
        let reconcile_errors = Family::default();
        add(registry, "tenantry_reconcile_errors_total", &reconcile_errors);
        let steps = Family::default();
        add(registry, "tenantry_steps_total", &steps);
        let step_durations = Histograms::new_with_constructor(histogram as fn() -> Histogram);
        add(registry, "tenantry_step_duration_seconds", &step_durations);
        let provision_failures = Family::default();
        add(registry, "tenantry_provision_step_failures_total", &provision_failures);
        let fleet = FleetGauges::default();
        fleet.register(registry);
        let tombstones = Family::default();
        add(registry, "tenantry_tombstones", &tombstones);
        let leftover_databases = Gauge::default();
        add(registry, "tenantry_leftover_databases", &leftover_databases);
        let vanished_tenants = Gauge::default();
        add(registry, "tenantry_vanished_tenants", &vanished_tenants);
        let leftover_logins = Gauge::default();
        add(registry, "tenantry_leftover_logins", &leftover_logins);
        let tenant_sessions_ended = Family::default();
        add(registry, "tenantry_tenant_sessions_ended_total", &tenant_sessions_ended);
        let limits = Series::default();
        add(registry, "tenantry_tenant_limit_usage_ratio", &limits.family);
        let provision_durations = histogram();
        add(registry, "tenantry_provision_duration_seconds", &provision_durations);
        let leader = Gauge::default();
        add(registry, "tenantry_leader", &leader);
        let breaker = Gauge::default();
        add(registry, "tenantry_mass_deletion_breaker_open", &breaker);
        let invalid_objects = Family::default();
        add(registry, "tenantry_invalid_objects", &invalid_objects);
        let modules_behind = Family::default();
        add(registry, "tenantry_module_tenants_behind", &modules_behind);
        let trace_spans = Family::default();
        add(registry, "tenantry_trace_spans_total", &trace_spans);
        registry.register(
            "build",
            catalog::help("tenantry_build_info"),
            Info::new(Build { version: env!("CARGO_PKG_VERSION"), revision: revision() }),
        );

        Self {
            registry: Arc::new(process_wide),
            reconciles,
            reconcile_durations,
            reconcile_errors,
            steps,
            step_durations,
            provision_failures,
            fleet,
            tombstones,
            leftover_databases,
            vanished_tenants,
            leftover_logins,
            tenant_sessions_ended,
            limits,
            provision_durations,
            leader,
            breaker,
            invalid_objects,
            modules_behind,
            trace_spans,
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

    /// A step of a provisioning has failed, for this reason of a condition.
    pub fn provision_step_failed(&self, step: &'static str, reason: &'static str) {
        self.provision_failures.get_or_create(&ByFailedStep { step, reason }).inc();
    }

    /// The tenants that are near a limit or exceed it. Others have no series. At most [`MAX_NEAR`] are exported.
    pub fn near_limits(&self, near: impl IntoIterator<Item = NearLimit>) {
        self.limits.replace(near.into_iter().take(MAX_NEAR).map(
            |NearLimit { namespace, tenant, limit, ratio }| {
                (vec![("namespace", namespace), ("tenant", tenant), ("limit", limit)], ratio)
            },
        ));
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

    /// Spans of traces were exported, or lost.
    pub fn trace_spans(&self, outcome: &'static str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.trace_spans.get_or_create(&ByOutcome { outcome }).inc_by(count);
    }

    /// All metrics, as OpenMetrics text: see [`CONTENT_TYPE`].
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        // The library writes empty braces for a family without labels. No value of a label has them.
        Ok(text.replace("{} ", " "))
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
mod tests;
