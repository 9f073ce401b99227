//! `LimitValue`: the value of a limit, in a plan, in a Tenant's spec and in its status.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The value of a limit: a number, one of the words of [`LimitWord`], or a quantity.
///
/// Kubernetes' own IntOrString is not used, because its integer has 32 bits and a limit of 10 GB needs more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LimitValue {
    /// The maximum, in the unit of the limit.
    Number(i64),
    /// A value that is not a number.
    Word(LimitWord),
    /// The maximum with a unit, as people write it.
    Quantity(Quantity),
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
        json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 18})
    }
}

/// The largest value of a limit: a JSON parser with IEEE doubles keeps every integer up to it.
pub const MAX_LIMIT: i64 = (1 << 53) - 1;

/// The units of a quantity, and their size.
const UNITS: [(&str, i64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

/// A whole number of one of Kubernetes' units, as in `10Gi`. It is written back as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quantity {
    count: i64,
    unit: usize,
}

/// A text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a whole number with Ki, Mi, Gi, Ti, k, M, G or T, as in 10Gi; less than 8192Ti")]
pub struct QuantityError;

impl Quantity {
    /// The number, without its unit: of bytes, for a limit in bytes.
    pub fn number(self) -> i64 {
        self.count * UNITS[self.unit].1
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let unit = UNITS.iter().position(|(unit, _)| *unit == &text[digits.len()..]);
        let (true, Some(unit)) = (is_number, unit) else { return Err(QuantityError) };
        let count: i64 = digits.parse().map_err(|_| QuantityError)?;
        let number = count.checked_mul(UNITS[unit].1).filter(|number| *number <= MAX_LIMIT);
        // A number with leading zeros would be written back as another text.
        let same = count.to_string() == digits;
        number.filter(|_| same).map(|_| Self { count, unit }).ok_or(QuantityError)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.count, UNITS[self.unit].0)
    }
}

impl TryFrom<String> for Quantity {
    type Error = QuantityError;

    fn try_from(text: String) -> Result<Self, QuantityError> {
        text.parse()
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> Self {
        quantity.to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_numbers_and_written_back_as_they_were_read() {
        for (text, number) in
            [("10Gi", 10 << 30), ("1k", 1_000), ("0Mi", 0), ("8191Ti", 8191 << 40), ("9T", 9_000_000_000_000)]
        {
            let value: LimitValue = serde_json::from_value(json!(text)).unwrap();
            let LimitValue::Quantity(quantity) = value else { panic!("{value:?}") };
            assert_eq!((quantity.number(), serde_json::to_value(value).unwrap()), (number, json!(text)));
        }
        for text in [
            "",
            "10",
            "Gi",
            "10gi",
            "10 Gi",
            "1.5Gi",
            "-1Gi",
            "010Gi",
            "8192Ti",
            "99999999999999999Ti",
            "1Giü",
        ] {
            assert!(serde_json::from_value::<LimitValue>(json!(text)).is_err(), "{text}");
        }
    }
}
