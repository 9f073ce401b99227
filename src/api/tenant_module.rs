//! `TenantModule`: a versioned set of SQL files for tenants' databases.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    module_image::{ModuleImage, ModuleImageStatus},
    module_job::ModuleJob,
    string_enum::string_enum,
    validation::{conditions, minimum_versions, resource_name, rule, rule_on_spec},
};

/// A set of SQL files and where it comes from.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tenantry.dev",
    version = "v1alpha1",
    kind = "TenantModule",
    status = "TenantModuleStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "tmod",
    category = "tenantry",
    doc = "A TenantModule is a versioned set of SQL files (migrations) that is applied to the databases of the tenants that have it: new tenants are cloned from a database that has it already, and existing tenants are brought up a few at a time. The files are NNNN_name.sql, from 0001 without gaps; a file that was accepted never changes, and new versions are new files. Which tenants have a module: those that name it in spec.modules, else those whose TenantPlan names it, else, with default: true, all; and a tenant that has a module keeps it. Before a tenant is touched, all files are checked and rehearsed on a scratch database: until Ready is True, nothing of new content is applied anywhere. The modules that ship with Tenantry are listed too. In short: kubectl -n <namespace of the operator> create configmap billing-1 --from-file=0001_invoices.sql; a TenantModule billing with spec: {schema: billing, source: {configMaps: [{name: billing-1}]}}; once it is Ready, modules: [{name: billing}] in the spec of each Tenant, or modules: [billing] in that of its TenantPlan. docs/modules.md explains how to write one.",
    validation = rule("self.metadata.name.size() <= 63", "metadata.name must have at most 63 characters: choose a shorter name"),
    printcolumn(name = "Source", type_ = "string", json_path = ".status.source", description = "Where the files come from"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", description = "Version that tenants are brought to"),
    printcolumn(name = "Latest", type_ = "string", json_path = ".status.latest", description = "Newest version in the source"),
    printcolumn(name = "Tenants", type_ = "integer", json_path = ".status.tenants.total", description = "Number of Tenants that have the module"),
    printcolumn(name = "Behind", type_ = "integer", json_path = ".status.tenants.behind", description = "Number of those Tenants that are not at their target version"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.tenants.failed", priority = 1, description = "Number of those Tenants on which a file failed"),
    printcolumn(name = "Schema", type_ = "string", json_path = ".status.schema", priority = 1, description = "Schema of the tenants' databases that its objects are in"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether the content is accepted, so that tenants get it"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rule_on_spec(
        "!has(self.source.builtIn) || (!has(self.schema) && !has(self.dependsOn) && !has(self.minimumVersions) && !has(self.extensions) && !has(self.version) && !has(self.allowDestructive))",
        "a built-in module has its schema, version, dependencies and extensions from Tenantry: leave all fields but source and default out",
    ),
    validation = rule_on_spec(
        "!has(self.minimumVersions) || self.minimumVersions.all(module, has(self.dependsOn) && module in self.dependsOn)",
        "minimumVersions names a module that dependsOn does not: add it to dependsOn",
    ),
    validation = rule_on_spec(
        "!has(self.version) || has(self.source.job) || has(self.source.external) || self.version.matches('^[0-9]{0,4}$')",
        "version must be the number of a file, in quotes, as in \"7\": leave it out for the newest",
    ),
    validation = rule_on_spec(
        "!(has(self.source.job) || has(self.source.external)) || has(self.version) && self.version.matches('^[!-~]{1,63}$')",
        "version is required with source.job and source.external: the name of the version that the tool brings, of 1 to 63 characters without spaces, as in \"2026.11.3\"",
    ),
)]
pub struct TenantModuleSpec {
    /// Where the files come from: exactly one of configMaps, directory, image, job and external; builtIn is for the objects
    /// that the operator itself applies, one for each module that ships with it.
    #[x_kube(validation = rule(
        "[has(self.builtIn), has(self.configMaps), has(self.directory), has(self.image), has(self.job), has(self.external)].filter(is, is).size() == 1",
        "source must have exactly one of configMaps, directory, image, job and external, as in {configMaps: [{name: billing-1}]}",
    ))]
    pub source: ModuleSource,

    /// The version that tenants are brought to: the number of a file, in quotes, as in "7", and by default the newest in the
    /// source; for source.job and source.external the name that the team gives it, as in "2026.11.3". It never goes back: no
    /// file is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub version: Option<String>,

    /// Schema of the tenants' databases that the module's objects are in. It is created if it does not exist, and is the
    /// search_path of the files. Defaults to public. It cannot be changed once content was accepted, and cannot be tenantry,
    /// information_schema or a name that begins with pg_. Connections of the application do not have it in their search_path:
    /// write the schema in front of the name, or set search_path in the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(
        validation = rule(
            "self.matches('^[a-z_][a-z0-9_]*$')",
            "schema must be a name of a-z, 0-9 and '_' that does not start with a digit, as in billing",
        ),
        validation = rule(
            "self != 'tenantry' && self != 'information_schema' && !self.startsWith('pg_')",
            "schema must not be tenantry, information_schema or begin with pg_: these are Tenantry's and PostgreSQL's; use another name",
        ),
    )]
    pub schema: Option<String>,

    /// Whether tenants have the module unless they or their TenantPlan name others. Defaults to false; for a module that
    /// ships with Tenantry, to whether --default-modules lists it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<bool>,

    /// Names of the modules that are applied before this one: a tenant that has this module has them too. At most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 63)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = rule(
            "self.all(module, module.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$'))",
            "dependsOn must have names of TenantModules: a-z, 0-9 and '-', starting with a letter, as in core",
        ),
    )]
    pub depends_on: Vec<String>,

    /// The least versions that the module needs of modules in dependsOn, as in {core: "2"}: the number of a file. While the
    /// other is older, the module is not Ready, or, in a tenant that is kept at an older version of it, not applied.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "minimum_versions")]
    pub minimum_versions: BTreeMap<String, String>,

    /// PostgreSQL extensions that are installed before the files are applied. The server must have them: the condition Ready
    /// names one that no server has. At most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub extensions: Vec<ModuleExtension>,

    /// Whether files may destroy data: drop tables or columns, truncate, or narrow types. Defaults to false: such a file
    /// is refused before any tenant is touched. The rehearsal reports what is destroyed in either case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_destructive: Option<bool>,
}

/// Where a module's files come from: exactly one of these.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleSource {
    /// ConfigMaps in the operator's namespace whose keys are files, NNNN_name.sql. All keys of all of them together are the
    /// module: several are needed beyond 1 MiB. A change is noticed at once. At most 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub config_maps: Option<Vec<ConfigMapReference>>,
    /// Absolute path of a directory in the operator's container, as part of its image or a volume. Every file must be
    /// NNNN_name.sql. A change is noticed within a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = rule(
        "self.startsWith('/') && !self.contains('..')",
        "source.directory must be an absolute path without .., as in /modules/billing",
    ))]
    pub directory: Option<String>,
    /// The module ships with Tenantry. Only for the objects that the operator applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built_in: Option<BuiltInSource>,
    /// An image or an artifact of a container registry with the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ModuleImage>,
    /// The application's own migration tool, which the operator runs as a Job: once for the database from which new tenants
    /// are cloned, and once for each tenant that has an older version. spec.version names the version that the image has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<ModuleJob>,
    /// A pipeline of the team's own. Each tenant gets a Secret with a login for it, named like its connection Secret with
    /// -migrate at the end; the pipeline calls tenantry.report_version(module, version) when it is done. A tenant is not Ready
    /// until spec.version was reported for it. New tenants are not cloned with these tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalSource>,
}

/// The team's own pipeline has no fields.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalSource {}

/// A ConfigMap in the operator's namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigMapReference {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = resource_name("source.configMaps.name", "ConfigMap"))]
    pub name: String,
}

/// A module that ships with Tenantry has no other fields.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltInSource {}

/// An extension that a module needs.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleExtension {
    /// Its name, as in the view pg_available_extensions.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rule(
        "self.matches('^[A-Za-z0-9_][-A-Za-z0-9_]*$')",
        "extensions.name must be a name of letters, digits, '_' and '-', as in citext",
    ))]
    pub name: String,
    /// The version to install, or to update to. Defaults to the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rule(
        "self.matches('^[A-Za-z0-9_.-]+$')",
        "extensions.version must be a version as in \"1.6\"",
    ))]
    pub version: Option<String>,
    /// The schema of its objects. Defaults to the module's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = rule(
        "self.matches('^[a-z_][a-z0-9_]*$') && self != 'tenantry' && self != 'information_schema' && !self.startsWith('pg_')",
        "extensions.schema must be a name of a-z, 0-9 and '_', and not tenantry, information_schema or one that begins with pg_",
    ))]
    pub schema: Option<String>,
}

/// Which kind of source a module has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ModuleSourceKind {
    /// It ships with Tenantry.
    BuiltIn,
    /// ConfigMaps in the operator's namespace.
    ConfigMaps,
    /// A directory in the operator's container.
    Directory,
    /// An image of a container registry.
    Image,
    /// The application's own tool, as a Job.
    Job,
    /// A pipeline of the team's own.
    External,
}
string_enum!(ModuleSourceKind {
    BuiltIn => "BuiltIn",
    ConfigMaps => "ConfigMaps",
    Directory => "Directory",
    Image => "Image",
    Job => "Job",
    External => "External",
});

/// Observed state of the module. Written by the operator only.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantModuleStatus {
    /// The metadata.generation that this status describes; -1 until the operator has read the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the files come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ModuleSourceKind>,
    /// The image that the files were read from, with source.image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ModuleImageStatus>,
    /// The version that tenants are brought to, in the content that was accepted last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The newest version in the source, as it was read last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<String>,
    /// The schema of the tenants' databases that the module's objects are in, since content was accepted. For a module that
    /// ships with Tenantry, the operator's flag --module-schemas says which, and it stays once a tenant has the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Digest of the content that was accepted last: files, schema and extensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The limits that the module meters, in the content that tenants get; absent while that is not known, and where a tool
    /// applies it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Vec<String>>,
    /// The rehearsal of the newest content on a scratch database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<RehearsalStatus>,
    /// The tenants that have the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<ModuleTenants>,
    /// Conditions of the module, by type. Ready summarizes the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// A rehearsal: what the files that were new did on a scratch database.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RehearsalStatus {
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// The DatabaseServer on which it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The files that were rehearsed: those that no earlier rehearsal had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// How long the files took, in milliseconds.
    pub duration_millis: i64,
    /// Number of statements.
    pub statements: i64,
    /// Locks on tables and other relations that existed before, as in "invoices: AccessExclusiveLock (0004_paid.sql)".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<String>,
    /// Bytes of tables and indexes that existed before and were rewritten.
    pub rewritten_bytes: i64,
    /// What was destroyed, if allowDestructive allows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destructive: Vec<String>,
}

/// Numbers of tenants that have a module. Tenants that are being deprovisioned are not counted.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleTenants {
    /// All of them.
    pub total: i64,
    /// Those at their target version.
    pub current: i64,
    /// Tenants that have the module and are not at their target version yet.
    pub behind: i64,
    /// Tenants on which a file failed.
    pub failed: i64,
}
