//! Writes the status of an object.

use kube::{
    Api, Resource, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, Request},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Field manager of every status: one for all operators, so that a condition written by one of them does not outlive it.
const STATUS_MANAGER: &str = "tenantry/status";

/// The written object, without its spec and status: an object that cannot be decoded has a status too.
#[derive(Deserialize)]
struct Written {
    metadata: ObjectMeta,
}

/// Applies the status of an object (server-side apply), and returns the metadata after that; none if the object was deleted,
/// or was deleted and created again: the uid protects the new object from the status of the old one.
///
/// # Errors
/// The answer of the API server, except for those two.
pub async fn apply_status<K>(
    api: &Api<K>,
    object: &K,
    status: &impl Serialize,
) -> Result<Option<ObjectMeta>, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone,
{
    let patch = Patch::Apply(json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": object.name_any(), "uid": object.uid()},
        "status": status,
    }));
    let params = PatchParams::apply(STATUS_MANAGER).force();
    let request = Request::new(api.resource_url())
        .patch_subresource("status", &object.name_any(), &params, &patch)
        .map_err(kube::Error::BuildRequest)?;
    match api.clone().into_client().request::<Written>(request).await {
        Ok(written) => Ok(Some(written.metadata)),
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(None),
        Err(error) => Err(error),
    }
}
