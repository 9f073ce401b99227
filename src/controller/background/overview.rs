//! Counts tenants, servers, modules and purges, for the metrics and for `/health`: from memory alone.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    api::{reason::Reason, tenant_status::TenantState},
    controller::{
        context::{Context, SharedContext},
        state::{servers::ServerState, tombstones::PurgeQueue},
    },
    domain::{
        health::{HealthCause, HealthFacts},
        overview::{TenantOverview, standing},
    },
    metrics::{ObjectSeries, PurgeSeries, ServerSeries, TenantSeries, WorkflowSeries},
};

/// How often all is counted.
const PERIOD: Duration = Duration::from_secs(5);

/// Receives why the installation is not ready; nothing if it is.
pub type ReportHealth = Arc<dyn Fn(Vec<HealthCause>) + Send + Sync>;

/// Counts until it is dropped.
pub async fn run(context: SharedContext, report: ReportHealth) {
    let mut period = tokio::time::interval(PERIOD);
    loop {
        period.tick().await;
        let now = context.clock.now();
        let tenants = context.stores.scopes.tenants();
        let overview = TenantOverview::of(tenants.iter().map(AsRef::as_ref), now);
        export_tenants(&overview, now, &context);
        export_servers(&context);
        export_modules(&context);
        let purges = context.state.tombstones.queue(now, context.state.breaker.state());
        context.metrics.purges(&purge_series(&purges, now));
        context.metrics.registry_up(context.state.registry_reads.failure().is_none());
        report(facts(&overview, &context).causes());
    }
}

fn export_tenants(overview: &TenantOverview, now: Timestamp, context: &Context) {
    let active = overview.in_states(&[TenantState::Active, TenantState::Trial]);
    let series = overview.tenants.iter().map(|((state, standing, reason), count)| TenantSeries {
        state: state.map_or("Unknown", TenantState::as_str),
        condition: standing.as_str(),
        reason: reason.clone(),
        count: *count,
    });
    context.metrics.tenants(active, series);
    let workflows = overview.workflows.iter().map(|((kind, standing), workflows)| WorkflowSeries {
        kind: kind.as_str(),
        condition: standing.as_str(),
        count: workflows.count,
        oldest_seconds: age(workflows.oldest, now),
    });
    context.metrics.workflows(&workflows.collect::<Vec<_>>());
    let ages = overview.credentials;
    let [oldest, overdue] =
        [ages.oldest, ages.overdue_since].map(|at| at.map_or(0.0, |since| age(since, now)));
    context.metrics.tenant_credentials(oldest, overdue);
}

fn export_servers(context: &Context) {
    let (mut conditions, mut figures) = (Vec::new(), Vec::new());
    for server in context.stores.database_servers.state() {
        let name = server.name_any();
        let times = context.state.server_credentials.of(&name);
        let status = server.status.as_ref();
        figures.push(ServerSeries {
            name: name.clone(),
            tenants: status.and_then(|status| status.tenants),
            pending: status.and_then(|status| status.pending),
            login_changed: times.login_changed.map(Timestamp::as_second),
            authority_expires: times.authority_expires.map(Timestamp::as_second),
        });
        let (standing, reason) = standing(status.map_or(&[][..], |status| &status.conditions));
        conditions.push(ObjectSeries { name, condition: standing.as_str(), reason });
    }
    context.metrics.database_servers(conditions, &figures);
}

fn export_modules(context: &Context) {
    let modules = context.stores.tenant_modules.state();
    let series = modules.iter().map(|module| {
        let conditions = module.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let (standing, reason) = standing(conditions);
        ObjectSeries { name: module.name_any(), condition: standing.as_str(), reason }
    });
    context.metrics.modules(series.collect());
}

fn purge_series(queue: &PurgeQueue, now: Timestamp) -> PurgeSeries {
    PurgeSeries {
        by_state: vec![
            ("Revocation", queue.revocation),
            ("Held", queue.held),
            ("Grace", queue.grace),
            ("Frozen", queue.frozen),
            ("Due", queue.due),
            (Reason::Purging.as_str(), queue.purging),
        ],
        next: queue.next.map(Timestamp::as_second),
        within_day: queue.within_day,
        overdue_seconds: queue.due_since.map_or(0.0, |since| age(since, now)),
    }
}

fn age(since: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(since).as_secs_f64().max(0.0)
}

fn facts(overview: &TenantOverview, context: &Context) -> HealthFacts {
    let servers = context.stores.database_servers.state();
    let down = servers.iter().filter_map(|server| match context.state.servers.get(&server.name_any()) {
        ServerState::NotReady { reason, .. } => Some((server.name_any(), reason)),
        ServerState::Ready(_) | ServerState::Unchecked => None,
    });
    HealthFacts {
        registry_failure: context.state.registry_reads.failure(),
        servers: servers.len(),
        servers_down: down.collect(),
        failed_provisionings: overview.in_states(&[TenantState::Failed]),
        slow_provisionings: overview.slow_provisionings,
        breaker: Some(context.state.breaker.state()),
        halted: context.state.modules.stopped(),
    }
}
