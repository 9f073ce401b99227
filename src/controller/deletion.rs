//! Whether an object of the cluster is deleted, and what its deletion takes with it.

use http::StatusCode;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource,
    core::{ClusterResourceScope, PartialObjectMeta},
};
use serde::de::DeserializeOwned;

/// Whether an object does not exist, or is being deleted.
///
/// # Errors
/// The answer of the API server.
pub async fn is_deleted<K>(name: &str, client: &Client) -> Result<bool, kube::Error>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let found: Option<PartialObjectMeta<K>> = Api::<K>::all(client.clone()).get_metadata_opt(name).await?;
    Ok(found.is_none_or(|found| found.metadata.deletion_timestamp.is_some()))
}

/// Whether a request in a namespace was refused because the namespace is deleted: the operator's Role is deleted with it.
pub async fn took_rights_away(error: &kube::Error, namespace: &str, client: &Client) -> bool {
    let kube::Error::Api(answer) = error else { return false };
    answer.code == StatusCode::FORBIDDEN.as_u16()
        && is_deleted::<Namespace>(namespace, client).await.unwrap_or(false)
}
