//! What was found of the rights in a tenant's database: an Event for what was repaired, and doubt about the access level for
//! what is left.

use kube::Resource;

use crate::{
    api::{reason::Reason, tenant::Tenant},
    controller::{context::Context, watch::requeue::requeue_tenant},
    domain::record::TenantRecord,
    postgres::server::Server,
    registry::Error,
};

/// Reports what the last session in a tenant's database found, if something differed. With rights left that only another
/// role can change, the recorded level is withdrawn, and the next reconcile reports why. Returns the row, if it changed.
pub async fn report_rights(
    tenant: &Tenant,
    row: &TenantRecord,
    server: &Server,
    context: &Context,
) -> Result<Option<TenantRecord>, Error> {
    let Some(report) = server.take_rights_report(row.id) else { return Ok(None) };
    if !report.repaired.is_empty() {
        let note = format!("rights in the database were repaired: {}", report.repaired.join("; "));
        context.events.warning(tenant.object_ref(&()), "Repair", Reason::DriftRepaired, note);
    }
    if report.left.is_empty() || row.access.is_none() || !row.status.was_active() {
        return Ok(None);
    }
    let doubted = context.registry.set_access(row.id, None).await?.record;
    context.state.snapshot.forget(&row.resource_uid);
    requeue_tenant(&row.resource_namespace, &row.resource_name, context);
    Ok(Some(doubted))
}
