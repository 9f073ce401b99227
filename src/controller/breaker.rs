//! Opens and closes the breaker of mass deletions: counts deprovisionings before a purge begins, and reports every change.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, Resource};
use tracing::error;

use super::{context::Context, watch::requeue::requeue_tenants_where};
use crate::{
    api::{ANNOTATION_BREAKER_ACKNOWLEDGED, reason::Reason, tenant::Tenant, tenant_status::TenantState},
    domain::breaker::BreakerState,
    registry::{self, Opening},
};

/// Counts the deprovisionings of the last minutes, just before data is dropped. Returns whether a purge may begin: false
/// while the breaker is open.
pub async fn permits_purge(context: &Context) -> Result<bool, registry::Error> {
    let Some(thresholds) = context.state.breaker.thresholds() else { return Ok(true) };
    let opening = context.registry.check_mass_deletion(thresholds, context.clock.now()).await?;
    let is_closed = opening.is_none();
    set(opening, context);
    Ok(is_closed && context.state.breaker.state() == BreakerState::Closed)
}

/// Records the state of the breaker. A change is reported, and the tenants that are being deprovisioned are reconciled.
pub fn set(opening: Option<Opening>, context: &Context) {
    if !context.state.breaker.set(opening.as_ref()) {
        return;
    }
    context.metrics.breaker(opening.is_some());
    if let Some(opening) = &opening {
        report(opening, context);
    }
    let is_deprovisioned = |tenant: &Tenant| {
        let state = tenant.status.as_ref().and_then(|status| status.state);
        tenant.metadata.deletion_timestamp.is_some() || state == Some(TenantState::Deprovisioning)
    };
    requeue_tenants_where(is_deprovisioned, context);
}

fn report(opening: &Opening, context: &Context) {
    let note = format!(
        "{}: no purge begins until an operator has acknowledged it: kubectl annotate crd {} {ANNOTATION_BREAKER_ACKNOWLEDGED}={} --overwrite",
        opening.detail,
        Tenant::crd_name(),
        opening.token
    );
    error!(opening = opening.id, cause = opening.cause, "{note}");
    let mut crd = CustomResourceDefinition::default();
    crd.metadata.name = Some(Tenant::crd_name().to_owned());
    let reason = Reason::parse(&opening.cause).unwrap_or(Reason::MassDeletion);
    context.events.warning(crd.object_ref(&()), "Freeze", reason, note);
}
