//! `Tenant`: one customer, with a PostgreSQL database of its own.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::tenant_lifecycle::*;
use super::{
    limit::LimitValue,
    string_enum::string_enum,
    tenant_adoption::Adopt,
    tenant_credentials::Credentials,
    tenant_status::TenantStatus,
    validation::{
        connections_at_least_one, connections_possible, free_form, free_form_not_yet, immutable, limit_names,
        limits, one_line, resource_name, rule, rule_on_spec, temp_files_possible,
    },
};

/// Desired state of the tenant.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tenantry.dev",
    version = "v1alpha1",
    kind = "Tenant",
    namespaced,
    status = "TenantStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "ten",
    category = "tenantry",
    label("servicebinding.io/provisioned-service", "true"),
    selectable = ".spec.plan",
    selectable = ".spec.slug",
    selectable = ".status.state",
    selectable = ".status.tenantId",
    doc = "A Tenant is a customer with a PostgreSQL database of its own. The operator creates the database, applies the migrations, seeds the administrators and writes the credentials to a Secret. Deleting a Tenant revokes its access at once and drops the database when the grace period ends, as offboarding and deletionPolicy specify. `kubectl wait --for=condition=Ready tenant/NAME` returns when the spec is in force.",
    validation = rule("self.metadata.name.size() <= 63", "metadata.name must have at most 63 characters: choose a shorter name"),
    printcolumn(name = "Slug", type_ = "string", json_path = ".spec.slug", description = "Short name of the customer"),
    printcolumn(name = "Plan", type_ = "string", json_path = ".status.plan", description = "Plan in force"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state", description = "Lifecycle state of the tenant"),
    printcolumn(name = "Access", type_ = "string", json_path = ".status.access", description = "Access level in force, as verified in PostgreSQL"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether the spec is in force"),
    printcolumn(name = "Open Gates", type_ = "string", json_path = ".status.openGates", description = "Gates that are not done yet; access is Blocked while there are any"),
    printcolumn(name = "Database", type_ = "string", json_path = ".status.database", priority = 1, description = "Name of the tenant's database"),
    printcolumn(name = "Server", type_ = "string", json_path = ".status.server", priority = 1, description = "DatabaseServer that hosts the database"),
    printcolumn(name = "Present Slug", type_ = "string", json_path = ".status.slug", priority = 1, description = "Slug in force, while it is not the one of the spec"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, priority = 1, description = "Reason of the condition Ready"),
    printcolumn(name = "Paused", type_ = "boolean", json_path = ".spec.paused", priority = 1, description = "Whether spec.paused stops the operator's work on the tenant"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rule_on_spec(
        "!has(self.state) || self.state == 'Active' || (has(self.stateReason) && self.stateReason != '')",
        "stateReason is required unless state is Active: write the reason for the state, for the audit trail",
    ).field_path(".stateReason"),
    validation = rule(
        "self.slug == oldSelf.slug || (has(self.stateReason) && self.stateReason != '' && (!has(oldSelf.stateReason) || self.stateReason != oldSelf.stateReason))",
        "slug can be changed only together with stateReason: write the reason of this change there, for the audit trail",
    ).field_path(".slug"),
    validation = rule(
        "self.slug == oldSelf.slug || !has(self.state) || self.state != 'Deprovisioned'",
        "slug cannot be changed while state is Deprovisioned: restore the tenant first",
    ).field_path(".slug"),
    validation = immutable("server", "server cannot be added, changed or removed, because moving a tenant is not supported yet: write the value that the Tenant was created with"),
    validation = rule("!has(self.adopt) || has(oldSelf.adopt)", "adopt can be given only when the Tenant is created: delete the Tenant, and apply it with adopt").field_path(".adopt"),
    validation = immutable("connectionSecretName", "connectionSecretName cannot be added, changed or removed: write the value that the Tenant was created with"),
)]
pub struct TenantSpec {
    /// Short name of the customer: 3 to 40 characters of a-z, 0-9 and '-', starting with a letter, without a dash at
    /// the end and without two dashes in a row. The names of the database and of its login are derived from it. The
    /// names postgres, template0, template1, tenantry, public, information-schema and pg-catalog are reserved. A slug
    /// is unique among all tenants of the installation that are not deprovisioned, across namespaces: while another
    /// tenant has it, or had it before, the condition Registered is False with the reason SlugTaken. Changing it needs
    /// the verb rename on the Tenant, and another stateReason in the same change. The database, its logins and the
    /// Secrets keep their names, and the former slug stays reserved for this tenant.
    #[schemars(length(max = 40))]
    #[x_kube(
        validation = rule(
            "self.size() >= 3 && self.matches('^[a-z](-?[a-z0-9])*$')",
            "slug must have 3 to 40 characters of a-z, 0-9 and '-', start with a letter, and have no dash at the end and no two in a row, as in acme-corp",
        ),
        validation = rule(
            "!(self in ['postgres', 'template0', 'template1', 'tenantry', 'public', 'information-schema', 'pg-catalog'])",
            "slug is reserved, because PostgreSQL or Tenantry uses this name: choose another slug",
        ),
    )]
    pub slug: String,

    /// Name of the customer as people write it: one line, at most 200 characters. Can be changed at any time.
    #[schemars(length(max = 200))]
    #[x_kube(
        validation = rule("self.trim() != ''", "displayName must not be empty: write the name of the customer"),
        validation = one_line("displayName"),
    )]
    pub display_name: String,

    /// Name of the TenantPlan that defines what the tenant may use. While no TenantPlan of this name exists, Ready is
    /// False with the reason PlanNotFound. Can be changed at any time; status.plan shows the plan in force.
    #[schemars(length(max = 63))]
    #[x_kube(validation = resource_name("plan", "TenantPlan"))]
    pub plan: String,

    /// Desired state of the tenant: Active, Suspended or Deprovisioned. Defaults to Active. Suspended restricts access
    /// as specified in suspension, for open sessions too, and keeps all data. Deprovisioned has the effect of deleting
    /// the Tenant, with the same grace period, but keeps the resource; to undo it, change the state back before
    /// status.purgeAfter. status.state shows the state in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<DesiredState>,

    /// Reason for the state, recorded in the audit trail: one line, at most 1000 characters. Required unless state is
    /// Active. A change of the slug needs another one, which is the reason of that change only: the state keeps its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    #[x_kube(validation = one_line("stateReason"))]
    pub state_reason: Option<String>,

    /// Access level and cause of the suspension. Has no effect while state is Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension: Option<Suspension>,

    /// Time-limited trial. Overrides the plan's trialDays. When the trial ends, the plan's trialEnd applies. Without
    /// this field, and with a plan that has no trialDays, the tenant is not in a trial: removing it ends a trial early,
    /// without trialEnd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("has(self.endsAt)", "trial.endsAt is required: write the time at which the trial ends, as in 2026-12-31T00:00:00Z, or leave trial out"))]
    pub trial: Option<Trial>,

    /// Period during which the tenant has access. Outside of it, access is Blocked. Defaults to no limit in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = rule("has(self.notBefore) || has(self.notAfter)", "validity must have notBefore, notAfter or both: write when the tenant's access begins or ends, or leave validity out"),
        validation = rule("!has(self.notBefore) || !has(self.notAfter) || self.notBefore < self.notAfter", "validity.notBefore must be before validity.notAfter: otherwise the tenant never has access"),
    )]
    pub validity: Option<Validity>,

    /// Offboarding of the tenant: what deleting the Tenant, or state Deprovisioned, does, and when. Can be changed at
    /// any time; once the Tenant object no longer exists, the last values apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offboarding: Option<Offboarding>,

    /// What happens to the database after offboarding: Purge or Retain. Defaults to Purge. Purge drops the database
    /// when the grace period ends. Retain never drops it: the database stays without access, so that no tenant login
    /// can connect, and its name is not used again. Can be changed at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// Administrators of the customer, at most 50. Each is in the table tenantry.admins of the tenant's database and,
    /// with the module identity, a user with the role admin; other modules may add them to tables of their own. Their
    /// one-time credentials are in the Secret `<name>-admin`; the database stores only hashes. Can be changed at any
    /// time: an admin who is added here is added to the database; an admin who is removed here keeps the user row,
    /// because other rows may refer to it, but an unused credential is revoked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["email".into()]))]
    pub admins: Vec<Admin>,

    /// Steps of the onboarding that must be done before the tenant gets access, for example contract or go-live. Until
    /// all are done, the tenant is provisioned and verified, but its access is Blocked. The plan's gates apply too, as
    /// they are at the tenant's first activation; to mark one of them as done, list it here with done: true. Adding a
    /// gate later, or setting done back to false, revokes access. status.openGates lists the gates that are not done
    /// yet. At most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub gates: Vec<Gate>,

    /// Name of the DatabaseServer that hosts the tenant. Defaults to the DatabaseServer named default. While no
    /// DatabaseServer of this name exists, Ready is False with the reason ServerNotFound. Cannot be added, changed or
    /// removed (not supported yet). status.server shows the server in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = resource_name("server", "DatabaseServer"))]
    pub server: Option<String>,

    /// Selects the least loaded of several DatabaseServers. Not supported yet: every value is refused; set server
    /// instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("false", "serverSelector is not supported yet: leave it out and name a DatabaseServer in server"))]
    pub server_selector: Option<ServerSelector>,

    /// How the tenant is separated from other tenants on its server. Defaults to Database: a database per tenant.
    /// Schema is not supported yet and is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("self == 'Database'", "isolation must be Database or left out: Schema is not supported yet"))]
    pub isolation: Option<Isolation>,

    /// Modules (sets of SQL migrations) of the tenant, as in [{name: billing}]. Defaults to those of its plan, else to
    /// every module that is enabled by default. Modules that these depend on are added. A module that the tenant already
    /// has is kept, with its data, when it is not listed any more. For an unknown module, Ready is False with the reason
    /// ModuleNotFound; access, credentials and suspension go on. At most 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub modules: Vec<ModuleChoice>,

    /// Names of modules that are dropped from the tenant's database, with their data: the only way in which a module is.
    /// Each must be a module that neither modules nor the plan gives the tenant any more, and on which nothing else
    /// depends. A name counts once, when it is written here: to drop the module again later, remove the name and write
    /// it again. While one was refused, Ready is False with the reason ModulePurgeRefused, and nothing was dropped. At
    /// most 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 63)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = rule(
            "self.all(name, name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$'))",
            "purgeModules must have the names of TenantModules: a-z, 0-9 and '-', starting with a letter, as in billing",
        ),
    )]
    pub purge_modules: Vec<String>,

    /// Whether the database is seeded with demo data, recognizable as such. Defaults to false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demo_data: Option<bool>,

    /// Settings of the tenant's application, as free-form JSON. Every key is a row of the view `tenantry.settings` in
    /// the tenant's database and, with the module core, of the table `settings`. At most 200 keys and 64 KiB in total;
    /// above that, Ready is False with the reason SettingsTooLarge. Nulls and integers beyond 2^53, which JSON parsers
    /// round, are not allowed. Can be changed at any time: in the table, a value written here replaces the value that
    /// the application wrote under the same key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "settings")]
    pub settings: BTreeMap<String, Value>,

    /// Limits of this tenant, by name, for the limits that its plan sets to custom: a whole number from 0 to 2^53 - 1
    /// (connections: from 1), a quantity as in 10Gi, or `unlimited`. Other entries have no effect, and the condition WithinLimits reports
    /// them. At most 50. status.limits shows the limits in force.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "limits")]
    #[x_kube(
        validation = limit_names(),
        validation = connections_at_least_one(),
        validation = connections_possible(),
        validation = temp_files_possible(),
        validation = rule(
            "self.all(name, type(self[name]) != string || self[name] != 'custom')",
            "a tenant's own limit must be a whole number, a quantity as in 10Gi, or unlimited: custom is for the limits of a plan",
        ),
    )]
    pub limits: BTreeMap<String, LimitValue>,

    /// How failures of the first provisioning are handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning: Option<Provisioning>,

    /// Namespace in which the customer's administrator sees the tenant, and may change what its plan allows: as the
    /// TenantAccount with the slug's name. The namespace must have the label tenantry.dev/accounts: "true"; while it has
    /// not, AccountShown is False. What was changed there counts as long as this field is set. Can be changed at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = rule(
        "self == '' || self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "accountNamespace must be the name of a namespace: a-z, 0-9 and '-', with a letter or a digit at both ends",
    ))]
    pub account_namespace: Option<String>,

    /// Takes over a database that exists on the server already, instead of creating one. First status.adoption reports what
    /// would change; nothing is changed before adopt.confirm has the digest of that report. Removing this field, or
    /// deleting the Tenant, before that leaves nothing behind. It can be given only when the Tenant is created, and has no
    /// effect once the database is the tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<Adopt>,

    /// Starts the tenant from an export or from another tenant. Not supported yet: every value is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    #[x_kube(validation = free_form_not_yet("bootstrap"))]
    pub bootstrap: Option<BTreeMap<String, Value>>,

    /// Name of the Secret with the tenant's connection (type servicebinding.io/postgresql), in the Tenant's namespace.
    /// Defaults to `<name>-db`. An existing Secret of this name that does not belong to the tenant is left unchanged,
    /// and CredentialsPublished is False with the reason SecretConflict. Names that end in -admin are refused: they are
    /// used for the Secrets with the admins' credentials. Cannot be added, changed or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(
        validation = rule(
            r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
            "connectionSecretName must be a DNS name: a-z, 0-9, '-' and '.', with a letter or a digit at both ends of every part, as in acme-db",
        ),
        validation = rule("!self.endsWith('-admin')", "connectionSecretName must not end in -admin, which is used for the Secrets with the admins' credentials: choose another ending, as in acme-db"),
    )]
    pub connection_secret_name: Option<String>,

    /// Rotation of the tenant's credentials. Can be changed at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,

    /// Stops the operator's work on this tenant. Defaults to false. While it is true, nothing is created, changed or
    /// repaired, and what is in force stays in force. A deletion still revokes access and is recorded; only the removal
    /// of the data waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// An administrator of the customer.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Admin {
    /// E-mail address, in lower case, at most 254 characters. It is the key of the list: every address can appear once.
    #[schemars(length(max = 254))]
    #[x_kube(validation = rule(
        r#"self.matches("^[a-z0-9!#$%&'*+/=?^_{|}~-]+([.][a-z0-9!#$%&'*+/=?^_{|}~-]+)*@([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")"#,
        "email must be an e-mail address in lower case, as in ada@acme.example",
    ))]
    pub email: String,
    /// Name of the person: one line, at most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    #[x_kube(validation = one_line("name"))]
    pub name: Option<String>,
    /// Credential for the first login, in the Secret `<name>-admin`: ResetToken or OneTimePassword. Defaults to
    /// ResetToken: a token that sets a password. OneTimePassword: a password that must be replaced. Both expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<AdminCredential>,
}

/// The credential of an admin for the first login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AdminCredential {
    /// A token that sets a password.
    #[default]
    ResetToken,
    /// A password that must be replaced.
    OneTimePassword,
}
string_enum!(AdminCredential { ResetToken => "ResetToken", OneTimePassword => "OneTimePassword" });

/// A step of the onboarding that must be done before the tenant gets access.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// Name of the gate, for example go-live: a-z, 0-9 and '-', starting with a letter, at most 63 characters. It is
    /// the key of the list.
    #[schemars(length(max = 63))]
    #[x_kube(validation = rule(
        "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "the name of a gate must have a-z, 0-9 and '-', start with a letter and not end with '-', as in go-live",
    ))]
    pub name: String,
    /// Whether the gate is done. Defaults to false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

/// A module that a tenant has.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleChoice {
    /// Name of the TenantModule.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rule(
        "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "modules.name must be the name of a TenantModule: a-z, 0-9 and '-', starting with a letter, as in billing",
    ))]
    pub name: String,
    /// The version that the tenant is kept at: the number of a file, in quotes, as in "7". Defaults to the module's.
    /// A tenant that has a later version keeps that: no file is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4))]
    #[x_kube(validation = rule(
        "self.matches('^[0-9]{0,4}$')",
        "modules.version must be the number of a file, in quotes, as in \"7\": leave it out for the module's",
    ))]
    pub version: Option<String>,
}

/// Selects one of several DatabaseServers.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerSelector {
    /// Labels that the DatabaseServer must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub match_labels: BTreeMap<String, String>,
}

/// What separates the tenants on a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Isolation {
    /// A database per tenant.
    #[default]
    Database,
    /// A schema per tenant, in a shared database.
    Schema,
}
string_enum!(Isolation { Database => "Database", Schema => "Schema" });

/// How failures of the first provisioning are handled.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provisioning {
    /// What happens when the first provisioning fails with a permanent error: Resume or Rollback. Resume keeps what was
    /// created and continues at the step that failed. Rollback removes what was created, and provisions again after the
    /// next change. Defaults to the plan's onFailure, else to Resume. A tenant that was ever active is never rolled
    /// back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
}

/// What happens when the first provisioning of a tenant fails with a permanent error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnFailure {
    /// Keep what was created, and continue at the step that failed.
    #[default]
    Resume,
    /// Remove what was created.
    Rollback,
}
string_enum!(OnFailure { Resume => "Resume", Rollback => "Rollback" });

fn settings(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 200,
        "additionalProperties": {"x-kubernetes-preserve-unknown-fields": true},
    })
}

fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 20,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}
