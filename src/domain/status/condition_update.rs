//! A condition as a reconcile writes it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::{
    conditions::{ConditionStatus, condition},
    reason::Reason,
};

/// A condition without its generation and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConditionUpdate {
    pub(super) type_: &'static str,
    pub(super) status: ConditionStatus,
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl ConditionUpdate {
    pub(super) fn new(
        type_: &'static str,
        status: ConditionStatus,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self { type_, status, reason, message: message.into() }
    }

    pub(super) fn into_condition(self, generation: Option<i64>, now: Timestamp) -> Condition {
        condition(self.type_, self.status, self.reason, self.message, generation, now)
    }
}
