//! `Tenant.status`: what is in force.
//!
//! Every field is left out while it is unknown, so that the status, applied server-side, owns only what it says.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    plan::LimitValue,
    rules::conditions,
    tenant::{SuspensionMode, SuspensionTrigger},
    words::words,
};

/// What is in force. Written by the operator alone.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// The metadata.generation that this status is about; -1 until the operator has seen the Tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the tenant is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TenantState>,
    /// The plan in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// What the tenant's own logins may do, as verified in PostgreSQL; Unknown while it could not be verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// The registry's id of the tenant: the same for its whole life, and the label tenantry.dev/tenant-id of its
    /// Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// The DatabaseServer that hosts the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The tenant's database on that server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The tenant's schema in that database, where schemas are what separates tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The Secret with the connection, once it works: the Tenant is a Provisioned Service of the Service Binding
    /// specification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// The modules in the tenant's database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub modules: Vec<ModuleStatus>,
    /// The limits in force: numbers, or unlimited.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, LimitValue>,
    /// The features in force, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// The names of the gates that are not done, sorted: access stays Blocked until there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_gates: Vec<String>,
    /// What the tenant uses of what is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "usage")]
    pub usage: Option<Usage>,
    /// The reasons in force why the tenant does not have full access, whoever put them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub holds: Vec<HoldStatus>,
    /// When the trial ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_ends_at: Option<Time>,
    /// Since when the tenant is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_at: Option<Time>,
    /// When the tenant was deprovisioned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprovisioned_at: Option<Time>,
    /// Until when the deprovisioning can be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge_after: Option<Time>,
    /// When the state changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_updated_at: Option<Time>,
    /// Who changed it, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_updated_by: Option<String>,
    /// The work on this tenant: what runs, or what ran last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<WorkflowStatus>,
    /// The conditions, by type. Ready sums them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// Where a tenant is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TenantState {
    /// It is being made; nothing is handed out yet.
    Provisioning,
    /// It is served, for a limited time.
    Trial,
    /// It is served.
    Active,
    /// Its access is narrowed.
    Suspended,
    /// Its access is cut, and its data is about to go.
    Deprovisioning,
    /// It is gone.
    Deprovisioned,
    /// Its first provisioning met an error that does not go away by itself.
    Failed,
}
words!(TenantState {
    Provisioning => "Provisioning",
    Trial => "Trial",
    Active => "Active",
    Suspended => "Suspended",
    Deprovisioning => "Deprovisioning",
    Deprovisioned => "Deprovisioned",
    Failed => "Failed",
});

/// What the tenant's own logins may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    /// Everything that a tenant may ever do.
    ReadWrite,
    /// Read and delete.
    ShrinkOnly,
    /// Read.
    ReadOnly,
    /// Nothing, not even log in.
    Blocked,
    /// It could not be verified.
    Unknown,
}
words!(Access {
    ReadWrite => "ReadWrite",
    ShrinkOnly => "ShrinkOnly",
    ReadOnly => "ReadOnly",
    Blocked => "Blocked",
    Unknown => "Unknown",
});

/// A reference to the Secret with the connection.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// The name of the Secret, in the Tenant's namespace.
    pub name: String,
}

/// A module in the tenant's database.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleStatus {
    /// The module's name.
    pub name: String,
    /// The version that is applied; 0: none yet.
    pub version: i64,
    /// The version that should be.
    pub target: i64,
}

/// What the tenant uses, by the name of the limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// When it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_at: Option<Time>,
    /// The amounts, in the unit of the limit.
    #[serde(flatten)]
    pub amounts: BTreeMap<String, i64>,
}

/// A structural schema cannot have named properties and others: the others are free-form.
fn usage(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {"measuredAt": {"type": "string", "format": "date-time", "description": "When it was measured."}},
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// A reason why the tenant does not have full access.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldStatus {
    /// The name of the hold.
    pub name: String,
    /// What the tenant may still do.
    pub mode: HoldMode,
    /// What caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<SuspensionTrigger>,
    /// Why it was put, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// What a tenant that is held may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HoldMode {
    /// Nothing, not even log in.
    Blocked,
    /// Read.
    ReadOnly,
    /// Read and delete: a hold of the operator's own, for a tenant that has to make room.
    ShrinkOnly,
}
words!(HoldMode { Blocked => "Blocked", ReadOnly => "ReadOnly", ShrinkOnly => "ShrinkOnly" });

impl From<SuspensionMode> for HoldMode {
    fn from(mode: SuspensionMode) -> Self {
        match mode {
            SuspensionMode::Blocked => Self::Blocked,
            SuspensionMode::ReadOnly => Self::ReadOnly,
        }
    }
}

/// One run of steps for this tenant.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowStatus {
    /// The correlation id: the same in the operator's logs, in Events and in the registry.
    pub id: String,
    /// What the run is for.
    pub kind: WorkflowKind,
    /// How often it was started, counted from 1.
    pub attempt: i32,
    /// When it was started first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended; unset while it runs or waits for its next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// When it is tried again after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Time>,
    /// Its steps, in the order in which they run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub steps: Vec<StepStatus>,
}

/// What a workflow is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WorkflowKind {
    /// The tenant is made.
    Provision,
    /// A changed spec is put in force.
    Update,
    /// Another plan, or a changed one, is put in force.
    ChangePlan,
    /// What was changed by hand is put right.
    Repair,
    /// The tenant is taken down.
    Deprovision,
    /// The tenant's access is narrowed.
    Suspend,
    /// The tenant's access is given back.
    Resume,
    /// A tenant that was going away is brought back.
    Undelete,
    /// What a failed first provisioning made is removed.
    Rollback,
}
words!(WorkflowKind {
    Provision => "Provision",
    Update => "Update",
    ChangePlan => "ChangePlan",
    Repair => "Repair",
    Deprovision => "Deprovision",
    Suspend => "Suspend",
    Resume => "Resume",
    Undelete => "Undelete",
    Rollback => "Rollback",
});

/// One step of a workflow.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// The step's name.
    pub name: String,
    /// Where it is.
    pub state: StepState,
    /// How often it was started.
    pub attempts: i32,
    /// When it was started last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// The error, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// PostgreSQL's error code, if it was PostgreSQL's error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql_state: Option<String>,
}

/// Where a step is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StepState {
    /// It was not started.
    #[default]
    Pending,
    /// It runs.
    Running,
    /// It is done.
    Succeeded,
    /// It failed.
    Failed,
}
words!(StepState {
    Pending => "Pending",
    Running => "Running",
    Succeeded => "Succeeded",
    Failed => "Failed",
});
