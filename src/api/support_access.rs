//! `SupportAccess`: a read-only login for one tenant's data, with a reason and an end.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    string_enum::string_enum,
    validation::{conditions, one_line, resource_name, rule, user_name},
};

/// A read-only login for the data of one tenant, for a limited time.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tenantry.dev",
    version = "v1alpha1",
    kind = "SupportAccess",
    plural = "supportaccesses",
    namespaced,
    status = "SupportAccessStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "supp",
    category = "tenantry",
    selectable = ".spec.tenant",
    doc = "A SupportAccess gives a Secret with a login that reads the data of one tenant, for a reason and for at most eight hours, also while the tenant is suspended. The login writes nothing, and reads no column that a module marks as secret. It ends by itself, with its sessions; deleting the SupportAccess ends it at once. Request, grant, first use and end are rows of the registry's activity log. One that has ended is never granted again: create another.",
    validation = rule("self.metadata.name.size() <= 63", "metadata.name must have at most 63 characters: choose a shorter name"),
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenant"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Requested by", type_ = "string", json_path = ".spec.requestedBy"),
    printcolumn(name = "Approved by", type_ = "string", json_path = ".spec.approvedBy", description = "Empty: not approved yet, or no approval is required"),
    printcolumn(name = "Until", type_ = "string", json_path = ".status.expiresAt", description = "When the login ends"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName", description = "Secret with the login"),
    printcolumn(name = "First use", type_ = "string", json_path = ".status.firstUsedAt", priority = 1, description = "When a session of the login was seen first"),
    printcolumn(name = "Why", type_ = "string", json_path = ".spec.reason", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Granted")].message"#, priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rule(
        "(has(self.durationSeconds) ? self.durationSeconds : 0) == (has(oldSelf.durationSeconds) ? oldSelf.durationSeconds : 0)",
        "durationSeconds cannot be changed: create another SupportAccess for more time",
    ).field_path(".durationSeconds"),
    validation = rule(
        "(has(self.approval) ? self.approval : 'NotRequired') == (has(oldSelf.approval) ? oldSelf.approval : 'NotRequired')",
        "approval cannot be changed: create another SupportAccess",
    ).field_path(".approval"),
    validation = rule(
        "!has(oldSelf.approvedBy) || (has(self.approvedBy) && self.approvedBy == oldSelf.approvedBy)",
        "approvedBy cannot be changed or removed: to end the access, delete the SupportAccess",
    ).field_path(".approvedBy"),
    validation = rule(
        "!has(self.approvedBy) || (has(self.approval) && self.approval == 'Required')",
        "approvedBy must be left out unless approval is Required: without it, the access is granted at once",
    ).field_path(".approvedBy"),
    validation = rule(
        "!has(self.approvedBy) || self.approvedBy != self.requestedBy",
        "approvedBy must be another user than requestedBy: who requests an access does not approve it",
    ).field_path(".approvedBy"),
)]
pub struct SupportAccessSpec {
    /// Name of the Tenant, in the namespace of the SupportAccess. Cannot be changed.
    #[schemars(length(max = 63))]
    #[x_kube(
        validation = resource_name("tenant", "Tenant"),
        validation = rule("self == oldSelf", "tenant cannot be changed: create another SupportAccess for the other tenant"),
    )]
    pub tenant: String,

    /// Reason for the access, recorded in the audit trail: one line, at most 1000 characters. Cannot be changed.
    #[schemars(length(max = 1000))]
    #[x_kube(
        validation = rule("self.trim() != ''", "reason must not be empty: write for the audit trail why the data is read"),
        validation = one_line("reason"),
        validation = rule("self == oldSelf", "reason cannot be changed: create another SupportAccess"),
    )]
    pub reason: String,

    /// How long the login is valid from its grant on, in seconds: from 60 to 28800 (eight hours). Defaults to 3600.
    /// Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 28800))]
    pub duration_seconds: Option<i32>,

    /// Whether another user must approve the access before it is granted. Defaults to NotRequired. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<SupportApproval>,

    /// User who requests the access: your own name, as `kubectl auth whoami` shows it. The admission policy refuses any
    /// other name. Cannot be changed.
    #[schemars(length(max = 512))]
    #[x_kube(
        validation = user_name("requestedBy"),
        validation = rule("self == oldSelf", "requestedBy cannot be changed: create another SupportAccess"),
    )]
    pub requested_by: String,

    /// User who approves the access, where approval is Required: written by that user, with their own name, after the
    /// SupportAccess was created. It needs the RBAC verb approve on this SupportAccess. Cannot be changed once it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = user_name("approvedBy"))]
    pub approved_by: Option<String>,
}

/// Whether another user must approve a SupportAccess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SupportApproval {
    /// It is granted at once.
    NotRequired,
    /// It waits until another user has approved it.
    Required,
}
string_enum!(SupportApproval { NotRequired => "NotRequired", Required => "Required" });

/// How far a SupportAccess is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SupportState {
    /// It is not granted yet.
    Pending,
    /// It waits until another user has approved it.
    WaitingForApproval,
    /// The login is valid.
    Granted,
    /// The login is being taken away.
    Ending,
    /// The login is gone, and its sessions are ended.
    Ended,
    /// It was not granted, and will not be.
    Refused,
}
string_enum!(SupportState {
    Pending => "Pending",
    WaitingForApproval => "WaitingForApproval",
    Granted => "Granted",
    Ending => "Ending",
    Ended => "Ended",
    Refused => "Refused",
});

/// Observed state of the access. Written by the operator only.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SupportAccessStatus {
    /// The metadata.generation that this status describes; -1 until the operator has processed the object for the first
    /// time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How far the access is: Pending, WaitingForApproval, Granted, Ending, Ended or Refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<SupportState>,
    /// The registry's id of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// Name of the Secret with the login, in the namespace of the SupportAccess, while it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// The login in PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// When the access was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_at: Option<Time>,
    /// When the login ends, also while no operator runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// When a session of the login was seen first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_used_at: Option<Time>,
    /// When the login was gone and its sessions ended, or the access was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Conditions of the access, by type: Granted, and Ready, which is also True once the access has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

impl SupportAccess {
    /// Whether another user must approve it.
    pub fn requires_approval(&self) -> bool {
        self.spec.approval == Some(SupportApproval::Required)
    }
}
