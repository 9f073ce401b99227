//! Pieces of schema that several kinds share.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;

/// A rule and what a user reads when it is broken. The API server puts the path and the value in front of it.
pub fn rule(rule: &str, message: &str) -> Rule {
    Rule::new(rule).message(message)
}

/// A rule on `spec` as a whole, which holds if `right` is true of the new spec, or neither of the new nor of the old.
///
/// The API server itself tolerates what is wrong and unchanged, but gives up on a `spec` with an object in its free-form
/// parts (`settings: {a: {b: 1}}`): without this, a Tenant that became wrong could not let its finalizer go.
pub fn rule_on_spec(right: &str, message: &str) -> Rule {
    let of_old = right.replace("self.", "old.");
    let rule = format!("({right}) || (oldSelf.hasValue() && [oldSelf.value()].all(old, !({of_old})))");
    Rule::new(rule).message(message).optional_old_self(true)
}

/// A field of a later version: refused rather than ignored.
pub fn not_yet(field: &str) -> Rule {
    rule("false", &format!("{field} is not supported yet: leave it out"))
}

/// A free-form field of a later version. The API server tolerates no free-form object, even if it is unchanged, so this
/// refuses only its arrival.
pub fn free_form_not_yet(field: &str) -> Rule {
    rule("oldSelf.hasValue()", &format!("{field} is not supported yet: leave it out")).optional_old_self(true)
}

/// Text of one line: PostgreSQL stores no NUL, and a line break in a name or a reason forges lines of a log.
pub fn one_line(field: &str) -> Rule {
    rule(
        r"!self.matches('[\\x00-\\x1f\\x7f-\\x{9f}\\x{2028}\\x{2029}]')",
        &format!("{field} must be text of one line: remove line breaks, tabs and other control characters"),
    )
}

const NAME: &str = "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')";

/// The name of another object.
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

/// The limit on connections, if it is a number: a login that may have no session could not be verified.
pub fn connections_at_least_one() -> Rule {
    rule(
        "!('connections' in self) || type(self['connections']) == string || self['connections'] != 0",
        "the limit connections must be at least 1: to keep a tenant out, suspend it instead",
    )
}

/// An optional field of `spec` that cannot change: neither its value, nor whether it is there.
pub fn immutable(field: &str, message: &str) -> Rule {
    let same = format!(
        "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    );
    rule(&same, message).field_path(format!(".{field}"))
}

/// JSON of any shape below an object.
pub fn free_form(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// The conditions of a status: a list-map by type, so that several writers could own one each.
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
