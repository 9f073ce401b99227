//! Finalizers, put and taken.

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

/// Field manager of the finalizer. Server-side apply adds and removes this one entry, whatever else is on the list
/// and however old the copy is that we saw; the uid keeps it off an object that was made anew under the same name.
const MANAGER: &str = "tenantry/finalizer";

/// The field manager of an installation, for objects that several of them may guard at once: each takes back its own
/// finalizer only, and the entry goes with the last of them.
pub fn manager_of(installation: &str) -> String {
    format!("{MANAGER}/{installation}")
}

/// Makes these the finalizers that Tenantry has on an object.
///
/// # Errors
/// What the API server answers: a conflict where the object was made anew, not found where it is gone.
pub async fn apply_finalizers<K>(api: &Api<K>, object: &K, finalizers: &[&str]) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    apply_finalizers_as(MANAGER, api, object, finalizers).await
}

/// Makes these the finalizers that a field manager has on an object.
///
/// # Errors
/// As [`apply_finalizers`].
pub async fn apply_finalizers_as<K>(
    manager: &str,
    api: &Api<K>,
    object: &K,
    finalizers: &[&str],
) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": object.name_any(), "uid": object.uid(), "finalizers": finalizers},
    });
    let params = PatchParams::apply(manager).force();
    api.patch_metadata(&object.name_any(), &params, &Patch::Apply(patch)).await.map(|_| ())
}
