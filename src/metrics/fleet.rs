//! The gauges over all tenants, servers, plans and modules. Only a leader sets them: the other replicas have no series.

use prometheus_client::registry::Registry;

use super::{
    Metrics, add,
    series::{Labels, Series},
};

/// Gauges that are set as a whole from time to time.
#[derive(Clone, Debug, Default)]
pub(super) struct FleetGauges {
    pub(super) active: Series,
    pub(super) tenants: Series,
    pub(super) registry_tenants: Series,
    pub(super) registry_up: Series,
    pub(super) workflows: Series,
    pub(super) workflow_ages: Series,
    pub(super) oldest_credentials: Series,
    pub(super) overdue_rotation: Series,
    pub(super) purges: Series,
    pub(super) next_purge: Series,
    pub(super) purges_within_day: Series,
    pub(super) purge_overdue: Series,
    pub(super) servers: Series,
    pub(super) server_tenants: Series,
    pub(super) server_pending: Series,
    pub(super) login_changed: Series,
    pub(super) authority_expires: Series,
    pub(super) plan_tenants: Series,
    pub(super) modules: Series,
}

impl FleetGauges {
    /// Registers all of them.
    pub(super) fn register(&self, registry: &mut Registry) {
        for (name, series) in [
            ("tenantry_active_tenants", &self.active),
            ("tenantry_tenants", &self.tenants),
            ("tenantry_registry_tenants", &self.registry_tenants),
            ("tenantry_registry_up", &self.registry_up),
            ("tenantry_unfinished_workflows", &self.workflows),
            ("tenantry_oldest_unfinished_workflow_age_seconds", &self.workflow_ages),
            ("tenantry_tenant_credentials_oldest_age_seconds", &self.oldest_credentials),
            ("tenantry_tenant_credentials_rotation_overdue_seconds", &self.overdue_rotation),
            ("tenantry_purge_queue", &self.purges),
            ("tenantry_next_purge_timestamp_seconds", &self.next_purge),
            ("tenantry_purges_within_day", &self.purges_within_day),
            ("tenantry_purge_overdue_seconds", &self.purge_overdue),
            ("tenantry_database_servers", &self.servers),
            ("tenantry_database_server_tenants", &self.server_tenants),
            ("tenantry_database_server_pending_tenants", &self.server_pending),
            ("tenantry_database_server_login_changed_timestamp_seconds", &self.login_changed),
            ("tenantry_database_server_authority_expires_timestamp_seconds", &self.authority_expires),
            ("tenantry_plan_tenants", &self.plan_tenants),
            ("tenantry_modules", &self.modules),
        ] {
            add(registry, name, &series.family);
        }
    }
}

/// Tenants of one state, condition and reason.
#[derive(Clone, Debug)]
pub struct TenantSeries {
    /// The state.
    pub state: &'static str,
    /// The condition that says whether what the spec asks for is in force.
    pub condition: &'static str,
    /// Its reason.
    pub reason: String,
    /// How many.
    pub count: usize,
}

/// Unfinished workflows of one kind and condition.
#[derive(Clone, Debug)]
pub struct WorkflowSeries {
    /// The kind.
    pub kind: &'static str,
    /// The condition of their Tenants.
    pub condition: &'static str,
    /// How many.
    pub count: usize,
    /// The age of the oldest, in seconds.
    pub oldest_seconds: f64,
}

/// One object of which there are few.
#[derive(Clone, Debug)]
pub struct ObjectSeries {
    /// Its name.
    pub name: String,
    /// The condition that says whether it can be used.
    pub condition: &'static str,
    /// Its reason.
    pub reason: String,
}

/// The figures of a server.
#[derive(Clone, Debug, Default)]
pub struct ServerSeries {
    /// Its name.
    pub name: String,
    /// Tenants with a database on it.
    pub tenants: Option<i64>,
    /// Those whose Secret does not publish its present address.
    pub pending: Option<i64>,
    /// When the Secret with the operator's login was changed, in seconds since 1970.
    pub login_changed: Option<i64>,
    /// When its own certificate authority expires, in seconds since 1970.
    pub authority_expires: Option<i64>,
}

/// The purges that are to come.
#[derive(Clone, Debug, Default)]
pub struct PurgeSeries {
    /// How many wait for what.
    pub by_state: Vec<(&'static str, usize)>,
    /// When the next one begins, in seconds since 1970.
    pub next: Option<i64>,
    /// How many begin within a day.
    pub within_day: usize,
    /// For how long the oldest one is due, in seconds.
    pub overdue_seconds: f64,
}

/// The tenants of a plan.
#[derive(Clone, Debug)]
pub struct PlanSeries {
    /// Its name.
    pub plan: String,
    /// How many are how far.
    pub by_state: [(&'static str, usize); 3],
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a floating-point number")]
fn number(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a floating-point number")]
fn seconds(at: i64) -> f64 {
    at as f64
}

fn objects(objects: Vec<ObjectSeries>, label: &'static str) -> impl Iterator<Item = (Labels, f64)> {
    objects.into_iter().map(move |ObjectSeries { name, condition, reason }| {
        (vec![(label, name), ("condition", condition.to_owned()), ("reason", reason)], 1.0)
    })
}

impl Metrics {
    /// The number of tenants in use, and all tenants, each in one series.
    pub fn tenants(&self, active: usize, series: impl IntoIterator<Item = TenantSeries>) {
        self.fleet.active.replace_by(Some(number(active)));
        self.fleet.tenants.replace(series.into_iter().map(
            |TenantSeries { state, condition, reason, count }| {
                let labels =
                    [("state", state.to_owned()), ("condition", condition.to_owned()), ("reason", reason)];
                (labels.to_vec(), number(count))
            },
        ));
    }

    /// The unfinished workflows of all Tenants.
    pub fn workflows(&self, series: &[WorkflowSeries]) {
        let each = |value: fn(&WorkflowSeries) -> f64| {
            series.iter().map(move |all| {
                let labels = vec![("kind", all.kind.to_owned()), ("condition", all.condition.to_owned())];
                (labels, value(all))
            })
        };
        self.fleet.workflows.replace(each(|all| number(all.count)));
        self.fleet.workflow_ages.replace(each(|all| all.oldest_seconds));
    }

    /// The age of the oldest password of a tenant, and for how long the rotation that is due longest is not done: seconds.
    pub fn tenant_credentials(&self, oldest: f64, overdue: f64) {
        self.fleet.oldest_credentials.replace_by(Some(oldest));
        self.fleet.overdue_rotation.replace_by(Some(overdue));
    }

    /// The purges that are to come.
    pub fn purges(&self, purges: &PurgeSeries) {
        let by_state = purges.by_state.iter();
        self.fleet
            .purges
            .replace(by_state.map(|(state, count)| (vec![("state", (*state).to_owned())], number(*count))));
        self.fleet.next_purge.replace_by(purges.next.map(seconds));
        self.fleet.purges_within_day.replace_by(Some(number(purges.within_day)));
        self.fleet.purge_overdue.replace_by(Some(purges.overdue_seconds));
    }

    /// All DatabaseServers.
    pub fn database_servers(&self, conditions: Vec<ObjectSeries>, figures: &[ServerSeries]) {
        let each = |value: fn(&ServerSeries) -> Option<i64>| {
            figures.iter().filter_map(move |server| {
                Some((vec![("server", server.name.clone())], seconds(value(server)?)))
            })
        };
        self.fleet.servers.replace(objects(conditions, "server"));
        self.fleet.server_tenants.replace(each(|server| server.tenants));
        self.fleet.server_pending.replace(each(|server| server.pending));
        self.fleet.login_changed.replace(each(|server| server.login_changed));
        self.fleet.authority_expires.replace(each(|server| server.authority_expires));
    }

    /// All TenantModules.
    pub fn modules(&self, modules: Vec<ObjectSeries>) {
        self.fleet.modules.replace(objects(modules, "module"));
    }

    /// The tenants of all plans.
    pub fn plan_tenants(&self, plans: Vec<PlanSeries>) {
        self.fleet.plan_tenants.replace(plans.into_iter().flat_map(|PlanSeries { plan, by_state }| {
            by_state.map(|(state, count)| {
                (vec![("plan", plan.clone()), ("state", state.to_owned())], number(count))
            })
        }));
    }

    /// The number of rows in the registry, by status. All statuses are listed.
    pub fn registry_tenants(&self, rows: impl IntoIterator<Item = (&'static str, usize)>) {
        let series = rows.into_iter();
        self.fleet
            .registry_tenants
            .replace(series.map(|(status, count)| (vec![("status", status.to_owned())], number(count))));
    }

    /// Whether the registry was read.
    pub fn registry_up(&self, up: bool) {
        self.fleet.registry_up.replace_by(Some(f64::from(up)));
    }
}
