//! What was found of the rights in a tenant's database: an Event for what was repaired, and doubt about the access level for
//! what is left.

use kube::Resource;

use crate::{
    api::{reason::Reason, tenant::Tenant},
    controller::{context::Context, watch::requeue::requeue_tenant},
    domain::{access::AccessLevel, record::TenantRecord},
    postgres::server::Server,
    registry::Error,
};

/// Reports what the last session in a tenant's database found, if something differed. The recorded level is withdrawn if
/// rights are left that only another role can change, or if sessions may still use what was revoked: the next round, or
/// reconcile, enforces it or reports why not. Returns the row, if it changed.
///
/// `was_active`: whether the tenant was active before that session. In its provisioning, what is repaired are the rights that
/// an adopted database had, and no drift.
pub async fn report_rights(
    tenant: &Tenant,
    row: &TenantRecord,
    was_active: bool,
    server: &Server,
    context: &Context,
) -> Result<Option<TenantRecord>, Error> {
    let Some(report) = server.take_rights_report(row.id) else { return Ok(None) };
    if !report.repaired.is_empty() && was_active {
        let note = format!("rights in the database were repaired: {}", report.repaired.join("; "));
        context.events.warning(tenant.object_ref(&()), "Repair", Reason::DriftRepaired, note);
    }
    if row.access.is_none() || !row.status.was_active() {
        return Ok(None);
    }
    if report.left.is_empty()
        && !(row.access < Some(AccessLevel::ReadWrite) && is_unproven(row, server).await)
    {
        return Ok(None);
    }
    let doubted = context.registry.set_access(row.id, None).await?.record;
    context.state.snapshot.forget(&row.resource_uid);
    requeue_tenant(&row.resource_namespace, &row.resource_name, context);
    Ok(Some(doubted))
}

/// The same for what is no reconcile. What is found while a reconcile works is left to it: its status says which level is in
/// force, and it has read the row before.
pub async fn report_rights_between_reconciles(
    tenant: &Tenant,
    row: &TenantRecord,
    server: &Server,
    context: &Context,
) -> Result<(), Error> {
    let key = (row.resource_namespace.clone(), row.resource_name.clone());
    if context.state.tenant_locks.is_taken(&key) {
        return Ok(());
    }
    report_rights(tenant, row, row.activated_at.is_some(), server, context).await.map(drop)
}

/// Whether sessions of the login may still have rights that were revoked. What cannot be read is not proven.
async fn is_unproven(row: &TenantRecord, server: &Server) -> bool {
    match server.observe(&row.placement).await {
        Ok(facts) => facts.login.is_some_and(|login| login.is_revocation_unproven),
        Err(_) => true,
    }
}
