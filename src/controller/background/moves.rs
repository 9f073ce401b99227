//! Rows that belong to another Tenant than before: a platform operator moved them, or the registry was restored. The Tenants
//! that have their id in their status are reconciled, so that each shows whose the tenant is.

use kube::ResourceExt;

use crate::{
    controller::{context::Context, watch::requeue::requeue_tenant},
    domain::record::TenantRecord,
};

/// Looks at rows that changed. The row of a Tenant that is registered names its uid, and costs nothing more.
pub fn requeue_moved(changed: &[TenantRecord], context: &Context) {
    let scopes = &context.stores.scopes;
    let is_registered = |row: &&TenantRecord| {
        let tenant = scopes.tenant(&row.resource_namespace, &row.resource_name);
        tenant.is_some_and(|tenant| tenant.uid().as_deref() == Some(&row.resource_uid))
    };
    let others: Vec<&TenantRecord> = changed.iter().filter(|row| !is_registered(row)).collect();
    if others.is_empty() {
        return;
    }
    let claims = scopes.claims();
    for row in others {
        let mut is_moved = false;
        for claim in claims.elsewhere(row.id, &row.resource_namespace, &row.resource_name) {
            is_moved = true;
            requeue_tenant(&claim.namespace, &claim.name, context);
        }
        if is_moved {
            // The startup snapshot is older than this.
            context.state.snapshot.forget(&row.resource_uid);
            requeue_tenant(&row.resource_namespace, &row.resource_name, context);
        }
    }
}
