//! `Tenant.spec.adopt` and `Tenant.status.adoption`: taking over a database that exists already.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{string_enum::string_enum, validation::rule};

/// A database that exists already and becomes the tenant's.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Adopt {
    /// Name of the database on the tenant's server, which its DatabaseServer must list in allowAdoption. It keeps this
    /// name. Cannot be changed.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(
        validation = rule(r"!self.matches('[\\x00-\\x1f\\x7f]')", "adopt.database must be the name of a database, without control characters"),
        validation = rule("self == oldSelf", "adopt.database cannot be changed: delete the Tenant, which changes nothing before the adoption is confirmed, and apply it with the other name"),
    )]
    pub database: String,
    /// Digest of the report that was read, as in status.adoption.digest. Without it, nothing is changed. If the database
    /// changed since, the report has another digest, and nothing is changed either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rule("self.matches('^[0-9a-f]+$')", "adopt.confirm must be the digest in status.adoption.digest"))]
    pub confirm: Option<String>,
    /// Versions of modules whose objects the database has already, by the module's name, as in {billing: "12"}. They are
    /// recorded as applied without running them; what they create must be there. Modules that are not listed are applied
    /// from their first file; those of a tool (source.job, source.external) are never listed. At most 50.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "baseline")]
    pub baseline: BTreeMap<String, String>,
}

fn baseline(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 50,
        "additionalProperties": {
            "type": "string",
            "maxLength": 4,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[1-9][0-9]*$')",
                "message": "a version in adopt.baseline must be the number of a file, in quotes, as in \"12\"; leave out a module of a tool, which knows itself what the database has",
            }],
        },
    })
}

/// The adoption of a database: what it would change, or has changed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdoptionStatus {
    /// Name of the database.
    pub database: String,
    /// How far the adoption is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<AdoptionState>,
    /// Digest of the report, for spec.adopt.confirm. Absent while something stands against the adoption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Owner of the database before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What the adoption changes, at most 41 lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// What stands against the adoption, each with the statement to run or what else to do; at most 41 lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<String>,
}

/// How far an adoption is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AdoptionState {
    /// Something stands against it. Nothing was changed.
    Blocked,
    /// The report waits to be confirmed. Nothing was changed.
    Reported,
    /// It was confirmed and is under way. An undo gives the database back.
    Adopting,
    /// The database is the tenant's.
    Adopted,
}
string_enum!(AdoptionState {
    Blocked => "Blocked",
    Reported => "Reported",
    Adopting => "Adopting",
    Adopted => "Adopted",
});
