//! `TenantPlan`: what a tenant may use.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    limit::LimitValue,
    string_enum::string_enum,
    tenant::{Gate, OnFailure},
    tenant_lifecycle::{SuspensionMode, SuspensionTrigger},
    validation::{
        conditions, connections_at_least_one, connections_possible, limit_names, limits, resource_name, rule,
        temp_files_possible,
    },
};

/// What the tenants of this plan may use.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tenantry.dev",
    version = "v1alpha1",
    kind = "TenantPlan",
    status = "TenantPlanStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "tenantry",
    doc = "A TenantPlan defines what its tenants may use: limits, features, modules and a promised availability. Tenants name it in spec.plan. The plans free, starter, professional and enterprise ship with the product. A change is applied to all tenants of the plan, a few at a time. A TenantPlan cannot be deleted while a Tenant uses it.",
    validation = rule("self.metadata.name.size() <= 63", "metadata.name must have at most 63 characters: choose a shorter name"),
    printcolumn(name = "Users", type_ = "string", json_path = ".spec.limits.users"),
    printcolumn(name = "Projects", type_ = "string", json_path = ".spec.limits.projects"),
    printcolumn(name = "Storage", type_ = "string", json_path = ".spec.limits.storageBytes", description = "Storage limit in bytes"),
    printcolumn(name = "Connections", type_ = "string", json_path = ".spec.limits.connections"),
    printcolumn(name = "SLA", type_ = "string", json_path = ".spec.sla", description = "Promised availability in percent"),
    printcolumn(name = "Features", type_ = "string", json_path = ".spec.features", priority = 1),
    printcolumn(name = "Used By", type_ = "integer", json_path = ".status.usedBy", description = "Number of Tenants that use the plan"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether every Tenant on the plan has its current content in force"),
    printcolumn(name = "Limits Known", type_ = "string", json_path = r#".status.conditions[?(@.type=="LimitsKnown")].status"#, description = "Whether every limit is enforced by Tenantry or listed in published; False: one is probably misspelt"),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.pending", priority = 1, description = "Number of Tenants that do not have the current content of the plan in force"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
pub struct TenantPlanSpec {
    /// Limits by name: users, projects, storageBytes (bytes of the database beyond those of an empty tenant),
    /// apiCallsPer15Minutes, connections (concurrent sessions of the tenant's login), tempFileBytes (temporary files of one
    /// session), and any other name that the application defines: a lower-case letter, followed by letters and digits;
    /// list such names in published. A value is a whole number from 0 to 2^53 - 1 (connections: from 1 to 262143; tempFileBytes: less than
    /// 2 TiB), or a quantity of bytes as in 10Gi; `unlimited`; or `custom`, which requires the tenant's own spec.limits to
    /// set the limit. A limit that is not listed does not apply, except that connections is 50
    /// and tempFileBytes 1 GiB by default. At most 50.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "limits")]
    #[x_kube(
        validation = limit_names(),
        validation = connections_at_least_one(),
        validation = connections_possible(),
        validation = temp_files_possible(),
    )]
    pub limits: BTreeMap<String, LimitValue>,

    /// Names of limits that Tenantry does not enforce: it only publishes them to the application and to gateways, which
    /// do. A name in limits that is not listed here, that no module meters and that PostgreSQL does not enforce is
    /// probably misspelt: the condition LimitsKnown of the plan is False then; so is a name that limits does not set.
    /// At most 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 63)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = rule(
            "self.all(name, name.matches('^[a-z][A-Za-z0-9]*$'))",
            "published must have names of limits: at most 63 letters and digits that start with a lower-case letter, as in apiCallsPer15Minutes",
        ),
    )]
    pub published: Vec<String>,

    /// Features that the plan includes, for the application to interpret, for example sso and scim: names of a-z, 0-9
    /// and '-', at most 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 63)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = rule(
            "self.all(feature, feature.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$'))",
            "a feature must be a name of a-z, 0-9 and '-' that starts with a letter, as in sso",
        ),
    )]
    pub features: Vec<String>,

    /// Promised availability in percent, as a string, for example "99.9". Defaults to none. It is information for the
    /// application and for people; Tenantry does not measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10))]
    #[x_kube(validation = rule(
        r"self.matches('^(100|[1-9]?[0-9]([.][0-9]{1,6})?)$')",
        "sla must be a percentage in quotes, without a sign, as in \"99.9\"; leave it out for none",
    ))]
    pub sla: Option<String>,

    /// Modules (sets of SQL migrations) of the plan's tenants, by the names of TenantModules, in addition to those that
    /// they depend on. Defaults to every module that is enabled by default. A tenant's own spec.modules replaces the list.
    /// An unknown module prevents the plan from being applied: Ready of the plan and of its tenants is False with the
    /// reason ModuleNotFound. A module that a tenant already has is kept, with its data, when the plan no longer lists it.
    /// At most 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 63)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = rule(
            "self.all(module, module.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$'))",
            "a module must be a name of a-z, 0-9 and '-' that starts with a letter, as in projects",
        ),
    )]
    pub modules: Vec<String>,

    /// Length of the trial of a new tenant, in days, from 0 to 3650. Defaults to 0: no trial. The trial begins at the
    /// first activation, or when the tenant's gates are done, whichever is later. A tenant's trial.endsAt overrides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("self >= 0 && self <= 3650", "trialDays must be between 0, which means no trial, and 3650"))]
    pub trial_days: Option<i32>,

    /// What happens when a trial ends. Defaults to suspending the tenant with its access Blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = rule("self.action != 'ChangePlan' || has(self.plan)", "trialEnd.plan is required with action ChangePlan: write the name of the TenantPlan that follows"),
        validation = rule("self.action != 'ChangePlan' || !has(self.mode)", "trialEnd.mode is for action Suspend: leave it out"),
        validation = rule("self.action != 'Suspend' || !has(self.plan)", "trialEnd.plan is for action ChangePlan: leave it out"),
    )]
    pub trial_end: Option<TrialEnd>,

    /// Grace periods for offboarding by trigger, in seconds, from 0 to 315360000 (ten years). A tenant's
    /// offboarding.gracePeriodSeconds overrides them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<GraceSeconds>,

    /// Access of suspended tenants by trigger. A mode set in the suspension itself overrides it. Defaults to Blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension_mode: Option<SuspensionModes>,

    /// What happens to unused tenants, by the sessions that PostgreSQL counts in their databases: first a warning, then
    /// a hold named inactivity. Another plan, or a new value of the annotation tenantry.dev/resume-requested-at, lifts
    /// the hold. Defaults to no warning and no hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = rule("has(self.warnDays) || has(self.holdDays)", "inactivity must have warnDays, holdDays or both, or be left out"),
        validation = rule("!has(self.warnDays) || !has(self.holdDays) || self.warnDays < self.holdDays", "inactivity.warnDays must be less than inactivity.holdDays: the warning precedes the hold"),
    )]
    pub inactivity: Option<Inactivity>,

    /// What happens when the first provisioning of a tenant fails with a permanent error: Resume or Rollback. Resume
    /// keeps what was created and continues at the step that failed. Rollback removes what was created. Defaults to
    /// Resume. A tenant's provisioning.onFailure overrides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,

    /// Gates of new tenants, in addition to their own spec.gates: the tenant is provisioned and verified, but its
    /// access is Blocked until all gates are done. A tenant keeps the gates that the plan has at its first activation;
    /// later changes do not affect it. done must be absent: each tenant marks gates as done in its own spec.gates. At
    /// most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = rule(
            "self.all(gate, !has(gate.done) || !gate.done)",
            "a gate of a plan must not be done: leave done out; each tenant marks gates as done in its own spec.gates",
        ),
    )]
    pub gates: Vec<Gate>,

    /// What the customer's own administrator may change in the TenantAccount, apart from the display name. Defaults to
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_service: Option<SelfService>,
}

impl SuspensionModes {
    /// The mode for a trigger, if the plan sets one.
    pub fn of(&self, trigger: SuspensionTrigger) -> Option<SuspensionMode> {
        match trigger {
            SuspensionTrigger::PaymentFailure => self.payment_failure,
            SuspensionTrigger::TermsViolation => self.terms_violation,
            SuspensionTrigger::SecurityIncident => self.security_incident,
            SuspensionTrigger::CustomerRequest => self.customer_request,
            SuspensionTrigger::Inactivity => self.inactivity,
        }
    }
}

/// What happens when a trial ends.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialEnd {
    /// Suspend restricts the tenant's access. ChangePlan changes its plan.
    pub action: TrialEndAction,
    /// Access of the tenant after its trial, with action Suspend. Defaults to Blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<SuspensionMode>,
    /// Name of the plan that follows, with action ChangePlan, which requires it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = resource_name("trialEnd.plan", "TenantPlan"))]
    pub plan: Option<String>,
}

/// The action at the end of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TrialEndAction {
    /// The tenant is suspended.
    Suspend,
    /// The tenant changes to another plan.
    ChangePlan,
}
string_enum!(TrialEndAction { Suspend => "Suspend", ChangePlan => "ChangePlan" });

fn seconds(field: &str) -> Rule {
    rule(
        "self >= 0 && self <= 315360000",
        &format!("{field} must be between 0 and 315360000 seconds, which is ten years"),
    )
}

fn days(field: &str) -> Rule {
    rule("self >= 1 && self <= 3650", &format!("{field} must be between 1 and 3650 days"))
}

/// Grace periods for offboarding by trigger, in seconds.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraceSeconds {
    /// The customer requested the offboarding, or the Tenant was deleted without a trigger. Defaults to 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = seconds("graceSeconds.CustomerRequest"))]
    pub customer_request: Option<i64>,
    /// The contract ended. Defaults to 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = seconds("graceSeconds.ContractEnd"))]
    pub contract_end: Option<i64>,
    /// The customer did not pay. Defaults to 60 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = seconds("graceSeconds.NonPayment"))]
    pub non_payment: Option<i64>,
    /// The customer violated the terms. Defaults to 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = seconds("graceSeconds.TermsViolation"))]
    pub terms_violation: Option<i64>,
}

/// Access of suspended tenants by trigger.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SuspensionModes {
    /// The customer did not pay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_failure: Option<SuspensionMode>,
    /// The customer violated the terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms_violation: Option<SuspensionMode>,
    /// An account or the data is at risk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_incident: Option<SuspensionMode>,
    /// The customer requested it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer_request: Option<SuspensionMode>,
    /// The tenant is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity: Option<SuspensionMode>,
}

/// What happens to unused tenants.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inactivity {
    /// Days without a session until a warning Event is published, from 1 to 3650. Defaults to no warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = days("inactivity.warnDays"))]
    pub warn_days: Option<i32>,
    /// Days without a session until the hold inactivity is placed, from 1 to 3650. Defaults to no hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = days("inactivity.holdDays"))]
    pub hold_days: Option<i32>,
}

/// What the customer's own administrator may change.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SelfService {
    /// Names of the settings that the administrator may change, at most 50. The administrator's value of such a setting
    /// replaces that of the Tenant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub settings: Vec<String>,
    /// Names of the TenantPlans that the administrator may change to without asking, at most 50. The change is in force
    /// until the Tenant's own spec.plan changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub plans: Vec<String>,
    /// Whether the administrator may ask for an export. Defaults to false. A platform operator makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<bool>,
}

/// Observed state of the plan. Written by the operator only.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantPlanStatus {
    /// The metadata.generation that this status describes. Absent until the operator has read the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of Tenants that name the plan in spec.plan, or have it in force (status.plan).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<i64>,
    /// Number of those Tenants that do not have the current content of the plan in force. Tenants that are paused or
    /// being deprovisioned are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<i64>,
    /// Conditions of the plan, by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}
