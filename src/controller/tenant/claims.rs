//! Which Tenants have a tenant's id in their status, by the API server itself: asked before something that cannot be undone.

use kube::{Api, api::ListParams};

use super::failure::StepError;
use crate::{
    api::tenant::Tenant,
    controller::{context::Context, watch::guarded::Guarded},
    domain::{claims::Claims, identity::TenantId},
};

/// Which Tenants have this id in their status, as the API server has them now, in the watched namespaces.
///
/// # Errors
/// Also for a Tenant that cannot be decoded: it may be in use.
pub async fn find_claims(context: &Context, id: TenantId) -> Result<Claims, StepError> {
    let with_id = ListParams::default().fields(&format!("status.tenantId={id}"));
    let mut tenants = Vec::new();
    for scope in &context.stores.scopes.0 {
        let api: Api<Guarded<Tenant>> = match &scope.namespace {
            Some(namespace) => Api::namespaced(context.client.clone(), namespace),
            None => Api::all(context.client.clone()),
        };
        for object in api.list(&with_id).await?.items {
            tenants.push(object.0?);
        }
    }
    Ok(Claims::of(&tenants))
}
