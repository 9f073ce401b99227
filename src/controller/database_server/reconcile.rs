//! The reconcile of one `DatabaseServer`: finalizer, preflight, server state, status.

use std::{sync::Arc, time::Duration};

use kube::{Api, ResourceExt, runtime::controller::Action};
use tracing::{info, warn};

use super::preflight::{CheckResult, preflight};
use crate::{
    api::{
        FINALIZER,
        conditions::{
            ConditionStatus, READY, RECONCILING, STALLED, condition, remove_condition, same_ignoring_times,
            set_condition,
        },
        database_server::{DatabaseServer, DatabaseServerStatus},
        reason::Reason,
    },
    controller::{
        apply_status::apply_status, context::SharedContext, finalizers, state::servers::ServerState,
        watch::requeue::requeue_tenants_on,
    },
    domain::backoff,
    registry,
};

/// How often a ready server is checked: three statements per server, and none per tenant.
const PERIOD: Duration = Duration::from_secs(60);

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
    write_status(&resource, &context, &result, tenants, deleting).await?;
    // A server that is not ready may become so at any moment, and tenants wait for it.
    let wait = if result.server.is_some() { PERIOD } else { backoff::temporary(3, rand::random()) };
    Ok(Action::requeue(wait))
}

/// After a failed reconcile.
pub fn after_error(resource: Arc<DatabaseServer>, error: &ServerReconcileError, _: SharedContext) -> Action {
    warn!(server = resource.name_any(), %error, "could not reconcile a DatabaseServer");
    Action::requeue(backoff::temporary(4, rand::random()))
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
    tenants: i64,
    deleting: bool,
) -> Result<(), kube::Error> {
    let before = resource.status.clone().unwrap_or_default();
    let (generation, now) = (resource.metadata.generation, context.clock.now());
    let mut conditions = before.conditions.clone();
    let (ready_reason, mut message) = summary(result);
    if deleting {
        message = format!("{message}; being deleted, once its {tenants} tenant databases are dropped");
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
        tenants: Some(tenants),
        conditions,
    };
    let same = before.observed_generation == status.observed_generation
        && before.version == status.version
        && before.tenants == status.tenants
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
