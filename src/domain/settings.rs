//! Free-form settings: the limits that the API server cannot check.

use std::collections::BTreeMap;

use serde_json::Value;

/// The most that all settings of a tenant may take as compact JSON, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// The largest integer that survives a JSON parser with IEEE doubles, 2^53.
pub const MAX_INTEGER: i64 = 1 << 53;

/// Why settings are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Together too large.
    #[error(
        "spec.settings takes {bytes} bytes as JSON; at most {MAX_BYTES} are allowed: move large values into the tenant's own tables"
    )]
    TooLarge {
        /// Bytes of the compact JSON.
        bytes: usize,
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
pub fn check(settings: &BTreeMap<String, Value>) -> Result<(), SettingsError> {
    for (key, value) in settings {
        if holds_large_integer(value) {
            return Err(SettingsError::Integer { key: key.clone() });
        }
    }
    // `Value` writes itself as compact JSON; two braces and a colon and comma per entry are the object's own.
    let bytes =
        2 + settings.iter().map(|(key, value)| key.len() + 4 + value.to_string().len()).sum::<usize>();
    if bytes > MAX_BYTES {
        return Err(SettingsError::TooLarge { bytes });
    }
    Ok(())
}

fn holds_large_integer(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            number.as_i64().is_some_and(|n| n.unsigned_abs() > MAX_INTEGER as u64)
                || number.as_u64().is_some_and(|n| n > MAX_INTEGER as u64)
                || number.is_f64()
                    && number.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() > MAX_INTEGER as f64)
        }
        Value::Array(items) => items.iter().any(holds_large_integer),
        Value::Object(fields) => fields.values().any(holds_large_integer),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(value: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn ordinary_settings_pass() {
        let value =
            json!({"theme": "dark", "n": 9007199254740992_i64, "f": 1.5, "nested": {"list": [1, true]}});
        assert_eq!(check(&settings(value)), Ok(()));
    }

    #[test]
    fn large_integers_are_refused_wherever_they_are() {
        for value in [
            json!({"a": 9007199254740993_i64}),
            json!({"a": [{"b": -9007199254740993_i64}]}),
            json!({"a": u64::MAX}),
        ] {
            assert_eq!(check(&settings(value)), Err(SettingsError::Integer { key: "a".into() }));
        }
    }

    #[test]
    fn the_size_is_that_of_all_together() {
        let value = json!({"a": "x".repeat(40_000), "b": "y".repeat(40_000)});
        assert!(matches!(check(&settings(value)), Err(SettingsError::TooLarge { bytes }) if bytes > 80_000));
        let value = json!({"a": "x".repeat(MAX_BYTES - 100)});
        assert_eq!(check(&settings(value)), Ok(()));
    }
}
