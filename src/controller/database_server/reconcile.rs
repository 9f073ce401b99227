//! The reconcile of one `DatabaseServer`: finalizer, preflight, server state, status.

use std::{sync::Arc, time::Duration};

use kube::{Api, ResourceExt, runtime::controller::Action};
use tracing::{info, warn};

use super::preflight::{CheckResult, preflight};
use crate::{
    api::{
        FINALIZER,
        conditions::{
            ConditionStatus, LEFTOVERS, READY, RECONCILING, STALLED, condition, remove_condition,
            same_ignoring_times, set_condition,
        },
        database_server::{DatabaseServer, DatabaseServerStatus},
        reason::Reason,
        tenant::Tenant,
        tenant_status::TenantStatus,
    },
    controller::{
        apply_status::apply_status,
        context::SharedContext,
        finalizers,
        state::servers::ServerState,
        tenant::secrets::Address,
        watch::requeue::{requeue_tenants_on, tenants_on},
    },
    domain::{backoff, plan_adoption::rests, spec},
    postgres::server::Server,
    registry, traces,
};

/// How often a ready server is checked: three statements per server, and none per tenant.
const PERIOD: Duration = Duration::from_secs(60);

/// How often the tenants that a changed address did not reach yet are counted.
const ROLLOUT_PERIOD: Duration = Duration::from_secs(2);

/// The tenants of a server, for its status.
#[derive(Clone, Copy)]
struct Tenants {
    /// Those with a database on it.
    count: i64,
    /// Those whose Secret does not publish its present address; none while the operator cannot connect.
    pending: Option<i64>,
}

/// Why a reconcile failed. A fault of the server itself is in its conditions instead.
#[derive(Debug, thiserror::Error)]
pub enum ServerReconcileError {
    /// The API server refused a request.
    #[error("the Kubernetes API refused: {0}")]
    Kubernetes(#[from] kube::Error),
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] registry::Error),
}

/// Reconciles a `DatabaseServer`.
pub async fn reconcile(
    resource: Arc<DatabaseServer>,
    context: SharedContext,
) -> Result<Action, ServerReconcileError> {
    let name = resource.name_any();
    let tenants = context.registry.count_by_server(&name).await?;
    let deleting = resource.metadata.deletion_timestamp.is_some();
    if deleting && tenants == 0 {
        context.state.servers.remove(&name);
        finalizers::release(&servers(&context), &resource).await?;
        info!(server = name, "server released");
        return Ok(Action::await_change());
    }
    if !deleting && !resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers::claim(&servers(&context), &resource).await?;
    }
    let before = context.state.servers.get(&name);
    let result = preflight(&resource, &before, &context).await?;
    let ready = summary(&result);
    if result.server.is_none() {
        traces::failed(ready.0.as_str(), &ready.1);
    }
    let state = match &result.server {
        Some(server) => ServerState::Ready(server.clone()),
        None => ServerState::NotReady {
            reason: ready.0,
            message: format!("DatabaseServer {name:?} is not ready: {}", ready.1),
        },
    };
    // Requested here, and not by the status that shows the same a moment later.
    if context.state.servers.set(&name, state) {
        requeue_tenants_on(&name, &context);
    }
    let before = resource.status.as_ref().and_then(|status| status.pending);
    // Unknown until the operator has connected with the present address: an older number would be about another one.
    let pending = result.server.as_ref().map(|server| pending(&name, server, &resource, &context));
    write_status(&resource, &context, &result, Tenants { count: tenants, pending }, deleting).await?;
    let is_rolled_out = pending.unwrap_or_default() == 0
        || pending == before && !context.state.server_rollouts.is_running(&name);
    Ok(Action::requeue(match result.server {
        // A server that is not ready may become so at any moment, and tenants wait for it.
        None => backoff::temporary(3, rand::random()),
        Some(_) if is_rolled_out => PERIOD,
        Some(_) => ROLLOUT_PERIOD,
    }))
}

/// After a failed reconcile.
pub fn after_error(resource: Arc<DatabaseServer>, error: &ServerReconcileError, _: SharedContext) -> Action {
    warn!(server = resource.name_any(), %error, "could not reconcile a DatabaseServer");
    Action::requeue(backoff::temporary(4, rand::random()))
}

/// How many tenants have a connection Secret that does not publish the present address.
fn pending(name: &str, server: &Server, resource: &DatabaseServer, context: &SharedContext) -> i64 {
    let address = Address::of(server, Some(resource));
    let none = TenantStatus::default();
    let is_pending = |tenant: &&Arc<Tenant>| {
        let namespace = tenant.namespace().unwrap_or_default();
        let secret = context.stores.scopes.secret(&namespace, &spec::connection_secret_name(tenant));
        !rests(tenant, tenant.status.as_ref().unwrap_or(&none))
            && secret.is_some_and(|secret| !address.is_in(&secret))
    };
    let count = tenants_on(name, context).iter().filter(is_pending).count();
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Reason and message of `Ready`: those of the first finding that is not fulfilled.
fn summary(result: &CheckResult) -> (Reason, String) {
    result
        .findings
        .iter()
        .find(|finding| finding.status != ConditionStatus::True)
        .map(|finding| (finding.reason, finding.message.clone()))
        .unwrap_or((Reason::Connected, "tenants can be created here".into()))
}

async fn write_status(
    resource: &DatabaseServer,
    context: &SharedContext,
    result: &CheckResult,
    tenants: Tenants,
    deleting: bool,
) -> Result<(), kube::Error> {
    let before = resource.status.clone().unwrap_or_default();
    let (generation, now) = (resource.metadata.generation, context.clock.now());
    let mut conditions = before.conditions.clone();
    let (ready_reason, mut message) = summary(result);
    if deleting {
        message =
            format!("{message}; being deleted, once its {} tenant databases are dropped", tenants.count);
    }
    let ready = ConditionStatus::from(result.server.is_some());
    set_condition(&mut conditions, condition(READY, ready, ready_reason, message.clone(), generation, now));
    for finding in &result.findings {
        let reported = condition(
            finding.type_,
            finding.status,
            finding.reason,
            finding.message.clone(),
            generation,
            now,
        );
        set_condition(&mut conditions, reported);
    }
    match context.state.leftovers.report(&resource.name_any()) {
        Some((reason, message)) => {
            let found = condition(LEFTOVERS, ConditionStatus::True, reason, message, generation, now);
            set_condition(&mut conditions, found);
        }
        None => remove_condition(&mut conditions, LEFTOVERS),
    }
    remove_condition(&mut conditions, RECONCILING);
    remove_condition(&mut conditions, STALLED);
    if result.server.is_none() {
        let type_ = if result.permanent { STALLED } else { RECONCILING };
        set_condition(
            &mut conditions,
            condition(type_, ConditionStatus::True, ready_reason, message, generation, now),
        );
    }
    let status = DatabaseServerStatus {
        observed_generation: generation,
        version: result.version.clone().or(before.version.clone()),
        tenants: Some(tenants.count),
        pending: tenants.pending,
        conditions,
    };
    let same = before.observed_generation == status.observed_generation
        && before.version == status.version
        && (before.tenants, before.pending) == (status.tenants, status.pending)
        && same_ignoring_times(&before.conditions, &status.conditions);
    if same {
        return Ok(());
    }
    apply_status(&servers(context), resource, &status).await?;
    Ok(())
}

fn servers(context: &SharedContext) -> Api<DatabaseServer> {
    Api::all(context.client.clone())
}
