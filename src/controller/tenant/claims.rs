//! Which Tenants have a tenant's id in their status, by the API server itself: asked before something that cannot be undone.

use kube::{Api, CustomResourceExt, api::ListParams};

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
        for object in api.list(&with_id).await.map_err(explain)?.items {
            tenants.push(object.0?);
        }
    }
    Ok(Claims::of(&tenants))
}

/// The CRD of an earlier release has no such selector: nothing else is wrong with the request.
fn explain(error: kube::Error) -> StepError {
    match error {
        kube::Error::Api(mut answer) if answer.code == 400 => {
            answer.message = format!(
                "{}; the CRD {} is older than this release: apply the CRDs of this release (tenantry crds)",
                answer.message,
                Tenant::crd_name()
            );
            kube::Error::Api(answer).into()
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn crd_of_an_earlier_release_is_named_with_the_remedy() {
        let refused = |message: &str, code| {
            let status = Status::failure(message, "BadRequest").with_code(code).boxed();
            explain(kube::Error::Api(status)).to_string()
        };
        let old = refused("field label not supported: status.tenantId", 400);
        assert!(old.contains("apply the CRDs of this release"), "{old}");
        assert!(!refused("etcd is not there", 500).contains("CRD"));
    }
}
