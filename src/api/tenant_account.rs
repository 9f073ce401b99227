//! `TenantAccount`: what the customer's own administrator sees of a tenant, and may change.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    limit::LimitValue,
    string_enum::string_enum,
    tenant_status::{TenantState, Usage, usage},
    validation::{conditions, one_line, resource_name, rule},
};

/// What the customer's administrator wants.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tenantry.dev",
    version = "v1alpha1",
    kind = "TenantAccount",
    namespaced,
    status = "TenantAccountStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "tenantry",
    doc = "A TenantAccount is what the customer's own administrator sees of a tenant: its plan, state, limits and usage. The operator creates it in the namespace that the Tenant names in spec.accountNamespace, creates it again when it is deleted, and removes it with the tenant. Its spec can be edited: the display name, the settings that the plan allows, and requests for another plan or an export.",
    validation = rule("self.metadata.name.size() <= 63", "metadata.name must have at most 63 characters: choose a shorter name"),
    printcolumn(name = "Display Name", type_ = "string", json_path = ".status.displayName"),
    printcolumn(name = "Plan", type_ = "string", json_path = ".status.plan", description = "Plan in force"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Trial Ends", type_ = "string", json_path = ".status.trialEndsAt"),
    printcolumn(name = "Deleted After", type_ = "string", json_path = ".status.purgeAfter", description = "When the data is deleted, while the tenant is being deprovisioned"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether what can be edited is in force as it is written"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
pub struct TenantAccountSpec {
    /// Name of the customer as people write it: one line, at most 200 characters. Defaults to the one that the provider
    /// has set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    #[x_kube(
        validation = rule("self.trim() != ''", "displayName must not be empty: write the name of the customer, or leave it out"),
        validation = one_line("displayName"),
    )]
    pub display_name: Option<String>,

    /// Settings of the application, as free-form JSON: those that status.editableSettings lists. Each replaces the one
    /// that the provider has set; one that is left out is that of the provider. Others are refused, and status says so.
    /// At most 50, and 16 KiB in total.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "settings")]
    pub settings: BTreeMap<String, Value>,

    /// Request for another plan. One that status.availablePlans lists is granted at once; another one waits for the
    /// provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_request: Option<PlanRequest>,

    /// Request for an export of the data. It waits for the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export_request: Option<ExportRequest>,
}

/// A request for another plan.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanRequest {
    /// Name of the plan.
    #[schemars(length(max = 63))]
    #[x_kube(validation = resource_name("planRequest.plan", "plan"))]
    pub plan: String,
}

/// A request for an export.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportRequest {
    /// Name of the request, for example 2026-11. Another name is another request.
    #[schemars(length(max = 63))]
    #[x_kube(validation = resource_name("exportRequest.name", "request"))]
    pub name: String,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RequestState {
    /// It waits for the provider.
    Pending,
    /// It was granted.
    Granted,
    /// It is not possible with the plan in force.
    Refused,
    /// It was granted, and something else was decided since.
    Superseded,
}
string_enum!(RequestState {
    Pending => "Pending",
    Granted => "Granted",
    Refused => "Refused",
    Superseded => "Superseded",
});

/// What the customer's administrator sees. Written by the operator only.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantAccountStatus {
    /// The metadata.generation that this status describes; -1 until the operator has processed the object for the first
    /// time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Id of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// Name of the customer in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Plan in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Lifecycle state of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TenantState>,
    /// Limits in force, by name: a number or `unlimited`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, LimitValue>,
    /// Usage of what is limited, by the name of the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "usage")]
    pub usage: Option<Usage>,
    /// When the trial ends or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_ends_at: Option<Time>,
    /// When the data is deleted, while the tenant is being deprovisioned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge_after: Option<Time>,
    /// Names of the settings that can be edited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub editable_settings: Vec<String>,
    /// Plans that a request is granted for at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub available_plans: Vec<String>,
    /// What became of the request for another plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_request: Option<PlanRequestStatus>,
    /// What became of the request for an export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export_request: Option<ExportRequestStatus>,
    /// Conditions of the account, by type: Ready, whether what was edited is in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// What became of a request for another plan.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanRequestStatus {
    /// Name of the plan.
    pub plan: String,
    /// Pending, Granted or Superseded.
    pub state: RequestState,
}

/// What became of a request for an export.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportRequestStatus {
    /// Name of the request.
    pub name: String,
    /// Pending or Refused.
    pub state: RequestState,
}

fn settings(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 50,
        "additionalProperties": {"x-kubernetes-preserve-unknown-fields": true},
    })
}
