//! `Tenant.spec.credentials` and `status.credentials`: the rotation of a tenant's login and password, and its reader login.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::validation::rule;

/// The credentials of a tenant.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Age in seconds, from 3600 (an hour) to 315360000 (ten years), at which the credentials are rotated: the connection
    /// Secret gets another login with a new password, and the login before it stays valid for overlapSeconds. Defaults to
    /// no age. The annotation tenantry.dev/rotate-credentials asks for a rotation now, once for every new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("self >= 3600 && self <= 315360000", "credentials.rotateAfterSeconds must be between 3600, which is an hour, and 315360000, which is ten years; leave it out to rotate at no age"))]
    pub rotate_after_seconds: Option<i64>,
    /// How long the previous login stays valid after a rotation, in seconds, from 0 to 2592000 (30 days). Defaults to 86400
    /// (a day). 0 ends it at once, also one whose time has begun. No rotation begins before that end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("self >= 0 && self <= 2592000", "credentials.overlapSeconds must be between 0, which ends the previous login at once, and 2592000, which is 30 days"))]
    pub overlap_seconds: Option<i64>,
    /// Whether the tenant has a second login that only reads, `<database>_ro`, for reports and business intelligence. It is in
    /// a Secret of its own, named as the connection Secret with -ro, and has at most 5 sessions, which are not counted
    /// as the tenant's. What restricts the tenant restricts it too. Defaults to false; without it, the login is dropped and
    /// its Secret deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<bool>,
}

/// The credentials in force.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsStatus {
    /// Name of the login in the connection Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Time at which its password was published. Absent for a password from before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Time>,
    /// Name of the previous login, while it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_login: Option<String>,
    /// Time at which the previous login ends. Absent until the credentials after it are published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_valid_until: Option<Time>,
    /// The login that only reads, while spec.credentials.reader asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<ReaderStatus>,
}

/// The login that only reads.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReaderStatus {
    /// Its name.
    pub login: String,
    /// Name of its Secret, in the namespace of the Tenant.
    pub secret_name: String,
    /// Time at which its password was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Time>,
}
