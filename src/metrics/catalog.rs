//! Every metric: name, type, labels, unit, meaning. The registration takes the help text from here, and `docs/metrics.md`
//! is written from here: `UPDATE=1 cargo test --test web`.

use std::fmt;

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricType {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Observations by size: `_bucket`, `_sum` and `_count`.
    Histogram,
}

impl fmt::Display for MetricType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct MetricEntry {
    /// The name in queries, without the suffixes of a histogram.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricType,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The unit of its value.
    pub unit: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

const fn entry(
    kind: MetricType,
    name: &'static str,
    labels: &'static [&'static str],
    unit: &'static str,
    meaning: &'static str,
) -> MetricEntry {
    MetricEntry { name, kind, labels, unit, meaning }
}

use MetricType::{Counter, Gauge, Histogram};

/// All metrics, by subject.
pub const METRICS: &[MetricEntry] = &[
    entry(Gauge, "tenantry_leader", &[], "0 or 1", "1 on the process that leads, 0 on the others"),
    entry(
        Gauge,
        "tenantry_build_info",
        &["version", "revision"],
        "always 1",
        "Version and revision of this build",
    ),
    // Tenants.
    entry(
        Gauge,
        "tenantry_active_tenants",
        &[],
        "tenants",
        "Tenants in use: of state Active or Trial. Suspended tenants are not counted",
    ),
    entry(
        Gauge,
        "tenantry_tenants",
        &["state", "condition", "reason"],
        "tenants",
        "Tenants (objects), each counted once: by state, and by the condition that says whether what the spec asks for is in force",
    ),
    entry(
        Gauge,
        "tenantry_registry_tenants",
        &["status"],
        "rows",
        "Tenants in the registry, by status; of deprovisioned ones, only those whose database is retained",
    ),
    entry(
        Gauge,
        "tenantry_tenant_limit_usage_ratio",
        &["namespace", "tenant", "limit"],
        "share, 1 is the limit",
        "Share of a limit that a tenant uses, for tenants near a limit (80 %) or beyond it, at most a thousand",
    ),
    entry(
        Gauge,
        "tenantry_tenant_credentials_oldest_age_seconds",
        &[],
        "seconds",
        "Age of the oldest password in a tenant's connection Secret; one from before ages were recorded is as old as its Tenant; 0 if there is none",
    ),
    entry(
        Gauge,
        "tenantry_tenant_credentials_rotation_overdue_seconds",
        &[],
        "seconds",
        "For how long the rotation of a tenant's credentials that is due longest, by spec.credentials.rotateAfterSeconds, is not done; 0 if none is due. It is not due while a Tenant is Blocked, paused or being deprovisioned, or its previous login is valid",
    ),
    entry(
        Gauge,
        "tenantry_vanished_tenants",
        &[],
        "tenants",
        "Registered tenants that have no Tenant and keep their access while the breaker is open",
    ),
    entry(
        Gauge,
        "tenantry_invalid_objects",
        &["kind"],
        "objects",
        "Objects that exist and cannot be decoded, by kind",
    ),
    // Provisioning and other work.
    entry(
        Histogram,
        "tenantry_provision_duration_seconds",
        &[],
        "seconds",
        "From the creation of a Tenant to its activation",
    ),
    entry(
        Counter,
        "tenantry_provision_step_failures_total",
        &["step", "reason"],
        "failures",
        "Failed steps of provisionings. A step is tried again: a failure that passes counts too",
    ),
    entry(
        Gauge,
        "tenantry_unfinished_workflows",
        &["kind", "condition"],
        "workflows",
        "Workflows of Tenants that have not ended: they run, or wait for their next attempt",
    ),
    entry(
        Gauge,
        "tenantry_oldest_unfinished_workflow_age_seconds",
        &["kind", "condition"],
        "seconds",
        "How long ago the oldest of them began; 0 if there is none",
    ),
    entry(
        Counter,
        "tenantry_steps_total",
        &["step", "outcome"],
        "steps",
        "Steps of workflows, by step and outcome",
    ),
    entry(
        Histogram,
        "tenantry_step_duration_seconds",
        &["step", "outcome"],
        "seconds",
        "How long steps of workflows took, by step and outcome",
    ),
    entry(Counter, "tenantry_reconcile_total", &["result"], "reconciles", "Reconciles of Tenants, by result"),
    entry(
        Histogram,
        "tenantry_reconcile_duration_seconds",
        &["outcome"],
        "seconds",
        "How long reconciles of Tenants took, by outcome",
    ),
    entry(
        Counter,
        "tenantry_reconcile_errors_total",
        &["reason"],
        "reconciles",
        "Reconciles after which something was not in force, by reason",
    ),
    // Offboarding.
    entry(
        Gauge,
        "tenantry_tombstones",
        &["access"],
        "tenants",
        "Tenants that are being deprovisioned, by access: Blocked once revocation is verified, Unknown before",
    ),
    entry(
        Gauge,
        "tenantry_purge_queue",
        &["state"],
        "tenants",
        "Tombstones by what their purge waits for: Revocation (its access is not verified to be revoked), Grace (its time), Held (a legal hold, or spec.paused), Frozen (due, and the breaker is open), Due (it begins, or is tried again), Purging (it has begun)",
    ),
    entry(
        Gauge,
        "tenantry_next_purge_timestamp_seconds",
        &[],
        "seconds since 1970",
        "When the next purge begins that waits for its time alone; absent if none does",
    ),
    entry(
        Gauge,
        "tenantry_purges_within_day",
        &[],
        "tenants",
        "Tombstones in their grace whose purge begins within 24 hours",
    ),
    entry(
        Gauge,
        "tenantry_purge_overdue_seconds",
        &[],
        "seconds",
        "For how long the purge that has been due longest has not ended; 0 if none is due. Purges that the breaker froze are not counted",
    ),
    entry(
        Gauge,
        "tenantry_mass_deletion_breaker_open",
        &[],
        "0 or 1",
        "1 while purges are frozen because of many deletions, many purges, or many vanished Tenants at once, 0 otherwise",
    ),
    entry(
        Gauge,
        "tenantry_leftover_databases",
        &[],
        "databases",
        "Databases that exist although their tenant is deprovisioned, or unknown to the registry",
    ),
    entry(
        Gauge,
        "tenantry_leftover_logins",
        &[],
        "logins",
        "Logins that exist although their tenant is deprovisioned, or unknown to the registry",
    ),
    // Servers and the registry.
    entry(
        Gauge,
        "tenantry_registry_up",
        &[],
        "0 or 1",
        "Whether the last periodic read of the registry succeeded: every 30 s by default",
    ),
    entry(
        Gauge,
        "tenantry_database_servers",
        &["server", "condition", "reason"],
        "always 1",
        "DatabaseServers, each with one series: whether tenants can use it, and why not",
    ),
    entry(
        Gauge,
        "tenantry_database_server_tenants",
        &["server"],
        "tenants",
        "Tenants with a database on a server",
    ),
    entry(
        Gauge,
        "tenantry_database_server_pending_tenants",
        &["server"],
        "tenants",
        "Tenants whose connection Secret does not publish the present address of a server yet",
    ),
    entry(
        Gauge,
        "tenantry_database_server_login_changed_timestamp_seconds",
        &["server"],
        "seconds since 1970",
        "When the Secret with the operator's login to a server was last changed, or created",
    ),
    entry(
        Gauge,
        "tenantry_database_server_authority_expires_timestamp_seconds",
        &["server"],
        "seconds since 1970",
        "When the first certificate of a server's own certificate authority (tls.caSecretRef) expires; absent without one",
    ),
    entry(
        Counter,
        "tenantry_tenant_sessions_ended_total",
        &["reason"],
        "sessions",
        "Sessions and prepared transactions of tenants that were ended because others depend on what they used, by reason",
    ),
    // Plans and modules.
    entry(
        Gauge,
        "tenantry_plan_tenants",
        &["plan", "state"],
        "tenants",
        "Tenants on a plan: Current (they have its present content, or rest), Pending (they get it), Stalled (they cannot, because of something of their own)",
    ),
    entry(
        Gauge,
        "tenantry_modules",
        &["module", "condition", "reason"],
        "always 1",
        "TenantModules, each with one series: whether tenants get its newest content, and why not",
    ),
    entry(
        Gauge,
        "tenantry_module_tenants_behind",
        &["module"],
        "tenants",
        "Tenants that are not at the target version of a module",
    ),
    // The process.
    entry(
        Counter,
        "tenantry_trace_spans_total",
        &["outcome"],
        "spans",
        "Spans of traces: exported, failed (the collector did not take them), dropped (too many waited for it)",
    ),
    entry(Counter, "process_cpu_seconds_total", &[], "seconds", "Processor time"),
    entry(Gauge, "process_resident_memory_bytes", &[], "bytes", "Resident memory"),
    entry(Gauge, "process_open_fds", &[], "files", "Open file descriptors"),
    entry(Gauge, "process_threads", &[], "threads", "Threads"),
];

/// The labels, and their values.
const LABELS: &[(&str, &str)] = &[
    (
        "condition",
        "`Ready`; or why it is not: `Reconciling` (work is going on, or is tried again), `Stalled` (only a person can help), `NotReady` (neither, for example `spec.paused`), `Unknown` (no status yet)",
    ),
    ("reason", "a reason of [conditions.md](conditions.md#reasons)"),
    (
        "state",
        "`tenantry_tenants`: `status.state` of the Tenant, `Unknown` before it has one; the others: see the metric",
    ),
    ("status", "the status in the registry, in lower case"),
    ("kind", "`tenantry_invalid_objects`: the kind of the object; workflows: Provision, Update, Repair …"),
    ("step", "a step of [architecture.md](architecture.md#the-steps)"),
    ("outcome", "steps: `succeeded`, `failed`; reconciles: see `result`"),
    ("result", "`in_force`, `working`, `waiting`, `stuck`, `paused`"),
    ("access", "`Blocked`, `Unknown`"),
    ("server", "the name of a DatabaseServer"),
    ("plan", "the name of a TenantPlan"),
    ("module", "the name of a module"),
    ("namespace", "the namespace of a Tenant; Prometheus may call it `exported_namespace`"),
    ("tenant", "the name of a Tenant"),
    ("limit", "the name of a limit"),
    ("version", "the version of the operator"),
    ("revision", "the commit that it was built from"),
];

/// The help text of a metric of this process.
pub(super) fn help(name: &str) -> &'static str {
    METRICS.iter().find(|entry| entry.name == name).map_or("", |entry| entry.meaning)
}

const INTRODUCTION: &str = "# Metrics

What `/metrics` of each replica shows, as OpenMetrics text. This page is written from the code
(`src/metrics/catalog.rs`); a test refuses a metric that is not here.

Only the leader has the figures of tenants, servers and rows: on the other replicas they are absent or 0. So queries
aggregate over the replicas, with `max` or `sum`. All figures come from memory and from checks that run in any case:
a scrape queries nothing. No metric but `tenantry_tenant_limit_usage_ratio` has a label with a tenant's name.

[Alerts](runbooks.md) has the alerts that use them, and what to do about each; [health](health.md) explains `/health`.

| metric | type | labels | unit | meaning |
|---|---|---|---|---|
";

/// `docs/metrics.md`.
pub fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    for MetricEntry { name, kind, labels, unit, meaning } in METRICS {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        text += &format!("| `{name}` | {kind} | {} | {unit} | {meaning} |\n", labels.join(", "));
    }
    text += "\n| label | values |\n|---|---|\n";
    for (label, values) in LABELS {
        text += &format!("| `{label}` | {values} |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_label_is_explained_and_used() {
        let used: BTreeSet<&str> = METRICS.iter().flat_map(|entry| entry.labels).copied().collect();
        let explained: BTreeSet<&str> = LABELS.iter().map(|(label, _)| *label).collect();
        assert_eq!(used, explained);
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for MetricEntry { name, kind, .. } in METRICS {
            assert_eq!(*kind == Counter, name.ends_with("_total"), "{name}");
            let own = name.starts_with("tenantry_") || name.starts_with("process_");
            assert!(own && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        }
    }
}
