//! `TenantHold`: one party's reason why a tenant may not have full access.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    rules::{conditions, one_line, resource_name, rule},
    tenant::{SuspensionMode, SuspensionTrigger},
};

/// Why a tenant may not have full access, and who says so.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tenantry.dev",
    version = "v1alpha1",
    kind = "TenantHold",
    namespaced,
    status = "TenantHoldStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "hold",
    category = "tenantry",
    selectable = ".spec.tenant",
    doc = "One party's reason why a tenant may not have full access. Any number of them may be in force: the strictest wins, and access is given back when all are deleted. RBAC decides who may create and delete them. A hold whose Tenant does not exist yet waits for it; one whose Tenant or namespace is deleted stays in force in the registry, also when the tenant comes back, until a TenantHold of its name is applied and deleted again.",
    validation = rule("self.metadata.name.size() <= 63", "metadata.name must have at most 63 characters: choose a shorter name"),
    validation = rule("!(self.metadata.name in ['inactivity', 'quota'])", "metadata.name is reserved for a hold that the operator puts itself: choose another"),
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenant"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", description = "What the tenant may still do; empty: what its plan says for the trigger"),
    printcolumn(name = "Trigger", type_ = "string", json_path = ".spec.trigger"),
    printcolumn(name = "In force", type_ = "string", json_path = r#".status.conditions[?(@.type=="InForce")].status"#, description = "Whether PostgreSQL holds the tenant to it"),
    printcolumn(name = "Why", type_ = "string", json_path = ".spec.reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
pub struct TenantHoldSpec {
    /// The name of the Tenant, in the hold's own namespace. One that does not exist (yet) is accepted: the hold then
    /// applies from the tenant's first moment. It cannot be changed.
    #[schemars(length(max = 63))]
    #[x_kube(
        validation = resource_name("tenant", "Tenant"),
        validation = rule("self == oldSelf", "tenant cannot be changed: make another TenantHold for the other tenant"),
    )]
    pub tenant: String,

    /// What the tenant may still do. Blocked: nothing, not even log in. ReadOnly: read. Unset: what the tenant's plan
    /// says for the trigger, else Blocked. May change at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<SuspensionMode>,

    /// What causes the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<SuspensionTrigger>,

    /// Why, in words, for the audit trail: one line, at most 1000 characters.
    #[schemars(length(max = 1000))]
    #[x_kube(
        validation = rule("self.trim() != ''", "reason must not be empty: say for the audit trail why the tenant is held"),
        validation = one_line("reason"),
    )]
    pub reason: String,
}

/// Whether the hold is in force. Written by the operator alone.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantHoldStatus {
    /// The metadata.generation that this status is about; -1 until the operator has seen the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The conditions, by type: InForce, and Ready, which says the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}
