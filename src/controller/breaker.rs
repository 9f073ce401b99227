//! Opens and closes the breaker of mass deletions: counts deprovisionings and purges before a purge begins, and reports
//! every change.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, Resource};
use tracing::{error, warn};

use super::{context::Context, watch::requeue::requeue_tenants_where};
use crate::{
    api::{ANNOTATION_BREAKER_ACKNOWLEDGED, reason::Reason, tenant::Tenant, tenant_status::TenantState},
    domain::{breaker::BreakerState, record::TenantRecord},
    registry::{self, Opening},
};

/// How much of a wrong token is shown: it is as long as a user likes.
const SHOWN_OF_TOKEN: usize = 40;

/// Whether a purge may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// It may.
    Granted,
    /// It is not counted yet, with others whose grace is being made shorter.
    NotCounted,
    /// The breaker is open.
    Frozen,
}

/// Counts the deprovisionings and the purges of the last minutes, just before data is dropped.
pub async fn permits_purge(row: &TenantRecord, context: &Context) -> Result<Permission, registry::Error> {
    let is_settling = count(context).await?;
    Ok(match context.state.breaker.state() {
        BreakerState::Disabled => Permission::Granted,
        BreakerState::Open | BreakerState::Unknown => Permission::Frozen,
        BreakerState::Closed if is_settling && row.purge_hastened_at.is_some() => Permission::NotCounted,
        BreakerState::Closed => Permission::Granted,
    })
}

/// Counts the deprovisionings and the purges of the last minutes, and opens the breaker if there are too many. Returns
/// whether graces are being made shorter just now.
pub async fn count(context: &Context) -> Result<bool, registry::Error> {
    let Some(thresholds) = context.state.breaker.thresholds() else { return Ok(false) };
    let (now, ahead) = (context.clock.now(), context.clock.ahead());
    let count = context.registry.check_mass_deletion(thresholds, now, ahead).await?;
    set(count.opening, context);
    Ok(count.is_settling)
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
        "{}: no purge begins until an operator has acknowledged it: {}",
        opening.detail,
        acknowledgement(opening)
    );
    error!(opening = opening.id, cause = opening.cause, "{note}");
    let reason = Reason::parse(&opening.cause).unwrap_or(Reason::MassDeletion);
    publish(reason, note, context);
}

/// Reports an acknowledgement that has the token of another opening, or of none.
pub fn report_wrong_token(opening: &Opening, found: &str, context: &Context) {
    let shown: String = found.chars().take(SHOWN_OF_TOKEN).collect();
    let note = format!(
        "the breaker of mass deletions stays open: {ANNOTATION_BREAKER_ACKNOWLEDGED} is {shown:?}, which is not the token of this opening ({}); to acknowledge it: {}",
        opening.detail,
        acknowledgement(opening)
    );
    warn!(opening = opening.id, "{note}");
    publish(Reason::WrongToken, note, context);
}

fn acknowledgement(opening: &Opening) -> String {
    let (kind, token) = (Tenant::crd_name(), &opening.token);
    format!("kubectl annotate crd {kind} {ANNOTATION_BREAKER_ACKNOWLEDGED}={token} --overwrite")
}

fn publish(reason: Reason, note: String, context: &Context) {
    let mut crd = CustomResourceDefinition::default();
    crd.metadata.name = Some(Tenant::crd_name().to_owned());
    context.events.warning(crd.object_ref(&()), "Freeze", reason, note);
}
