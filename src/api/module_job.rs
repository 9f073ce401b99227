//! `source.job` of a TenantModule: the Job that runs an application's own migration tool.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        ConfigMapKeySelector, EnvVar, EnvVarSource, LocalObjectReference, ResourceRequirements,
        SecretKeySelector,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::validation::{quantities, resource_name, rule};

/// How long a run may take if the module does not say.
pub const DEFAULT_DEADLINE_SECONDS: i64 = 3600;

/// The application's own migration tool. It is run as a Kubernetes Job: once for the database from which new tenants are
/// cloned, and once for each tenant that has an older version. It connects with a login that is made for that run, which
/// DATABASE_URL and the variables of libpq (PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGSSLMODE, PGSSLROOTCERT) lead
/// to. The exit code 0 means that the database has the module's version. The Jobs are in the namespace that the operator was
/// given with --migration-namespace, else in its own, where they can have no service account and no Secret of yours.
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
    pub env: Vec<JobVariable>,
    /// CPU and memory of the container. Defaults to none: the namespace's LimitRange decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<JobResources>,
    /// The service account of the pod. Its token is mounted only if it is named here. It is refused while the Jobs are in the
    /// operator's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = resource_name("source.job.serviceAccountName", "ServiceAccount"))]
    pub service_account_name: Option<String>,
    /// Secrets with which the image is pulled. At most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<PullSecret>,
    /// How many seconds one run may take before it is ended and counts as failed. Defaults to 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86_400))]
    pub active_deadline_seconds: Option<i64>,
}

/// An environment variable, as in a container.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule(
    "!(has(self.value) && has(self.valueFrom))",
    "an environment variable must have value or valueFrom, not both: remove one of them",
))]
pub struct JobVariable {
    /// The name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The value. $(NAME) is replaced by the value of a variable before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32_768))]
    pub value: Option<String>,
    /// Where the value is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<JobVariableSource>,
}

/// Where the value of an environment variable is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule(
    "has(self.secretKeyRef) != has(self.configMapKeyRef)",
    "valueFrom must have exactly one of secretKeyRef and configMapKeyRef, as in {secretKeyRef: {name: shop, key: token}}",
))]
pub struct JobVariableSource {
    /// A key of a Secret in the namespace of the Jobs. It is refused while that is the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<JobKeyReference>,
    /// A key of a ConfigMap in the namespace of the Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<JobKeyReference>,
}

/// A key of a Secret or a ConfigMap.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobKeyReference {
    /// The name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// CPU and memory of a container.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobResources {
    /// The most that it gets, as in {memory: 512Mi}.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub limits: BTreeMap<String, String>,
    /// What is reserved for it, as in {cpu: 100m, memory: 256Mi}.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub requests: BTreeMap<String, String>,
}

/// A Secret in the namespace of the Jobs.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullSecret {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl ModuleJob {
    /// How many seconds one run may take.
    pub fn deadline_seconds(&self) -> i64 {
        self.active_deadline_seconds.unwrap_or(DEFAULT_DEADLINE_SECONDS)
    }
}

impl From<&JobVariable> for EnvVar {
    fn from(own: &JobVariable) -> Self {
        let value_from = own.value_from.as_ref().map(|from| EnvVarSource {
            secret_key_ref: from.secret_key_ref.as_ref().map(|JobKeyReference { name, key }| {
                SecretKeySelector { name: name.clone(), key: key.clone(), optional: None }
            }),
            config_map_key_ref: from.config_map_key_ref.as_ref().map(|JobKeyReference { name, key }| {
                ConfigMapKeySelector { name: name.clone(), key: key.clone(), optional: None }
            }),
            ..EnvVarSource::default()
        });
        Self { name: own.name.clone(), value: own.value.clone(), value_from }
    }
}

impl From<&JobResources> for ResourceRequirements {
    fn from(own: &JobResources) -> Self {
        let amounts = |amounts: &BTreeMap<String, String>| {
            let all = amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.clone())));
            Some(all.collect()).filter(|all: &BTreeMap<_, _>| !all.is_empty())
        };
        Self { limits: amounts(&own.limits), requests: amounts(&own.requests), claims: None }
    }
}

impl From<&PullSecret> for LocalObjectReference {
    fn from(own: &PullSecret) -> Self {
        Self { name: own.name.clone() }
    }
}
