//! `Tenant`: one customer, with a PostgreSQL database of its own.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::tenant_lifecycle::*;
use super::{
    plan::LimitValue,
    rules::{
        connections_at_least_one, free_form, free_form_not_yet, immutable, limit_names, one_line,
        resource_name, rule, rule_on_spec,
    },
    tenant_status::TenantStatus,
    words::words,
};

/// What a Tenant should be.
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
    doc = "A customer with a PostgreSQL database of its own. Applying a Tenant makes the database, applies the migrations, seeds the admins, and writes the credentials into a Secret; deleting it takes all that down again, in the order that offboarding and deletionPolicy ask for. `kubectl wait --for=condition=Ready tenant/NAME` waits until what the spec asks for is in force.",
    validation = rule("self.metadata.name.size() <= 63", "metadata.name must have at most 63 characters: choose a shorter name"),
    printcolumn(name = "Slug", type_ = "string", json_path = ".spec.slug", description = "The customer's short name"),
    printcolumn(name = "Plan", type_ = "string", json_path = ".status.plan", description = "The plan in force"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state", description = "Where the tenant is in its life"),
    printcolumn(name = "Access", type_ = "string", json_path = ".status.access", description = "What the tenant's own logins may do, as verified in PostgreSQL"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether what the spec asks for is in force"),
    printcolumn(name = "Open Gates", type_ = "string", json_path = ".status.openGates", description = "What is missing before the tenant gets access"),
    printcolumn(name = "Database", type_ = "string", json_path = ".status.database", priority = 1, description = "The tenant's database"),
    printcolumn(name = "Server", type_ = "string", json_path = ".status.server", priority = 1, description = "The DatabaseServer that hosts it"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, priority = 1, description = "Why it is Ready, or not"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rule_on_spec(
        "!has(self.state) || self.state == 'Active' || (has(self.stateReason) && self.stateReason != '')",
        "stateReason is required unless state is Active: say for the audit trail why the state is wanted",
    ).field_path(".stateReason"),
    validation = immutable("server", "server cannot be added, changed or removed, because moving a tenant is not supported yet: write the value that the Tenant was created with"),
    validation = immutable("connectionSecretName", "connectionSecretName cannot be added, changed or removed: write the value that the Tenant was created with"),
)]
pub struct TenantSpec {
    /// The customer's short name, from which the names of its database and its login are computed: 3 to 40
    /// characters of a-z, 0-9 and '-', starting with a letter, without a dash at the end or two in a row. Names that
    /// PostgreSQL or Tenantry uses itself (postgres, template0, template1, tenantry, public, information-schema,
    /// pg-catalog) are refused. Unique among all living tenants of the installation, in whatever namespace: the
    /// first one has it, for any other the condition Registered is False with the reason SlugTaken until the slug is
    /// free. It cannot be changed (not supported yet).
    #[schemars(length(max = 40))]
    #[x_kube(
        validation = rule(
            "self.size() >= 3 && self.matches('^[a-z](-?[a-z0-9])*$')",
            "slug must have 3 to 40 characters of a-z, 0-9 and '-', start with a letter, and have no dash at the end and no two in a row, as in acme-corp",
        ),
        validation = rule(
            "!(self in ['postgres', 'template0', 'template1', 'tenantry', 'public', 'information-schema', 'pg-catalog'])",
            "slug is reserved, because PostgreSQL or Tenantry uses this name itself: choose another",
        ),
        validation = rule("self == oldSelf", "slug cannot be changed, which is not supported yet: write the slug that the Tenant was created with"),
    )]
    pub slug: String,

    /// The customer's name as people write it: one line, at most 200 characters. May change at any time.
    #[schemars(length(max = 200))]
    #[x_kube(
        validation = rule("self.trim() != ''", "displayName must not be empty: write the customer's name as people know it"),
        validation = one_line("displayName"),
    )]
    pub display_name: String,

    /// The name of the TenantPlan that says what the tenant may use. One that does not exist (yet) is accepted: Ready is
    /// then False with the reason PlanNotFound until it does. May change at any time; status.plan says which is in force.
    #[schemars(length(max = 63))]
    #[x_kube(validation = resource_name("plan", "TenantPlan"))]
    pub plan: String,

    /// The state that the platform operator wants; Active if unset. Suspended narrows the tenant's access as suspension
    /// says, for open sessions too; nothing is lost. Deprovisioned takes the tenant down as a deletion does, with the same
    /// grace, and keeps the resource: set it back before status.purgeAfter to undo it. What is in force is in
    /// status.state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<DesiredState>,

    /// Why the state is wanted, for the audit trail: one line, at most 1000 characters. Required unless state is
    /// Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    #[x_kube(validation = one_line("stateReason"))]
    pub state_reason: Option<String>,

    /// How a suspension is enforced, and what causes it. Without effect while state is Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension: Option<Suspension>,

    /// A time-limited trial, where it is not the plan's trialDays that say how long it is. At its end the plan's trialEnd
    /// applies. A trial ends early, and the tenant stays, when this is removed and the plan has no trialDays, or with a
    /// plan that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("has(self.endsAt)", "trial.endsAt is required: say when the trial ends, as in 2026-12-31T00:00:00Z, or leave trial out"))]
    pub trial: Option<Trial>,

    /// The window of time outside of which the tenant has no access.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = rule("has(self.notBefore) || has(self.notAfter)", "validity must have notBefore, notAfter or both: say when the tenant's access begins or ends, or leave validity out"),
        validation = rule("!has(self.notBefore) || !has(self.notAfter) || self.notBefore < self.notAfter", "validity.notBefore must be before validity.notAfter: otherwise there is no time at which the tenant has access"),
    )]
    pub validity: Option<Validity>,

    /// How the tenant leaves: what a deletion of the Tenant, or state: Deprovisioned, does, and when. May change at any
    /// time; what counts in the end is what it says when the Tenant is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offboarding: Option<Offboarding>,

    /// What becomes of the database when the tenant has left. Purge (the default): it is dropped when the grace
    /// period is over. Retain: it is cut off, so that nobody can log in, but never dropped, and its name is not
    /// given again. May change at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// The customer's administrators: a user in the tenant's database each, with the role admin, at most 50. The
    /// one-time credential of each is in the Secret `<name>-admin`; the database knows only its hash. May change at
    /// any time: one who is added is added to the database, one who is removed keeps the user row (other rows may
    /// refer to it), but a credential that was not used yet is revoked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["email".into()]))]
    pub admins: Vec<Admin>,

    /// Steps of the onboarding, e.g. contract or go-live: until all are done the tenant is made and verified, but its
    /// access stays Blocked. The gates of its plan count too, until it was handed out for the first time: to have one of
    /// those done, list it here with done. status.openGates says which are not done yet. At most 20; one that is added
    /// or no longer done takes access away again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub gates: Vec<Gate>,

    /// The name of the DatabaseServer that hosts the tenant; unset: the one named default. One that does not exist
    /// (yet) is accepted: Ready is then False with the reason ServerNotFound until it does. It cannot be changed, added
    /// or removed (not supported yet); status.server says which it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = resource_name("server", "DatabaseServer"))]
    pub server: Option<String>,

    /// Chooses the least loaded of several DatabaseServers. Not supported yet: refused; name a server instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("false", "serverSelector is not supported yet: leave it out and name a DatabaseServer in server"))]
    pub server_selector: Option<ServerSelector>,

    /// What separates this tenant from the others on its server: Database, the default, is a database of its own.
    /// Schema is not supported yet: refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("self == 'Database'", "isolation must be Database or left out: Schema is not supported yet"))]
    pub isolation: Option<Isolation>,

    /// The modules (sets of SQL migrations) that the tenant gets; empty: every module that is on by default. A
    /// choice is not supported yet: must be empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 63)))]
    #[x_kube(validation = rule("self.size() == 0", "modules must be empty or left out, which means every module that is on by default: a choice is not supported yet"))]
    pub modules: Vec<String>,

    /// Whether the database gets demo data, recognisable as such; false if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demo_data: Option<bool>,

    /// Settings of the tenant's application: free-form JSON, at most 200 keys and 64 KiB in all (more: Ready is False
    /// with the reason SettingsTooLarge), no null, and no integer beyond 2^53 (JSON parsers round them). Every key is
    /// a row of the table `settings` in the tenant's database. May change at any time; what is written here wins over
    /// what the application wrote under the same key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "settings")]
    pub settings: BTreeMap<String, Value>,

    /// Limits of this tenant alone, by name, where its plan says custom: a whole number from 0 to 2^53 - 1 (connections:
    /// from 1), or `unlimited`. Where the plan says something else, or nothing, they have no effect, and the condition
    /// WithinLimits says so. At most 50. status.limits says what is in force.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    #[x_kube(
        validation = limit_names(),
        validation = connections_at_least_one(),
        validation = rule(
            "self.all(name, type(self[name]) == string ? self[name] == 'unlimited' : (self[name] >= 0 && self[name] <= 9007199254740991))",
            "a tenant's own limit must be a whole number from 0 to 9007199254740991, or unlimited",
        ),
    )]
    pub limits: BTreeMap<String, LimitValue>,

    /// How provisioning deals with a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning: Option<Provisioning>,

    /// The namespace in which the customer's own view of the tenant is shown. Not supported yet: must be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = rule("self == ''", "accountNamespace is not supported yet: leave it out"))]
    pub account_namespace: Option<String>,

    /// Takes over a database that exists already. Not supported yet: refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    #[x_kube(validation = free_form_not_yet("adopt"))]
    pub adopt: Option<BTreeMap<String, Value>>,

    /// Starts from an export or from another tenant. Not supported yet: refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    #[x_kube(validation = free_form_not_yet("bootstrap"))]
    pub bootstrap: Option<BTreeMap<String, Value>>,

    /// The name of the Secret with the tenant's connection (type servicebinding.io/postgresql), in the Tenant's
    /// namespace; `<name>-db` if unset. A Secret of that name that is not ours is left alone: CredentialsPublished is
    /// then False with the reason SecretConflict. It cannot be changed, added or removed. Names that end in -admin
    /// are refused: they are for the admins' Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(
        validation = rule(
            r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
            "connectionSecretName must be a DNS name: a-z, 0-9, '-' and '.', with a letter or a digit at both ends of every part, as in acme-db",
        ),
        validation = rule("!self.endsWith('-admin')", "connectionSecretName must not end in -admin, which is for the Secrets with the admins' credentials: choose another ending, as in acme-db"),
    )]
    pub connection_secret_name: Option<String>,

    /// Stops the operator's work on this tenant; false if unset. Nothing is created, changed or repaired while it is
    /// true, and what is in force stays in force. A deletion is still honoured as far as it protects: access is cut
    /// and the registry knows, only the removal of the data waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// One of the customer's administrators.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Admin {
    /// The e-mail address, in lower case, at most 254 characters; the key of the list, so that each can be in it
    /// once.
    #[schemars(length(max = 254))]
    #[x_kube(validation = rule(
        r#"self.matches("^[a-z0-9!#$%&'*+/=?^_{|}~-]+([.][a-z0-9!#$%&'*+/=?^_{|}~-]+)*@([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")"#,
        "email must be an e-mail address in lower case, as in ada@acme.example",
    ))]
    pub email: String,
    /// The person's name: one line, at most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    #[x_kube(validation = one_line("name"))]
    pub name: Option<String>,
    /// What the admin gets to log in for the first time, in the Secret `<name>-admin`. ResetToken (the default): a
    /// token that sets a password. OneTimePassword: a password that must be replaced. Both expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<AdminCredential>,
}

/// What an admin gets to log in for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AdminCredential {
    /// A token that sets a password.
    #[default]
    ResetToken,
    /// A password that must be replaced.
    OneTimePassword,
}
words!(AdminCredential { ResetToken => "ResetToken", OneTimePassword => "OneTimePassword" });

/// A step of the onboarding that must be done before the tenant gets access.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// The gate's name, as in go-live: a-z, 0-9 and '-', at most 63 characters; the key of the list.
    #[schemars(length(max = 63))]
    #[x_kube(validation = rule(
        "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "the name of a gate must have a-z, 0-9 and '-', start with a letter and not end with '-', as in go-live",
    ))]
    pub name: String,
    /// Whether it is done; false if unset.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

/// Chooses one of several DatabaseServers.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerSelector {
    /// The labels that a DatabaseServer must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub match_labels: BTreeMap<String, String>,
}

/// What separates tenants on one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Isolation {
    /// A database each.
    #[default]
    Database,
    /// A schema each, in one database.
    Schema,
}
words!(Isolation { Database => "Database", Schema => "Schema" });

/// How provisioning deals with a failure.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provisioning {
    /// What becomes of a tenant whose first provisioning meets an error that does not pass by itself. Resume: what is
    /// done stays, and the work goes on at the step that failed. Rollback: what was made is removed, and made anew
    /// when something changes. Unset: what the plan says, else Resume. A tenant that was ever in use is never rolled
    /// back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
}

/// What becomes of a tenant whose first provisioning fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnFailure {
    /// What is done stays, and the work goes on at the step that failed.
    #[default]
    Resume,
    /// What is done is removed.
    Rollback,
}
words!(OnFailure { Resume => "Resume", Rollback => "Rollback" });

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
