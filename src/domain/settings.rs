//! Free-form settings: the rules that the API server cannot check.

use std::collections::BTreeMap;

use serde_json::Value;

/// The maximum size of all settings of a tenant as compact JSON, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// The largest integer that a JSON parser with IEEE doubles keeps, 2^53.
pub const MAX_INTEGER: i64 = 1 << 53;

/// Why settings are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// All settings together are too large.
    #[error(
        "spec.settings takes {bytes} bytes as JSON; at most {MAX_BYTES} are allowed: move large values into the tenant's own tables"
    )]
    TooLarge {
        /// Bytes of the compact JSON.
        bytes: usize,
    },
    /// A null inside an object or a list, which the API server cannot refuse.
    #[error("spec.settings.{key} holds a null: leave the key out instead")]
    Null {
        /// The top-level key under which it was found.
        key: String,
    },
    /// A character that PostgreSQL cannot store.
    #[error("spec.settings.{key} holds the character U+0000, which PostgreSQL cannot store: remove it")]
    Nul {
        /// The top-level key under which it was found.
        key: String,
    },
    /// An integer that the Kubernetes API would round.
    #[error(
        "spec.settings.{key} holds an integer beyond 2^53, which the Kubernetes API rounds: write it as a string"
    )]
    Integer {
        /// The top-level key under which it was found.
        key: String,
    },
}

/// Checks all settings of a tenant.
///
/// # Errors
/// The first rule that is violated.
pub fn check(settings: &BTreeMap<String, Value>) -> Result<(), SettingsError> {
    for (key, value) in settings {
        if any(value, &is_large_integer) {
            return Err(SettingsError::Integer { key: key.clone() });
        }
        if any(value, &Value::is_null) {
            return Err(SettingsError::Null { key: key.clone() });
        }
        if key.contains('\0') || any(value, &holds_nul) {
            return Err(SettingsError::Nul { key: key.clone() });
        }
    }
    let bytes = bytes(settings);
    if bytes > MAX_BYTES {
        return Err(SettingsError::TooLarge { bytes });
    }
    Ok(())
}

/// How much settings take as compact JSON, in bytes.
pub fn bytes(settings: &BTreeMap<String, Value>) -> usize {
    // `Value` is displayed as compact JSON; the object adds two braces, and quotes, a colon and a comma per entry.
    2 + settings.iter().map(|(key, value)| key.len() + 4 + value.to_string().len()).sum::<usize>()
}

/// Whether a predicate holds for a value or for any value inside it.
fn any(value: &Value, holds: &dyn Fn(&Value) -> bool) -> bool {
    holds(value)
        || match value {
            Value::Array(items) => items.iter().any(|item| any(item, holds)),
            Value::Object(fields) => fields.values().any(|field| any(field, holds)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Object(fields) => fields.keys().any(|key| key.contains('\0')),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => false,
    }
}

fn is_large_integer(value: &Value) -> bool {
    let Value::Number(number) = value else { return false };
    number.as_i64().is_some_and(|n| n.unsigned_abs() > MAX_INTEGER as u64)
        || number.as_u64().is_some_and(|n| n > MAX_INTEGER as u64)
        || number.is_f64()
            && number.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() > MAX_INTEGER as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(value: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn ordinary_settings_are_accepted() {
        let value =
            json!({"theme": "dark", "n": 9007199254740992_i64, "f": 1.5, "nested": {"list": [1, true]}});
        assert_eq!(check(&settings(value)), Ok(()));
    }

    #[test]
    fn large_integers_are_refused_at_any_depth() {
        for value in [
            json!({"a": 9007199254740993_i64}),
            json!({"a": [{"b": -9007199254740993_i64}]}),
            json!({"a": u64::MAX}),
        ] {
            assert_eq!(check(&settings(value)), Err(SettingsError::Integer { key: "a".into() }));
        }
    }

    #[test]
    fn values_that_would_be_lost_are_refused() {
        let refuse = |value| check(&settings(value)).unwrap_err();
        assert_eq!(refuse(json!({"a": {"b": [null]}})), SettingsError::Null { key: "a".into() });
        assert_eq!(refuse(json!({"a": ["x\0"]})), SettingsError::Nul { key: "a".into() });
        assert_eq!(refuse(json!({"a": {"b\0": 1}})), SettingsError::Nul { key: "a".into() });
    }

    #[test]
    fn size_is_limited_for_all_settings_together() {
        let value = json!({"a": "x".repeat(40_000), "b": "y".repeat(40_000)});
        assert!(matches!(check(&settings(value)), Err(SettingsError::TooLarge { bytes }) if bytes > 80_000));
        let value = json!({"a": "x".repeat(MAX_BYTES - 100)});
        assert_eq!(check(&settings(value)), Ok(()));
    }
}
