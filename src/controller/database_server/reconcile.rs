//! One visit to one `DatabaseServer`: finalizer, preflight, standing, status.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::json;
use tracing::{info, warn};

use super::preflight::{Verdict, preflight};
use crate::{
    api::{
        FINALIZER,
        conditions::{
            ConditionStatus, READY, RECONCILING, STALLED, condition, reason, remove_condition,
            same_ignoring_times, set_condition,
        },
        database_server::{DatabaseServer, DatabaseServerStatus},
    },
    controller::{context::SharedContext, finalizers::apply_finalizers, servers::Standing},
    domain::backoff,
    registry,
};

const STATUS_MANAGER: &str = "tenantry/status";

/// How often a ready server is looked at: two statements per server, and none per tenant.
const PERIOD: Duration = Duration::from_secs(60);

/// Why a visit failed. What is wrong with the server itself is in its conditions instead.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server refused.
    #[error("the Kubernetes API refused: {0}")]
    Kubernetes(#[from] kube::Error),
    /// The registry does not answer.
    #[error(transparent)]
    Registry(#[from] registry::Error),
}

/// Visits a `DatabaseServer`.
pub async fn reconcile(
    resource: Arc<DatabaseServer>,
    context: SharedContext,
) -> Result<Action, ReconcileError> {
    let name = resource.name_any();
    let tenants = context.registry.count_by_server(&name).await?;
    let leaving = resource.metadata.deletion_timestamp.is_some();
    if leaving && tenants == 0 {
        context.servers.remove(&name);
        apply_finalizers(&servers(&context), &resource, &[]).await?;
        info!(server = name, "server released");
        return Ok(Action::await_change());
    }
    if !leaving && !resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        apply_finalizers(&servers(&context), &resource, &[FINALIZER]).await?;
    }
    let before = context.servers.get(&name);
    let verdict = preflight(&resource, &before, &context).await?;
    let ready = summary(&verdict);
    let standing = match &verdict.server {
        Some(server) => Standing::Ready(server.clone()),
        None => Standing::NotReady {
            reason: ready.0.to_owned(),
            message: format!("DatabaseServer {name:?} is not ready: {}", ready.1),
        },
    };
    // Its tenants are told by this, not by the status that says the same a moment later.
    if context.servers.set(&name, standing) {
        context.server_changed(&name);
    }
    write_status(&resource, &context, &verdict, tenants, leaving).await?;
    // One that is not ready may become so at any moment, and tenants wait for it.
    let wait = if verdict.server.is_some() { PERIOD } else { backoff::temporary(3, rand::random()) };
    Ok(Action::requeue(wait))
}

/// After a failed visit.
pub fn after_error(resource: Arc<DatabaseServer>, error: &ReconcileError, _: SharedContext) -> Action {
    warn!(server = resource.name_any(), %error, "visit to a server failed");
    Action::requeue(backoff::temporary(4, rand::random()))
}

/// Reason and message of `Ready`: those of the first finding that is not fulfilled.
fn summary(verdict: &Verdict) -> (&'static str, String) {
    verdict
        .findings
        .iter()
        .find(|finding| finding.status != ConditionStatus::True)
        .map(|finding| (finding.reason, finding.message.clone()))
        .unwrap_or((reason::CONNECTED, "tenants can be put here".into()))
}

async fn write_status(
    resource: &DatabaseServer,
    context: &SharedContext,
    verdict: &Verdict,
    tenants: i64,
    leaving: bool,
) -> Result<(), kube::Error> {
    let before = resource.status.clone().unwrap_or_default();
    let (generation, now) = (resource.metadata.generation, Timestamp::now());
    let mut conditions = before.conditions.clone();
    let (ready_reason, mut message) = summary(verdict);
    if leaving {
        message = format!("{message}; being deleted, once its {tenants} tenant databases are gone");
    }
    let ready = ConditionStatus::from(verdict.server.is_some());
    set_condition(&mut conditions, condition(READY, ready, ready_reason, message.clone(), generation, now));
    for finding in &verdict.findings {
        let told = condition(
            finding.type_,
            finding.status,
            finding.reason,
            finding.message.clone(),
            generation,
            now,
        );
        set_condition(&mut conditions, told);
    }
    remove_condition(&mut conditions, RECONCILING);
    remove_condition(&mut conditions, STALLED);
    if verdict.server.is_none() {
        let type_ = if verdict.permanent { STALLED } else { RECONCILING };
        set_condition(
            &mut conditions,
            condition(type_, ConditionStatus::True, ready_reason, message, generation, now),
        );
    }
    let status = DatabaseServerStatus {
        observed_generation: generation,
        version: verdict.version.clone().or(before.version.clone()),
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
    let patch = json!({
        "apiVersion": DatabaseServer::api_version(&()),
        "kind": DatabaseServer::kind(&()),
        "metadata": {"name": resource.name_any(), "uid": resource.uid()},
        "status": status,
    });
    servers(context)
        .patch_status(&resource.name_any(), &PatchParams::apply(STATUS_MANAGER).force(), &Patch::Apply(patch))
        .await
        .map(|_| ())
}

fn servers(context: &SharedContext) -> Api<DatabaseServer> {
    Api::all(context.client.clone())
}
