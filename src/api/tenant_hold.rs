//! `TenantHold`: one party's reason why a tenant may not have full access.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    string_enum::string_enum,
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
    doc = "A TenantHold is one party's reason why a tenant may not have full access. Any number of holds may be in force: the strictest applies, and full access is granted again when all are deleted. RBAC controls who may create and delete them. A hold whose Tenant does not exist yet takes effect when the Tenant is created. A hold whose Tenant or namespace is deleted stays in force in the registry, also after the tenant is restored, until a TenantHold of the same name is applied and deleted again. With preserve: true it is a legal hold: the tenant's data is not deleted until the hold is lifted.",
    validation = rule("self.metadata.name.size() <= 63", "metadata.name must have at most 63 characters: choose a shorter name"),
    validation = rule("!(self.metadata.name in ['inactivity', 'quota'])", "metadata.name is reserved for the operator's own holds: choose another name"),
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenant"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", description = "Access that the hold allows; empty: the plan's suspensionMode for the trigger"),
    printcolumn(name = "Trigger", type_ = "string", json_path = ".spec.trigger"),
    printcolumn(name = "Preserve", type_ = "boolean", json_path = ".spec.preserve", description = "Whether it is a legal hold: the data is not deleted"),
    printcolumn(name = "In force", type_ = "string", json_path = r#".status.conditions[?(@.type=="InForce")].status"#, description = "Whether the hold is in force: recorded in the registry, and verified in PostgreSQL"),
    printcolumn(name = "Why", type_ = "string", json_path = ".spec.reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rule(
        "!has(self.mode) || self.mode != 'None' || (has(self.preserve) && self.preserve)",
        "mode None restricts nothing, so that the hold would have no effect: set preserve to true for a legal hold, or write Blocked or ReadOnly",
    ).field_path(".mode"),
    validation = rule(
        "!has(oldSelf.preserve) || !oldSelf.preserve || (has(self.preserve) && self.preserve)",
        "preserve cannot be unset: to end the legal hold, delete this TenantHold",
    ).field_path(".preserve"),
)]
pub struct TenantHoldSpec {
    /// Name of the Tenant, in the namespace of the hold. If the Tenant does not exist yet, the hold takes effect when
    /// the Tenant is created. Cannot be changed.
    #[schemars(length(max = 63))]
    #[x_kube(
        validation = resource_name("tenant", "Tenant"),
        validation = rule("self == oldSelf", "tenant cannot be changed: create another TenantHold for the other tenant"),
    )]
    pub tenant: String,

    /// Access that the hold allows: Blocked, ReadOnly or None. Blocked: no login. ReadOnly: reading only. None: the hold
    /// does not restrict access, which requires preserve. Defaults to the plan's suspensionMode for the trigger, else to
    /// Blocked, also for a legal hold. Can be changed at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TenantHoldMode>,

    /// Whether this is a legal hold: while it is in force, the tenant's database, login and Secrets are not deleted,
    /// whatever the grace period, the state, the deletionPolicy or a deletion of the Tenant say. It also applies to a
    /// Tenant that is already deleted, until its purge begins. Can be set at any time, and not unset: deleting the
    /// TenantHold ends it. Defaults to false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preserve: Option<bool>,

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

/// The access that a TenantHold allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TenantHoldMode {
    /// No login.
    Blocked,
    /// Reading only.
    ReadOnly,
    /// All that the tenant has: the hold restricts nothing.
    None,
}
string_enum!(TenantHoldMode { Blocked => "Blocked", ReadOnly => "ReadOnly", None => "None" });

impl TenantHoldMode {
    /// The suspension that it is; none if it restricts nothing.
    pub fn suspension(self) -> Option<SuspensionMode> {
        match self {
            Self::Blocked => Some(SuspensionMode::Blocked),
            Self::ReadOnly => Some(SuspensionMode::ReadOnly),
            Self::None => None,
        }
    }
}

impl TenantHold {
    /// Whether it is a legal hold.
    pub fn preserves(&self) -> bool {
        self.spec.preserve.unwrap_or(false)
    }
}

/// Observed state of the hold. Written by the operator only.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantHoldStatus {
    /// The metadata.generation that this status describes; -1 until the operator has processed the hold for the first
    /// time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Who placed the hold: the user who created it; unknown, with the reason, where the user is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed_by: Option<String>,
    /// Conditions of the hold, by type: InForce, and Ready, which has the same status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}
