//! `source.image` of a TenantModule: files in an image or an artifact of a container registry.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{database_server::SecretRef, validation::rule};

/// An image, or an artifact as `oras push` makes it, with the files.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleImage {
    /// The image, as in registry.example/app/migrations@sha256:…. A tag is looked up once, and status.image has the digest
    /// that it stood for: a tag that moves later is not followed. For other content, write another tag or digest.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = rule(
        "self.matches('^[A-Za-z0-9][-A-Za-z0-9._:/@+]*$') && !self.contains('//')",
        "source.image.reference must be the reference of an image without https://, as in registry.example/app/migrations:v1",
    ))]
    pub reference: String,
    /// Absolute path of the folder in the image whose files are the module. Every file that is directly in it must be
    /// NNNN_name.sql; hidden ones are ignored, and links are not followed. Defaults to /.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = rule(
        "self.startsWith('/') && !self.contains('..')",
        "source.image.path must be an absolute path without .., as in /migrations",
    ))]
    pub path: Option<String>,
    /// Secret of type kubernetes.io/dockerconfigjson in the operator's namespace, with credentials for the container registry.
    /// Defaults to none: everybody may pull the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<SecretRef>,
    /// Whether the container registry is asked by HTTP without TLS: credentials can be read on the way there. Defaults to
    /// false; one on localhost is asked by HTTP in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_http: Option<bool>,
}

/// Which image the files were read from.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleImageStatus {
    /// The reference, as spec.source.image had it.
    pub reference: String,
    /// The digest that it stood for when it was looked up. It is used until spec has another reference.
    pub digest: String,
}
