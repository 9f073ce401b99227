//! Validation rules and schemas that several kinds share.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;

/// A CEL rule, and the message of its violation. The API server puts the path and the value in front of the message.
pub fn rule(expression: &str, message: &str) -> Rule {
    Rule::new(expression).message(message)
}

/// A rule on `spec` as a whole. It holds if `valid` holds for the new spec, or for neither the new nor the old one.
///
/// The API server itself tolerates invalid values that do not change, but not in a `spec` with an object in one of its
/// free-form parts (`settings: {a: {b: 1}}`): without this tolerance, the finalizer of a Tenant that became invalid
/// could not be released.
pub fn rule_on_spec(valid: &str, message: &str) -> Rule {
    let valid_before = valid.replace("self.", "old.");
    let tolerated = format!("oldSelf.hasValue() && [oldSelf.value()].all(old, !({valid_before}))");
    rule(&format!("({valid}) || ({tolerated})"), message).optional_old_self(true)
}

/// Amounts of resources, such as `cpu: 100m` and `memory: 256Mi`. At most 20.
pub fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 20,
        "additionalProperties": {
            "type": "string", "maxLength": 32, "pattern": r"^[0-9]+([.][0-9]+)?(m|k|[KMGTPE]i?)?$",
        },
    })
}

/// A field that is reserved for a later version: every value is refused, not ignored.
pub fn not_yet(field: &str) -> Rule {
    rule("false", &format!("{field} is not supported yet: leave it out"))
}

/// A free-form field that is reserved for a later version. The API server does not tolerate free-form objects that do
/// not change, so that only adding the field is refused.
pub fn free_form_not_yet(field: &str) -> Rule {
    rule("oldSelf.hasValue()", &format!("{field} is not supported yet: leave it out")).optional_old_self(true)
}

/// Text of one line. PostgreSQL cannot store U+0000, and a line break in a name or a reason would forge log lines.
pub fn one_line(field: &str) -> Rule {
    rule(
        r"!self.matches('[\\x00-\\x1f\\x7f-\\x{9f}\\x{2028}\\x{2029}]')",
        &format!("{field} must be text of one line: remove line breaks, tabs and other control characters"),
    )
}

/// The name of a user, as the API server has it.
pub fn user_name(field: &str) -> Rule {
    rule(
        r"self != '' && !self.matches('[\\x00-\\x1f\\x7f-\\x{9f}\\x{2028}\\x{2029}]')",
        &format!("{field} must be the name of a user, as `kubectl auth whoami` shows it"),
    )
}

const NAME: &str = "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')";

/// The name of another object of a kind.
pub fn resource_name(field: &str, kind: &str) -> Rule {
    rule(
        NAME,
        &format!(
            "{field} must be the name of a {kind}: a-z, 0-9, '-' and '.', with a letter or a digit at both ends"
        ),
    )
}

/// The names of limits.
pub fn limit_names() -> Rule {
    rule(
        "self.all(name, name.size() <= 63 && name.matches('^[a-z][A-Za-z0-9]*$'))",
        "the name of a limit must have at most 63 letters and digits and start with a lower-case letter, as in storageBytes",
    )
}

/// A time of the spec. `pattern` and the rule allow only what the operator can read: at most nine fraction digits, and a
/// time that is representable with room for arithmetic. CEL sees the time and not its text.
pub fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "format": "date-time",
        "maxLength": 35,
        "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$",
        "x-kubernetes-validations": [{
            "rule": "self < timestamp('9999-01-01T00:00:00Z')",
            "message": "a time must be before the year 9999, as in 2026-12-31T00:00:00Z: leave the field out for no end",
        }],
    })
}

/// Limits by name, at most 50. The rule is on the value and not on the map: the API server's message names the limit, as in
/// `spec.limits[users]`.
pub fn limits(_: &mut SchemaGenerator) -> Schema {
    let valid = "type(self) == string ? (self in ['unlimited', 'custom'] || (self.matches('^(0|[1-9][0-9]{0,15})([KMGT]i|[kMGT])$') && quantity(self).isLessThan(quantity('8192Ti')))) : (self >= 0 && self <= 9007199254740991)";
    json_schema!({
        "type": "object",
        "maxProperties": 50,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "maxLength": 18,
            "x-kubernetes-validations": [{
                "rule": valid,
                "message": "a limit must be a whole number from 0 to 9007199254740991, a quantity less than 8192Ti as in 10Gi, unlimited, or custom",
            }],
        },
    })
}

/// Versions of modules by name, at most 20. As for limits, the message names the module.
pub fn minimum_versions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 20,
        "additionalProperties": {
            "type": "string",
            "maxLength": 4,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[0-9]+$')",
                "message": "a minimum version must be the number of a file, in quotes, as in {core: \"2\"}",
            }],
        },
    })
}

/// The limit connections, if it is a number: with no session at all, the tenant's login could not be verified.
pub fn connections_at_least_one() -> Rule {
    rule(
        "!('connections' in self) || type(self['connections']) == string || self['connections'] != 0",
        "the limit connections must be at least 1: to deny a tenant access, suspend it instead",
    )
}

/// The limit connections, if it is a number or a quantity: PostgreSQL has at most 262143 sessions (`MAX_BACKENDS`).
pub fn connections_possible() -> Rule {
    rule(
        "!('connections' in self) || (type(self['connections']) == string ? self['connections'] in ['unlimited', 'custom'] : self['connections'] <= 262143)",
        "the limit connections must be a number of sessions without a unit, at most 262143, which is PostgreSQL's maximum, or unlimited, or custom",
    )
}

/// The limit tempFileBytes, if it is a number or a quantity: PostgreSQL keeps it in KiB, in 31 bits.
pub fn temp_files_possible() -> Rule {
    rule(
        "!('tempFileBytes' in self) || (type(self['tempFileBytes']) == string ? (!self['tempFileBytes'].matches('^[0-9]+([KMGT]i|[kMGT])$') || quantity(self['tempFileBytes']).isLessThan(quantity('2Ti'))) : self['tempFileBytes'] < 2199023255552)",
        "the limit tempFileBytes must be less than 2Ti, which is PostgreSQL's maximum, or unlimited, or custom",
    )
}

/// An optional field of `spec` that cannot be added, changed or removed.
pub fn immutable(field: &str, message: &str) -> Rule {
    let unchanged = format!(
        "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    );
    rule(&unchanged, message).field_path(format!(".{field}"))
}

/// An object of any shape.
pub fn free_form(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// The conditions of a status: a map by type, so that several writers can own one each.
pub fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let mut item = generator.subschema_for::<Condition>();
    let limits = json!({
        "type": {"maxLength": 316, "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"},
        "status": {"enum": ["True", "False", "Unknown"]},
        "reason": {"minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
        "message": {"maxLength": super::conditions::MAX_MESSAGE_BYTES},
        "observedGeneration": {"minimum": 0},
    });
    if let (Some(properties), Some(limits)) = (
        item.ensure_object().get_mut("properties").and_then(|properties| properties.as_object_mut()),
        limits.as_object(),
    ) {
        for (name, limit) in limits {
            if let (Some(property), Some(limit)) =
                (properties.get_mut(name).and_then(|property| property.as_object_mut()), limit.as_object())
            {
                property.extend(limit.clone());
            }
        }
    }
    json_schema!({
        "type": "array",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}
