//! `LimitValue`: the value of a limit, in a plan, in a Tenant's spec and in its status.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The value of a limit: a number, or one of the words of [`LimitWord`].
///
/// Kubernetes' own IntOrString is not used, because its integer has 32 bits and a limit of 10 GB needs more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LimitValue {
    /// The maximum, in the unit of the limit.
    Number(i64),
    /// A value that is not a number.
    Word(LimitWord),
}

/// The values of a limit that are not numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitWord {
    /// There is no limit.
    Unlimited,
    /// In a plan: the tenant's own `spec.limits` must set the limit.
    Custom,
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
