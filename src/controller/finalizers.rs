//! Adds and releases finalizers.

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

/// Field manager of the finalizer. Server-side apply adds and removes this one entry, independent of other entries and of the
/// age of the copy; the uid protects a new object of the same name.
const MANAGER: &str = "tenantry/finalizer";

/// The field manager of an installation, for objects to which several installations may add the finalizer: each releases its
/// own only, and the entry is removed with the last of them.
pub fn manager_of(installation: &str) -> String {
    format!("{MANAGER}/{installation}")
}

/// Sets the finalizers of Tenantry on an object.
///
/// # Errors
/// The answer of the API server: a conflict if the object was created again, not found if it was deleted.
pub async fn apply_finalizers<K>(api: &Api<K>, object: &K, finalizers: &[&str]) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    apply_finalizers_as(MANAGER, api, object, finalizers).await
}

/// Sets the finalizers of a field manager on an object.
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
