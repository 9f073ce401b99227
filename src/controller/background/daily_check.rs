//! The daily check: what the shared catalogs do not show. Once a day, each tenant in use has the rights in its database read
//! and repaired, and its login is tried with the published password. The tenants are spread over the day by their ids.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use tokio::time::timeout;
use tracing::warn;

use crate::{
    api::{reason::Reason, tenant::Tenant},
    controller::{
        context::{Context, SharedContext},
        state::servers::ServerState,
        tenant::{failure::StepError, rights::report_rights_between_reconciles, secrets},
        watch::requeue::requeue_tenant,
    },
    domain::{
        access::AccessLevel,
        daily::{PERIOD, is_due},
        identity::TenantId,
        spec::{connection_secret_name, is_paused},
    },
};

/// How often the clock is read.
const TICK: Duration = Duration::from_secs(10);

/// How long the check of one tenant may take. The others are checked after that.
const TENANT_TIMEOUT: Duration = Duration::from_secs(60);

/// Checks until it is dropped.
pub async fn run(context: SharedContext) {
    let mut last = context.clock.now();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let now = context.clock.now();
        for (id, tenant) in due(last, now, &context) {
            match timeout(TENANT_TIMEOUT, check(id, &tenant, &context)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    warn!(tenant = tenant.name_any(), %error, "could not check the rights and the login of a tenant");
                }
                Err(_) => {
                    warn!(tenant = tenant.name_any(), "the daily check of a tenant got no answer in time")
                }
            }
        }
        last = now;
    }
}

/// The registered tenants whose time of the day came after `last`.
fn due(last: Timestamp, now: Timestamp, context: &Context) -> Vec<(TenantId, Arc<Tenant>)> {
    let id = |tenant: &Tenant| {
        let id = tenant.status.as_ref()?.tenant_id.as_deref()?;
        uuid::Uuid::try_parse(id).ok().map(TenantId)
    };
    let is_in_use = |tenant: &Tenant| !is_paused(tenant) && tenant.metadata.deletion_timestamp.is_none();
    let tenants = context.stores.scopes.tenants().into_iter().filter(|tenant| is_in_use(tenant));
    tenants
        .filter_map(|tenant| Some((id(&tenant)?, tenant)))
        .filter(|(id, _)| is_due(*id, last, now))
        .collect()
}

async fn check(id: TenantId, tenant: &Tenant, context: &SharedContext) -> Result<(), StepError> {
    // Without the lock of the tenant's reconciles: a suspension does not wait for this.
    let Some(row) = context.registry.by_id(id).await? else { return Ok(()) };
    let now = context.clock.now();
    let is_new = row.activated_at.is_none_or(|at| now.duration_since(at) < SignedDuration::from_secs(PERIOD));
    let has_access = row.access.is_some_and(|access| access > AccessLevel::Blocked);
    let ServerState::Ready(server) = context.state.servers.get(&row.placement.server) else { return Ok(()) };
    // No client is in the database of a Blocked tenant: its rights are read when it gets access.
    if is_new || !has_access || !row.status.was_active() {
        return Ok(());
    }
    server.settle_rights(&row.placement).await?;
    report_rights_between_reconciles(tenant, &row, &server, context).await?;
    let name = connection_secret_name(tenant);
    let Some(secret) = context.stores.scopes.secret(&row.resource_namespace, &name) else { return Ok(()) };
    let Some(password) = secrets::password(&secret) else { return Ok(()) };
    // A Secret that does not match is repaired by the reconcile that its change leads to.
    if !secrets::holds_password_of(&secret, &row, &context.installation) {
        return Ok(());
    }
    match server.verify(&row.placement, &password).await {
        Err(error) if error.reason() == Reason::AuthenticationFailed => {
            context.registry.set_verification_required(id, true).await?;
            context.state.snapshot.forget(&row.resource_uid);
            requeue_tenant(&row.resource_namespace, &row.resource_name, context);
            Ok(())
        }
        other => Ok(other.map(drop)?),
    }
}
