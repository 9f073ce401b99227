//! `TenantPlan`: what a tenant may use.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    rules::{conditions, connections_at_least_one, limit_names, not_yet, resource_name, rule},
    tenant::{Gate, OnFailure, SuspensionMode, SuspensionTrigger},
    words::words,
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
    doc = "What the tenants of this plan may use: limits, features, a promise of availability. Tenants name it in spec.plan. The plans free, starter, professional and enterprise ship with the product. A change reaches them all, a few at a time. A plan cannot be deleted while a Tenant is on it.",
    validation = rule("self.metadata.name.size() <= 63", "metadata.name must have at most 63 characters: choose a shorter name"),
    printcolumn(name = "Users", type_ = "string", json_path = ".spec.limits.users"),
    printcolumn(name = "Projects", type_ = "string", json_path = ".spec.limits.projects"),
    printcolumn(name = "Storage", type_ = "string", json_path = ".spec.limits.storageBytes", description = "In bytes"),
    printcolumn(name = "Connections", type_ = "string", json_path = ".spec.limits.connections"),
    printcolumn(name = "SLA", type_ = "string", json_path = ".spec.sla", description = "Promised availability in percent"),
    printcolumn(name = "Features", type_ = "string", json_path = ".spec.features", priority = 1),
    printcolumn(name = "Used By", type_ = "integer", json_path = ".status.usedBy", description = "The number of Tenants on the plan"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether every tenant on the plan has it as it is now"),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.pending", priority = 1, description = "The number of them that do not have it as it is now"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
pub struct TenantPlanSpec {
    /// The limits, by name: users, projects, storageBytes (bytes of the database beyond those of an empty tenant),
    /// apiCallsPer15Minutes, connections (sessions of the tenant's login at the same time), and any further name that
    /// the application knows; names start with a lower-case letter and contain letters and digits. The value is a
    /// whole number from 0 to 2^53 - 1 (connections: from 1); `unlimited`; or `custom`, which leaves it to the tenant's
    /// own spec.limits. At most 50. A limit that is not named does not apply.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    #[x_kube(
        validation = limit_names(),
        validation = connections_at_least_one(),
        validation = rule(
            "self.all(name, type(self[name]) == string ? (self[name] == 'unlimited' || self[name] == 'custom') : (self[name] >= 0 && self[name] <= 9007199254740991))",
            "a limit must be a whole number from 0 to 9007199254740991, unlimited, or custom",
        ),
    )]
    pub limits: BTreeMap<String, LimitValue>,

    /// The features that the plan includes, as the application knows them, e.g. sso and scim: a-z, 0-9 and '-', at
    /// most 50.
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

    /// The availability that the plan promises, in percent, as text: "99.9". Unset: none. Data for the application
    /// and for people; Tenantry does not measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10))]
    #[x_kube(validation = rule(
        r"self.matches('^(100|[1-9]?[0-9]([.][0-9]{1,6})?)$')",
        "sla must be a percentage in quotes, without a sign, as in \"99.9\"; leave it out for none",
    ))]
    pub sla: Option<String>,

    /// The modules (sets of SQL migrations) that the plan's tenants get, beside core and identity, which every tenant
    /// has; empty: every module that is on by default. One that there is not keeps the plan from its tenants: Ready is
    /// False with the reason ModuleNotFound. A module that a tenant has already stays, with what is in it, also when its
    /// plan does not name it. At most 50.
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

    /// The length of the trial that a new tenant starts with, in days from the day it is handed out; 0 or unset: none.
    /// A tenant's own trial.endsAt wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("self >= 0 && self <= 3650", "trialDays must be between 0, which means no trial, and 3650"))]
    pub trial_days: Option<i32>,

    /// What happens at the end of a trial; unset: the tenant is suspended and Blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = rule("self.action != 'ChangePlan' || has(self.plan)", "trialEnd.plan is required with action ChangePlan: name the TenantPlan that follows"),
        validation = rule("self.action != 'ChangePlan' || !has(self.mode)", "trialEnd.mode is for action Suspend: leave it out"),
        validation = rule("self.action != 'Suspend' || !has(self.plan)", "trialEnd.plan is for action ChangePlan: leave it out"),
    )]
    pub trial_end: Option<TrialEnd>,

    /// For how many seconds the deprovisioning of a tenant can be undone, by what caused it, where the tenant's
    /// offboarding.gracePeriodSeconds does not say; 0 to 315360000, which is ten years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<GraceSeconds>,

    /// What a suspended tenant may still do, by what caused the suspension, where the suspension itself does not say;
    /// Blocked if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension_mode: Option<SuspensionModes>,

    /// What happens to tenants that nobody uses, as PostgreSQL counts the sessions in their databases: first a warning,
    /// then a hold named inactivity, which the annotation tenantry.dev/resume-requested-at with a new value lifts, or
    /// another plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = rule("has(self.warnDays) || has(self.holdDays)", "inactivity must have warnDays, holdDays or both, or be left out"),
        validation = rule("!has(self.warnDays) || !has(self.holdDays) || self.warnDays < self.holdDays", "inactivity.warnDays must be less than inactivity.holdDays: the warning comes first"),
    )]
    pub inactivity: Option<Inactivity>,

    /// What becomes of a tenant whose first provisioning fails for good, where the tenant does not say. Resume (the
    /// default): what is done stays, and the work goes on at the step that failed. Rollback: what was made is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,

    /// The gates that a new tenant starts with, beside its own spec.gates: the tenant is made and verified, but nobody
    /// gets in until all are done. They count until the tenant was handed out for the first time: what is changed here
    /// later makes no difference to it. At most 20. done must be left out: a tenant's own spec.gates says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = rule(
            "self.all(gate, !has(gate.done) || !gate.done)",
            "a gate of a plan must not be done: leave done out; each tenant says in its own spec.gates which are",
        ),
    )]
    pub gates: Vec<Gate>,

    /// What the customer's own administrator may change. Not supported yet: refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = not_yet("selfService"))]
    pub self_service: Option<SelfService>,
}

/// A limit: a number, or a word.
///
/// Not Kubernetes' own IntOrString, whose number has 32 bits: 10 GB are more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LimitValue {
    /// So many, and no more.
    Number(i64),
    /// No number.
    Word(LimitWord),
}

/// What a limit can be that is not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitWord {
    /// There is no limit.
    Unlimited,
    /// The tenant's own spec.limits says.
    Custom,
}

impl SuspensionModes {
    /// The mode for a cause, if the plan says one.
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

impl JsonSchema for LimitValue {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LimitValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 9})
    }
}

/// What happens at the end of a trial.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialEnd {
    /// Suspend the tenant, or change its plan.
    pub action: TrialEndAction,
    /// For Suspend: what the tenant may still do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<SuspensionMode>,
    /// For ChangePlan: the name of the plan that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = resource_name("trialEnd.plan", "TenantPlan"))]
    pub plan: Option<String>,
}

/// What is done at the end of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TrialEndAction {
    /// The tenant is suspended.
    Suspend,
    /// Another plan comes into force.
    ChangePlan,
}
words!(TrialEndAction { Suspend => "Suspend", ChangePlan => "ChangePlan" });

fn seconds(field: &str) -> Rule {
    rule(
        "self >= 0 && self <= 315360000",
        &format!("{field} must be between 0 and 315360000 seconds, which is ten years"),
    )
}

fn days(field: &str) -> Rule {
    rule("self >= 1 && self <= 3650", &format!("{field} must be between 1 and 3650 days"))
}

/// Seconds of grace, by what caused the deprovisioning.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraceSeconds {
    /// The customer asked for it, or the Tenant was deleted without another reason; 30 days if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = seconds("graceSeconds.CustomerRequest"))]
    pub customer_request: Option<i64>,
    /// The contract is over; 30 days if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = seconds("graceSeconds.ContractEnd"))]
    pub contract_end: Option<i64>,
    /// The customer did not pay; 60 days if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = seconds("graceSeconds.NonPayment"))]
    pub non_payment: Option<i64>,
    /// The customer broke the terms; 0 if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = seconds("graceSeconds.TermsViolation"))]
    pub terms_violation: Option<i64>,
}

/// What a suspended tenant may still do, by what caused the suspension.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SuspensionModes {
    /// The customer does not pay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_failure: Option<SuspensionMode>,
    /// The customer breaks the terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms_violation: Option<SuspensionMode>,
    /// An account or the data is in danger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_incident: Option<SuspensionMode>,
    /// The customer asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer_request: Option<SuspensionMode>,
    /// Nobody uses the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity: Option<SuspensionMode>,
}

/// What happens to tenants that nobody uses.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inactivity {
    /// After how many days without a session there is a warning; unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = days("inactivity.warnDays"))]
    pub warn_days: Option<i32>,
    /// After how many days without a session the tenant is held; unset: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = days("inactivity.holdDays"))]
    pub hold_days: Option<i32>,
}

/// What the customer's own administrator may change.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SelfService {
    /// The keys of settings that may be changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(max = 63)))]
    pub settings: Vec<String>,
    /// The plans that may be changed to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 63)))]
    pub plans: Vec<String>,
    /// Whether an export may be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<bool>,
}

/// What is known about the plan. Written by the operator alone.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantPlanStatus {
    /// The metadata.generation that this status is about; unset while nobody uses the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many Tenants name the plan in spec.plan, or have it in force (status.plan).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<i64>,
    /// How many of them do not have the plan in force as it is now. Those that are paused or go away do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<i64>,
    /// The conditions, by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}
