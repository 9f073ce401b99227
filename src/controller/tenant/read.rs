//! Before the first phase of a reconcile: reads the registry's row, settles the account, and computes the Tenant as it counts
//! with that. All that follows works with it.

use std::borrow::Cow;

use kube::ResourceExt;
use tokio::time::timeout;

use super::load::{REGISTRY_TIMEOUT, ReadTenant, read_record};
use crate::{
    api::tenant::Tenant,
    controller::{
        context::SharedContext,
        tenant_account::{
            in_force::{in_force, with_account},
            settle::settle,
        },
    },
    domain::{account::account_namespace, spec::is_paused},
};

/// Reads the row of a Tenant, and settles its account. Returns the Tenant with what its customer's administrator changed.
pub async fn read_tenant<'t>(tenant: &'t Tenant, context: &SharedContext) -> (Cow<'t, Tenant>, ReadTenant) {
    let mut row = read_record(tenant, context).await;
    let mut account = None;
    let counted = match &mut row {
        Ok(Some(row)) => {
            account = settle(tenant, row, context).await;
            in_force(tenant, Some(row), context)
        }
        // One that is paused restores nothing yet.
        Ok(None) if !is_paused(tenant) => with_former_account(tenant, context).await,
        Ok(None) => Cow::Borrowed(tenant),
        Err(_) => Cow::Borrowed(tenant),
    };
    (counted, ReadTenant { row, account })
}

/// A Tenant that restores a tombstone counts as it did before, with the account of that.
async fn with_former_account<'t>(tenant: &'t Tenant, context: &SharedContext) -> Cow<'t, Tenant> {
    let (namespace, name) = (tenant.namespace().unwrap_or_default(), tenant.name_any());
    let former = context.state.tombstones.of_object(&namespace, &name, &tenant.spec.slug);
    let Some(id) = former.filter(|_| account_namespace(tenant).is_some()) else {
        return Cow::Borrowed(tenant);
    };
    match timeout(REGISTRY_TIMEOUT, context.registry.by_id(id)).await {
        Ok(Ok(Some(row))) => with_account(tenant, &row.account, None, context),
        // The next reconcile, which has the row, makes up for it.
        _ => Cow::Borrowed(tenant),
    }
}
