//! `TenantHold`: one party's reason why a tenant may not have full access.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    tenant_lifecycle::{SuspensionMode, SuspensionTrigger},
    validation::{conditions, one_line, resource_name, rule},
};

/// A reason why a tenant may not have full access.
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
    doc = "A TenantHold is one party's reason why a tenant may not have full access. Any number of holds may be in force: the strictest applies, and full access is granted again when all are deleted. RBAC controls who may create and delete them. A hold whose Tenant does not exist yet takes effect when the Tenant is created. A hold whose Tenant or namespace is deleted stays in force in the registry, also after the tenant is restored, until a TenantHold of the same name is applied and deleted again.",
    validation = rule("self.metadata.name.size() <= 63", "metadata.name must have at most 63 characters: choose a shorter name"),
    validation = rule("!(self.metadata.name in ['inactivity', 'quota'])", "metadata.name is reserved for the operator's own holds: choose another name"),
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenant"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", description = "Access that the hold allows; empty: the plan's suspensionMode for the trigger"),
    printcolumn(name = "Trigger", type_ = "string", json_path = ".spec.trigger"),
    printcolumn(name = "In force", type_ = "string", json_path = r#".status.conditions[?(@.type=="InForce")].status"#, description = "Whether the hold is in force in PostgreSQL"),
    printcolumn(name = "Why", type_ = "string", json_path = ".spec.reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
pub struct TenantHoldSpec {
    /// Name of the Tenant, in the namespace of the hold. If the Tenant does not exist yet, the hold takes effect when
    /// the Tenant is created. Cannot be changed.
    #[schemars(length(max = 63))]
    #[x_kube(
        validation = resource_name("tenant", "Tenant"),
        validation = rule("self == oldSelf", "tenant cannot be changed: create another TenantHold for the other tenant"),
    )]
    pub tenant: String,

    /// Access that the hold allows: Blocked or ReadOnly. Blocked: no login. ReadOnly: reading only. Defaults to the
    /// plan's suspensionMode for the trigger, else to Blocked. Can be changed at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<SuspensionMode>,

    /// Cause of the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<SuspensionTrigger>,

    /// Reason for the hold, recorded in the audit trail: one line, at most 1000 characters.
    #[schemars(length(max = 1000))]
    #[x_kube(
        validation = rule("self.trim() != ''", "reason must not be empty: write for the audit trail why the tenant is held"),
        validation = one_line("reason"),
    )]
    pub reason: String,
}

/// Observed state of the hold. Written by the operator only.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantHoldStatus {
    /// The metadata.generation that this status describes; -1 until the operator has processed the hold for the first
    /// time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the hold, by type: InForce, and Ready, which has the same status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}
