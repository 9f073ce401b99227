//! The parts of `Tenant.spec` about the desired state, its duration, and offboarding.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    string_enum::string_enum,
    validation::{one_line, rule, time},
};

/// The desired state of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DesiredState {
    /// The tenant has access.
    #[default]
    Active,
    /// The tenant's access is restricted; its data is kept.
    Suspended,
    /// The tenant is deprovisioned; the resource is kept.
    Deprovisioned,
}
string_enum!(DesiredState { Active => "Active", Suspended => "Suspended", Deprovisioned => "Deprovisioned" });

/// Access level and cause of a suspension.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Suspension {
    /// Access of the suspended tenant: Blocked or ReadOnly. Blocked: no login. ReadOnly: reading only. Defaults to the
    /// plan's suspensionMode for the trigger, else to Blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<SuspensionMode>,
    /// Cause of the suspension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<SuspensionTrigger>,
}

/// The access of a suspended tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SuspensionMode {
    /// No login.
    Blocked,
    /// Reading only.
    ReadOnly,
}
string_enum!(SuspensionMode { Blocked => "Blocked", ReadOnly => "ReadOnly" });

/// The cause of a suspension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SuspensionTrigger {
    /// The customer did not pay.
    PaymentFailure,
    /// The customer violated the terms.
    TermsViolation,
    /// An account or the data is at risk.
    SecurityIncident,
    /// The customer requested it.
    CustomerRequest,
    /// The tenant is not used.
    Inactivity,
}
string_enum!(SuspensionTrigger {
    PaymentFailure => "PaymentFailure",
    TermsViolation => "TermsViolation",
    SecurityIncident => "SecurityIncident",
    CustomerRequest => "CustomerRequest",
    Inactivity => "Inactivity",
});

/// Time-limited trial.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// Time at which the trial ends, in RFC 3339 format. The plan's trialEnd defines what happens then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub ends_at: Option<Time>,
}

/// Period during which the tenant has access.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Validity {
    /// Start of the period, in RFC 3339 format. Before this time, access is Blocked. Defaults to no start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub not_before: Option<Time>,
    /// End of the period, in RFC 3339 format. From this time on, access is Blocked. Defaults to no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub not_after: Option<Time>,
}

/// Offboarding of a tenant.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offboarding {
    /// Cause of the offboarding, which selects the default grace period. Defaults to CustomerRequest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<OffboardingTrigger>,
    /// Reason for the offboarding, recorded in the audit trail: one line, at most 1000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    #[x_kube(validation = one_line("offboarding.reason"))]
    pub reason: Option<String>,
    /// Grace period in seconds, from 0 to 315360000 (ten years). Access is revoked when offboarding begins, and the
    /// database is dropped when the grace period ends. Until then, applying the same Tenant again (namespace, name and
    /// slug), or changing the state back, restores the tenant with its data and its password. 0 drops the database at
    /// once. Defaults to the plan's graceSeconds for the trigger, else to 30 days (NonPayment: 60 days, TermsViolation:
    /// 0). A tenant that was never active has no grace period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("self >= 0 && self <= 315360000", "offboarding.gracePeriodSeconds must be between 0, which drops the database at once, and 315360000, which is ten years"))]
    pub grace_period_seconds: Option<i64>,
    /// Whether the database is exported before it is dropped. Defaults to false. true is not supported yet and is
    /// refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("!self", "offboarding.export must be false or left out: exports are not supported yet"))]
    pub export: Option<bool>,
}

/// The cause of an offboarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OffboardingTrigger {
    /// The customer requested it.
    CustomerRequest,
    /// The contract ended.
    ContractEnd,
    /// The customer did not pay.
    NonPayment,
    /// The customer violated the terms.
    TermsViolation,
}
string_enum!(OffboardingTrigger {
    CustomerRequest => "CustomerRequest",
    ContractEnd => "ContractEnd",
    NonPayment => "NonPayment",
    TermsViolation => "TermsViolation",
});

/// What happens to the database after offboarding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// The database is dropped.
    #[default]
    Purge,
    /// The database is kept, without access.
    Retain,
}
string_enum!(DeletionPolicy { Purge => "Purge", Retain => "Retain" });
