//! The parts of `Tenant.spec` that say in what state the tenant should be, for how long, and how it leaves.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    rules::{one_line, rule},
    words::words,
};

/// The state that the platform operator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DesiredState {
    /// The tenant is served.
    #[default]
    Active,
    /// The tenant's access is narrowed; nothing is lost.
    Suspended,
    /// The tenant goes away, the resource stays.
    Deprovisioned,
}
words!(DesiredState { Active => "Active", Suspended => "Suspended", Deprovisioned => "Deprovisioned" });

/// How a suspension is enforced, and what causes it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Suspension {
    /// What a suspended tenant may still do. Blocked: nothing, not even log in. ReadOnly: read. Unset: what the plan
    /// says for the trigger, else Blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<SuspensionMode>,
    /// What causes the suspension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<SuspensionTrigger>,
}

/// What a suspended tenant may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SuspensionMode {
    /// Nothing, not even log in.
    Blocked,
    /// Read.
    ReadOnly,
}
words!(SuspensionMode { Blocked => "Blocked", ReadOnly => "ReadOnly" });

/// What causes a suspension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SuspensionTrigger {
    /// The customer does not pay.
    PaymentFailure,
    /// The customer breaks the terms.
    TermsViolation,
    /// An account or the data is in danger.
    SecurityIncident,
    /// The customer asked for it.
    CustomerRequest,
    /// Nobody uses the tenant.
    Inactivity,
}
words!(SuspensionTrigger {
    PaymentFailure => "PaymentFailure",
    TermsViolation => "TermsViolation",
    SecurityIncident => "SecurityIncident",
    CustomerRequest => "CustomerRequest",
    Inactivity => "Inactivity",
});

/// A time-limited trial.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// When the trial ends (RFC 3339). The plan says what happens then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Time>,
}

/// The window of time outside of which the tenant has no access.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Validity {
    /// No access before this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// No access from this time on (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
}

/// How the tenant leaves.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offboarding {
    /// Why the tenant leaves; a deletion without it counts as CustomerRequest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<OffboardingTrigger>,
    /// Why the tenant leaves, in words, for the audit trail: one line, at most 1000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    #[x_kube(validation = one_line("offboarding.reason"))]
    pub reason: Option<String>,
    /// For how many seconds a deletion, or state: Deprovisioned, can be undone: access is cut at once, and the database
    /// is dropped when they are over. Until then, applying the same Tenant again (namespace, name and slug), or setting
    /// state back, gives back the same tenant with its data and its password. 0 drops the database at once; at most ten
    /// years. Unset: what the plan says for the trigger, else 30 days, 60 for NonPayment and 0 for TermsViolation. A
    /// tenant that was never in use has no grace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("self >= 0 && self <= 315360000", "offboarding.gracePeriodSeconds must be between 0, which drops the database at once, and 315360000, which is ten years"))]
    pub grace_period_seconds: Option<i64>,
    /// Whether the database is exported before it is dropped. true is not supported yet: refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("!self", "offboarding.export must be false or left out: exports are not supported yet"))]
    pub export: Option<bool>,
}

/// Why a tenant leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OffboardingTrigger {
    /// The customer asked for it.
    CustomerRequest,
    /// The contract is over.
    ContractEnd,
    /// The customer did not pay.
    NonPayment,
    /// The customer broke the terms.
    TermsViolation,
}
words!(OffboardingTrigger {
    CustomerRequest => "CustomerRequest",
    ContractEnd => "ContractEnd",
    NonPayment => "NonPayment",
    TermsViolation => "TermsViolation",
});

/// What becomes of the database when the tenant has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// It is dropped.
    #[default]
    Purge,
    /// It is cut off and kept.
    Retain,
}
words!(DeletionPolicy { Purge => "Purge", Retain => "Retain" });
