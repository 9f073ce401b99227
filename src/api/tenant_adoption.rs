//! `Tenant.spec.adopt` and `Tenant.status.adoption`: taking over a database that exists already.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    string_enum::string_enum,
    validation::{rule, time},
};

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
    /// Keeps the login with which the application connects so far until a date, beside the new one in the connection Secret.
    /// Without it, the application needs the new Secret at the moment of the adoption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_login: Option<KeepLogin>,
}

/// A login of the application that works until a date after the adoption.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeepLogin {
    /// Name of the role, with the password that it has. From the adoption on it has the rights and the limits of the
    /// tenant's own login, and is restricted with it. It may be used by this one database only; the report in
    /// status.adoption names what stands against it. Changing it after the adoption has no effect.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rule(r"!self.matches('[\\x00-\\x1f\\x7f]')", "adopt.keepLogin.name must be the name of a role, without control characters"))]
    pub name: String,
    /// Time at which it ends, at most 90 days after the report, as in 2027-01-31T12:00:00Z: its sessions end, and it loses
    /// LOGIN and every right on the database. It is not dropped. A rotation that is asked for by annotation ends it at
    /// once. After the adoption, an earlier time ends it earlier, and a later one has no effect.
    #[schemars(schema_with = "time")]
    pub until: Time,
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
