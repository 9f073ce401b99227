//! Adds and releases finalizers.

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::{
    Api, Resource, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams},
    core::Status,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::info;

use crate::api::FINALIZER;

/// Field manager of the finalizer. Server-side apply adds and removes this one entry, independent of other entries and of the
/// age of the copy; the uid protects a new object of the same name.
const MANAGER: &str = "tenantry/finalizer";

/// How often a finalizer is removed that another client adds again.
const ATTEMPTS: usize = 3;

/// The field manager of an installation, for objects to which several installations may add the finalizer: each releases its
/// own only, and the entry is removed with the last of them.
pub fn manager_of(installation: &str) -> String {
    format!("{MANAGER}/{installation}")
}

/// Adds the finalizer of Tenantry to an object.
///
/// # Errors
/// The answer of the API server: a conflict if the object was created again, not found if it was deleted.
pub async fn claim<K>(api: &Api<K>, object: &K) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    claim_as(MANAGER, api, object).await
}

/// Adds the finalizer of Tenantry to an object, as a field manager.
///
/// # Errors
/// As [`claim`].
pub async fn claim_as<K>(manager: &str, api: &Api<K>, object: &K) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    apply(manager, api, object, &[FINALIZER]).await.map(drop)
}

/// Releases the finalizer of Tenantry, and reads the object back. An object that was deleted, or replaced by another of the
/// same name, needs no release.
///
/// # Errors
/// The answer of the API server; or that the finalizer is still there.
pub async fn release<K>(api: &Api<K>, object: &K) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    release_as(MANAGER, api, object).await
}

/// Releases the finalizer that a field manager added. If nothing but the manifest of another client keeps it on an object
/// that is being deleted (an export that was created again, a restored backup), it is removed too: the object would
/// stay for ever.
///
/// # Errors
/// As [`release`].
pub async fn release_as<K>(manager: &str, api: &Api<K>, object: &K) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let Some(mut found) = unless_gone(apply(manager, api, object, &[]).await)? else { return Ok(()) };
    for _ in 0..ATTEMPTS {
        if found.uid != object.uid() || !is_left_behind(&found) {
            return Ok(());
        }
        info!(name = object.name_any(), "another client's manifest carries the finalizer: it is removed");
        let rest: Vec<&String> =
            found.finalizers.iter().flatten().filter(|name| *name != FINALIZER).collect();
        let patch = json!({"metadata": {
            "uid": found.uid, "resourceVersion": found.resource_version, "finalizers": rest,
        }});
        let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        let patched = api.patch_metadata(&object.name_any(), &params, &Patch::Merge(patch)).await;
        found = match unless_gone(patched.map(|object| object.metadata))? {
            Some(metadata) => metadata,
            // Deleted, or changed since it was read.
            None => match api.get_metadata_opt(&object.name_any()).await? {
                Some(object) => object.metadata,
                None => return Ok(()),
            },
        };
    }
    if found.uid != object.uid() || !is_left_behind(&found) {
        return Ok(());
    }
    let message =
        format!("finalizer {FINALIZER} is still on the object: another client adds it again and again");
    Err(kube::Error::Api(Status::failure(&message, "StillThere").with_code(409).boxed()))
}

async fn apply<K>(
    manager: &str,
    api: &Api<K>,
    object: &K,
    finalizers: &[&str],
) -> Result<ObjectMeta, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": object.name_any(), "uid": object.uid(), "finalizers": finalizers},
    });
    let params = PatchParams::apply(manager).force();
    Ok(api.patch_metadata(&object.name_any(), &params, &Patch::Apply(patch)).await?.metadata)
}

/// None if the object was deleted, or another one has its name.
fn unless_gone(answer: Result<ObjectMeta, kube::Error>) -> Result<Option<ObjectMeta>, kube::Error> {
    match answer {
        Ok(metadata) => Ok(Some(metadata)),
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the finalizer keeps a deleted object although no operator has added it.
fn is_left_behind(metadata: &ObjectMeta) -> bool {
    let has_it = metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
    let is_operators = |entry: &ManagedFieldsEntry| {
        entry.manager.as_deref().is_some_and(|manager| manager.starts_with(MANAGER)) && owns_it(entry)
    };
    has_it
        && metadata.deletion_timestamp.is_some()
        && !metadata.managed_fields.iter().flatten().any(is_operators)
}

fn owns_it(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:metadata"]["f:finalizers"]);
    fields.is_some_and(|fields| fields.get(format!("v:\"{FINALIZER}\"")).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finalizer_of_a_manifest_is_left_behind_and_that_of_an_operator_is_not() {
        let of = |manager: &str, more: serde_json::Value| {
            let fields = json!({"f:metadata": {"f:finalizers": {".": {}, format!("v:\"{FINALIZER}\""): {}}}});
            let mut metadata = json!({
                "finalizers": [FINALIZER, "example/keep"], "deletionTimestamp": "2026-11-21T00:00:00Z",
                "managedFields": [{"manager": manager, "operation": "Apply", "fieldsV1": fields}],
            });
            metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            is_left_behind(&serde_json::from_value(metadata).unwrap())
        };
        assert!(of("velero", json!({})));
        assert!(!of(&manager_of("another"), json!({})), "another operator has tenants on the plan");
        assert!(!of("velero", json!({"finalizers": ["example/keep"]})));
        // Until it is deleted, its manifest would add it again and again.
        assert!(!of("velero", json!({"deletionTimestamp": null})));
    }
}
