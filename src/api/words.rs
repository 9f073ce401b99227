//! Enums whose variants are words of the API.

/// Gives an enum its words: `ALL`, `as_str`, `Display` and its schema. The words are those that serde writes (a test
/// below holds them together).
macro_rules! words {
    ($type:ident { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in the order of its definition.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in the API.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        // Not derived: a derived schema carries the doc comment of the enum, and `kubectl explain` would show it in the
        // place of the field's.
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let words: Vec<&str> = Self::ALL.iter().map(|word| word.as_str()).collect();
                schemars::json_schema!({"type": "string", "enum": words})
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    use crate::api::{database_server::*, plan::*, tenant::*, tenant_status::*};

    macro_rules! assert_words {
        ($($type:ident),+ $(,)?) => {$(
            for value in $type::ALL {
                let json = serde_json::to_value(value).unwrap();
                assert_eq!(json, value.as_str(), "{}", stringify!($type));
                assert_eq!(serde_json::from_value::<$type>(json).unwrap(), *value);
                assert_eq!(value.to_string(), value.as_str());
            }
        )+};
    }

    #[test]
    fn the_words_are_those_on_the_wire() {
        assert_words!(
            DesiredState,
            SuspensionMode,
            SuspensionTrigger,
            OffboardingTrigger,
            DeletionPolicy,
            AdminCredential,
            Isolation,
            OnFailure,
            TenantState,
            Access,
            WorkflowKind,
            StepState,
            HoldMode,
            TrialEndAction,
            Engine,
            TlsMode,
            SslMode,
        );
    }
}
