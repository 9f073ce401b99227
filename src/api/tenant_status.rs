//! `Tenant.status`: what is in force.
//!
//! A field is absent while its value is not known, so that the status, applied server-side, owns only the fields that
//! it sets.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    limit::LimitValue, reason::Reason, string_enum::string_enum, tenant_adoption::AdoptionStatus,
    tenant_credentials::CredentialsStatus, tenant_hold::TenantHoldMode, tenant_lifecycle::SuspensionTrigger,
    validation::conditions,
};

/// Observed state of the tenant. Written by the operator only.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// The metadata.generation that this status describes; -1 until the operator has processed the Tenant for the first
    /// time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Lifecycle state of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TenantState>,
    /// Name of the plan in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Plan that the customer's administrator changed to in the TenantAccount, as the plan's selfService allows: it counts
    /// instead of spec.plan, until spec.plan changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_plan: Option<String>,
    /// Access level of the tenant's own logins, as verified in PostgreSQL. Unknown while it cannot be verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// ID of the tenant in the registry. It never changes, and is the value of the label tenantry.dev/tenant-id of the
    /// tenant's Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// Slug in force, while it is not the one of the spec: the change is not recorded yet, or another tenant has that slug.
    /// Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// Name of the DatabaseServer that hosts the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Name of the tenant's database on that server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Name of the tenant's schema in that database. Absent where every tenant has its own database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The adoption of an existing database, as spec.adopt asks for it: what it changes, and what stands against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption: Option<AdoptionStatus>,
    /// Reference to the connection Secret, once its credentials work. With it the Tenant is a Provisioned Service of
    /// the Service Binding specification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// The credentials in the connection Secret, and those before them while they are valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsStatus>,
    /// Modules in the tenant's database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub modules: Vec<ModuleStatus>,
    /// Limits in force, by name: a number, or unlimited.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, LimitValue>,
    /// Features in force, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Names of the gates that are not done yet, sorted. Access is Blocked while there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_gates: Vec<String>,
    /// Usage of what is limited, by the name of the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "usage")]
    pub usage: Option<Usage>,
    /// Holds in force: those of TenantHolds and the operator's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub holds: Vec<HoldStatus>,
    /// Time at which the trial ends, or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_ends_at: Option<Time>,
    /// Time at which the suspension began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_at: Option<Time>,
    /// Time at which deprovisioning began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprovisioned_at: Option<Time>,
    /// Time at which the grace period ends. Until then, deprovisioning can be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge_after: Option<Time>,
    /// Time of the last change of state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_updated_at: Option<Time>,
    /// Who changed the state last: a user; tenantry for automatic changes; unknown, with the reason, where the user is not
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_updated_by: Option<String>,
    /// The workflow that runs for this tenant, or that ran last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<WorkflowStatus>,
    /// Conditions of the tenant, by type. Ready summarizes the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// The lifecycle state of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TenantState {
    /// The tenant is being provisioned; no credentials are published yet.
    Provisioning,
    /// The tenant has full access for a limited time.
    Trial,
    /// The tenant has full access.
    Active,
    /// The tenant's access is restricted.
    Suspended,
    /// Access is revoked; the data is dropped when the grace period ends.
    Deprovisioning,
    /// The tenant is deprovisioned.
    Deprovisioned,
    /// The first provisioning met a permanent error.
    Failed,
}
string_enum!(TenantState {
    Provisioning => "Provisioning",
    Trial => "Trial",
    Active => "Active",
    Suspended => "Suspended",
    Deprovisioning => "Deprovisioning",
    Deprovisioned => "Deprovisioned",
    Failed => "Failed",
});

/// The reason of the Event for a transition to a state.
impl From<TenantState> for Reason {
    fn from(state: TenantState) -> Self {
        match state {
            TenantState::Provisioning => Self::Provisioning,
            TenantState::Trial => Self::Trial,
            TenantState::Active => Self::Active,
            TenantState::Suspended => Self::Suspended,
            TenantState::Deprovisioning => Self::Deprovisioning,
            TenantState::Deprovisioned => Self::Deprovisioned,
            TenantState::Failed => Self::Failed,
        }
    }
}

/// The access level of the tenant's own logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    /// Full access.
    ReadWrite,
    /// Reading and deleting.
    ShrinkOnly,
    /// Reading only.
    ReadOnly,
    /// No login.
    Blocked,
    /// The level could not be verified.
    Unknown,
}
string_enum!(Access {
    ReadWrite => "ReadWrite",
    ShrinkOnly => "ShrinkOnly",
    ReadOnly => "ReadOnly",
    Blocked => "Blocked",
    Unknown => "Unknown",
});

/// Reference to the connection Secret.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// Name of the Secret, in the Tenant's namespace.
    pub name: String,
}

/// A module in the tenant's database.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleStatus {
    /// Name of the module.
    pub name: String,
    /// Version that is applied; 0 before the first.
    pub version: i64,
    /// Version that should be applied.
    pub target: i64,
    /// Name of the version that is applied, of a module with source.job or source.external; version counts these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_name: Option<String>,
    /// Name of the version that should be applied, of such a module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_name: Option<String>,
    /// Whether it is applied, and if not, whether it will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ModuleState>,
    /// Why it is not applied, and what to do. A file that failed is named with line and column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How far a module is in a tenant's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ModuleState {
    /// It is at its target version.
    Current,
    /// Its turn comes: tenants are brought up a few at a time.
    Pending,
    /// The Job with the application's own tool runs.
    Running,
    /// The team's pipeline has not reported the target version yet.
    AwaitingReport,
    /// A file, or the Job with the application's own tool, failed.
    Failed,
    /// Nothing new is applied: the module is not Ready, its rollout stopped, or it does not exist any more.
    Held,
}
string_enum!(ModuleState { Current => "Current", Pending => "Pending", Running => "Running", AwaitingReport => "AwaitingReport", Failed => "Failed", Held => "Held" });

/// The tenant's usage, by the name of the limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Time of the measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_at: Option<Time>,
    /// The amounts, in the unit of the limit.
    #[serde(flatten)]
    pub amounts: BTreeMap<String, i64>,
}

/// A structural schema cannot describe named properties beside arbitrary ones, so that the amounts are free-form.
pub(super) fn usage(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {"measuredAt": {"type": "string", "format": "date-time", "description": "Time of the measurement."}},
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// A hold in force.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldStatus {
    /// Name of the hold.
    pub name: String,
    /// Access that the hold allows.
    pub mode: HoldMode,
    /// Whether it is a legal hold: the tenant's data is not deleted while it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preserve: Option<bool>,
    /// Cause of the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<SuspensionTrigger>,
    /// Reason for the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who placed the hold: a user, or tenantry for the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed_by: Option<String>,
    /// Time since which the hold is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// The access that a hold allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HoldMode {
    /// No login.
    Blocked,
    /// Reading only.
    ReadOnly,
    /// Reading and deleting: the operator's own hold on a tenant that has reached its storage limit.
    ShrinkOnly,
    /// All that the tenant has: a legal hold that does not restrict access.
    None,
}
string_enum!(HoldMode {
    Blocked => "Blocked",
    ReadOnly => "ReadOnly",
    ShrinkOnly => "ShrinkOnly",
    None => "None",
});

impl From<TenantHoldMode> for HoldMode {
    fn from(mode: TenantHoldMode) -> Self {
        match mode {
            TenantHoldMode::Blocked => Self::Blocked,
            TenantHoldMode::ReadOnly => Self::ReadOnly,
            TenantHoldMode::None => Self::None,
        }
    }
}

/// A workflow: one run of steps for this tenant.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowStatus {
    /// Correlation ID, which also appears in the operator's logs, in Events and in the registry.
    pub id: String,
    /// Purpose of the workflow.
    pub kind: WorkflowKind,
    /// Number of the current attempt, from 1.
    pub attempt: i32,
    /// Time at which the first attempt started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Time at which the workflow ended. Absent while it runs or waits for its next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Time of the next attempt after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Time>,
    /// Steps of the workflow, in the order in which they run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub steps: Vec<StepStatus>,
}

/// The purpose of a workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WorkflowKind {
    /// Provision a new tenant.
    Provision,
    /// Apply a changed spec.
    Update,
    /// Apply another plan, or a changed one.
    ChangePlan,
    /// Repair manual changes.
    Repair,
    /// Deprovision the tenant.
    Deprovision,
    /// Restrict the tenant's access.
    Suspend,
    /// Grant the tenant access again.
    Resume,
    /// Restore a tenant that was being deprovisioned.
    Undelete,
    /// Remove what a failed first provisioning created.
    Rollback,
}
string_enum!(WorkflowKind {
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
    /// Name of the step.
    pub name: String,
    /// State of the step.
    pub state: StepState,
    /// Number of times the step was started.
    pub attempts: i32,
    /// Time at which the step was last started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Time at which the step ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// The error, or what the step waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// PostgreSQL's error code (SQLSTATE), if the error came from PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql_state: Option<String>,
}

/// The state of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StepState {
    /// The step was not started.
    #[default]
    Pending,
    /// The step runs.
    Running,
    /// The step succeeded.
    Succeeded,
    /// The step failed.
    Failed,
}
string_enum!(StepState {
    Pending => "Pending",
    Running => "Running",
    Succeeded => "Succeeded",
    Failed => "Failed",
});
