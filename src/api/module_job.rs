//! `source.job` of a TenantModule: the Job that runs an application's own migration tool.

use k8s_openapi::api::core::v1::{EnvVar, LocalObjectReference, ResourceRequirements};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::validation::{resource_name, rule};

/// How long a run may take if the module does not say.
pub const DEFAULT_DEADLINE_SECONDS: i64 = 3600;

/// The application's own migration tool. It is run as a Kubernetes Job: once for the database from which new tenants are
/// cloned, and once for each tenant that has an older version. It connects with a login that is made for that run, which
/// DATABASE_URL and the variables of libpq (PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGSSLMODE, PGSSLROOTCERT) lead
/// to. The exit code 0 means that the database has the module's version. The Jobs are in the namespace that the operator was
/// given with --migration-namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleJob {
    /// The image, usually that of the application. A digest keeps it the same for all tenants.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = rule(
        "!self.matches('[[:space:]]')",
        "source.job.image must be the reference of an image, as in registry.example/shop@sha256:…, without spaces",
    ))]
    pub image: String,
    /// The command, with its arguments or without, as in [python, manage.py, migrate]. It is run without a shell;
    /// $(PGDATABASE) and the like are replaced. Defaults to the entrypoint of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// The arguments of the command, or of the image's entrypoint. Defaults to those of the image, if command is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 4096)))]
    pub args: Vec<String>,
    /// Environment variables beside those of the connection, which may be used in them: DATABASE_HOST with the value
    /// $(PGHOST). At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,
    /// CPU and memory of the container. Defaults to none: the namespace's LimitRange decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// The service account of the pod. Its token is mounted only if it is named here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = resource_name("source.job.serviceAccountName", "ServiceAccount"))]
    pub service_account_name: Option<String>,
    /// Secrets with which the image is pulled. At most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// How many seconds one run may take before it is ended and counts as failed. Defaults to 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86_400))]
    pub active_deadline_seconds: Option<i64>,
}

impl ModuleJob {
    /// How many seconds one run may take.
    pub fn deadline_seconds(&self) -> i64 {
        self.active_deadline_seconds.unwrap_or(DEFAULT_DEADLINE_SECONDS)
    }
}
