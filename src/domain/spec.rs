//! Validation: the spec of a Tenant as types that cannot be wrong.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    modules::ModuleError,
    settings::{self, SettingsError},
    slug::{Slug, SlugError},
    usage::entitlements::LimitNotSet,
};
use crate::api::tenant::{AdminCredential, DeletionPolicy, OnFailure, Tenant};

/// The `DatabaseServer` of a Tenant that names none.
pub const DEFAULT_SERVER: &str = "default";

/// An administrator of the customer, as the seed writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredAdmin {
    /// Lower-case e-mail address, the key.
    pub email: String,
    /// Display name.
    pub name: Option<String>,
    /// The credential for the first login.
    pub credential: AdminCredential,
}

/// What a Tenant should have, from a valid spec.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredTenant {
    /// The customer's short name.
    pub slug: Slug,
    /// The customer's name.
    pub display_name: String,
    /// Name of an existing `TenantPlan`.
    pub plan: String,
    /// Name of an existing `DatabaseServer`.
    pub server: String,
    /// The customer's administrators.
    pub admins: Vec<DesiredAdmin>,
    /// Free-form settings, checked.
    pub settings: BTreeMap<String, Value>,
    /// Whether demo data is wanted.
    pub demo_data: bool,
    /// Name of the connection Secret.
    pub connection_secret: String,
    /// Name of the Secret with the admins' one-time credentials.
    pub admin_secret: String,
    /// Whether all work is stopped.
    pub paused: bool,
    /// What happens when the first provisioning fails; none where the plan decides.
    pub on_failure: Option<OnFailure>,
    /// Whether the database is kept after offboarding.
    pub retain: bool,
}

/// Which of the objects that a Tenant names exist.
pub trait SpecContext {
    /// Whether a `TenantPlan` of this name exists.
    fn has_plan(&self, name: &str) -> bool;
    /// Whether a `DatabaseServer` of this name exists, and which namespaces it serves.
    fn server(&self, name: &str) -> ServerAvailability;
}

/// The DatabaseServer of a name, as far as a Tenant needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAvailability {
    /// No `DatabaseServer` has this name.
    NotFound,
    /// It serves every namespace.
    AllNamespaces,
    /// It serves these namespaces only.
    OnlyNamespaces(Vec<String>),
}

/// Why a spec is not valid. Each error has a reason of its own in the conditions, and is resolved when its cause is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// `spec.slug` is not a slug. The API server refuses it too, but an older schema may have accepted it.
    #[error("spec.slug {slug:?} {error}")]
    Slug {
        /// As written.
        slug: String,
        /// The error.
        error: SlugError,
    },
    /// The plan in `spec.plan` does not exist.
    #[error(
        "spec.plan: there is no TenantPlan {0:?}; create it, or name one that `kubectl get tenantplans` lists"
    )]
    PlanNotFound(String),
    /// The plan that follows a trial does not exist.
    #[error(
        "the trial has ended, and trialEnd of TenantPlan {of:?} names TenantPlan {plan:?}, which does not exist; create it, or name another"
    )]
    TrialPlanNotFound {
        /// The plan that should follow.
        plan: String,
        /// The plan whose `trialEnd` names it.
        of: String,
    },
    /// The server in `spec.server` does not exist.
    #[error(
        "spec.server: there is no DatabaseServer {0:?}; create it, or name one that `kubectl get databaseservers` lists"
    )]
    ServerNotFound(String),
    /// The server does not serve this namespace.
    #[error(
        "spec.server: DatabaseServer {server:?} does not allow namespace {namespace:?}; add it to its spec.allowedNamespaces, or use another server"
    )]
    NamespaceNotAllowed {
        /// The server.
        server: String,
        /// The Tenant's namespace.
        namespace: String,
    },
    /// The plan leaves a limit to the tenant's spec, which does not set it.
    #[error(transparent)]
    LimitNotSet(#[from] LimitNotSet),
    /// The tenant or its plan names a module that it cannot have.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// `spec.settings` is not allowed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// Validates a spec.
///
/// # Errors
/// The first reason why the spec is not valid.
pub fn desired_tenant(tenant: &Tenant, context: &dyn SpecContext) -> Result<DesiredTenant, SpecError> {
    let spec = &tenant.spec;
    let name = tenant.metadata.name.clone().unwrap_or_default();
    let namespace = tenant.metadata.namespace.clone().unwrap_or_default();
    let slug = Slug::parse(&spec.slug).map_err(|error| SpecError::Slug { slug: spec.slug.clone(), error })?;
    settings::check(&spec.settings)?;
    if !context.has_plan(&spec.plan) {
        return Err(SpecError::PlanNotFound(spec.plan.clone()));
    }
    let server = spec.server.clone().unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    match context.server(&server) {
        ServerAvailability::NotFound => return Err(SpecError::ServerNotFound(server)),
        ServerAvailability::OnlyNamespaces(allowed) if !allowed.contains(&namespace) => {
            return Err(SpecError::NamespaceNotAllowed { server, namespace });
        }
        ServerAvailability::AllNamespaces | ServerAvailability::OnlyNamespaces(_) => {}
    }
    Ok(DesiredTenant {
        slug,
        display_name: spec.display_name.clone(),
        plan: spec.plan.clone(),
        server,
        admins: spec
            .admins
            .iter()
            .map(|admin| DesiredAdmin {
                email: admin.email.to_lowercase(),
                name: admin.name.clone(),
                credential: admin.credential.unwrap_or(AdminCredential::ResetToken),
            })
            .collect(),
        settings: spec.settings.clone(),
        demo_data: spec.demo_data.unwrap_or(false),
        connection_secret: connection_secret_name(tenant),
        admin_secret: admin_secret_name(&name),
        paused: is_paused(tenant),
        on_failure: spec.provisioning.as_ref().and_then(|provisioning| provisioning.on_failure),
        retain: spec.deletion_policy.unwrap_or_default() == DeletionPolicy::Retain,
    })
}

/// Name of the connection Secret: `spec.connectionSecretName`, or `<name>-db`. Needs no valid spec.
pub fn connection_secret_name(tenant: &Tenant) -> String {
    let name = tenant.metadata.name.as_deref().unwrap_or_default();
    tenant.spec.connection_secret_name.clone().unwrap_or_else(|| format!("{name}-db"))
}

/// Name of the Secret with the reader login.
pub fn reader_secret_name(tenant: &Tenant) -> String {
    format!("{}-ro", connection_secret_name(tenant))
}

/// Whether the Tenant asks for a reader login. Needs no valid spec.
pub fn wants_reader(tenant: &Tenant) -> bool {
    tenant.spec.credentials.as_ref().and_then(|credentials| credentials.reader).unwrap_or(false)
}

/// Name of the Secret with the migration login of a team's own pipeline.
pub fn migration_secret_name(tenant: &Tenant) -> String {
    format!("{}-migrate", connection_secret_name(tenant))
}

/// Name of the Secret with the admins' one-time credentials.
pub fn admin_secret_name(tenant_name: &str) -> String {
    format!("{tenant_name}-admin")
}

/// Whether `spec.paused` is set.
pub fn is_paused(tenant: &Tenant) -> bool {
    tenant.spec.paused.unwrap_or(false)
}

impl DesiredTenant {
    /// A digest of everything that the seed writes: with an equal digest there is nothing to seed.
    pub fn seed_digest(&self) -> String {
        let admins: Vec<_> =
            self.admins.iter().map(|a| json!([a.email, a.name, format!("{:?}", a.credential)])).collect();
        let text =
            json!({"admins": admins, "settings": self.settings, "demoData": self.demo_data}).to_string();
        Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        server: ServerAvailability,
    }

    impl SpecContext for World {
        fn has_plan(&self, name: &str) -> bool {
            name == "starter"
        }
        fn server(&self, _: &str) -> ServerAvailability {
            self.server.clone()
        }
    }

    const EVERYONE: World = World { server: ServerAvailability::AllNamespaces };

    fn tenant(spec: Value) -> Tenant {
        let mut all = json!({"slug": "acme", "displayName": "Acme", "plan": "starter"});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
            "metadata": {"name": "acme", "namespace": "customers"}, "spec": all,
        }))
        .unwrap()
    }

    #[test]
    fn absent_fields_have_defaults() {
        let got =
            desired_tenant(&tenant(json!({"admins": [{"email": "Ada@acme.example"}]})), &EVERYONE).unwrap();
        assert_eq!(got.server, "default");
        assert_eq!(got.connection_secret, "acme-db");
        assert_eq!(got.admin_secret, "acme-admin");
        assert_eq!(got.admins[0].email, "ada@acme.example");
        assert_eq!(got.admins[0].credential, AdminCredential::ResetToken);
        assert!(!got.demo_data && !got.paused);
    }

    #[test]
    fn each_invalid_field_has_its_own_error() {
        let error = |spec, world: &World| desired_tenant(&tenant(spec), world).unwrap_err();
        assert!(matches!(error(json!({"slug": "A"}), &EVERYONE), SpecError::Slug { .. }));
        assert_eq!(error(json!({"plan": "unknown"}), &EVERYONE), SpecError::PlanNotFound("unknown".into()));
        assert_eq!(
            error(json!({"server": "x"}), &World { server: ServerAvailability::NotFound }),
            SpecError::ServerNotFound("x".into())
        );
        let elsewhere = World { server: ServerAvailability::OnlyNamespaces(vec!["other".into()]) };
        assert!(matches!(error(json!({}), &elsewhere), SpecError::NamespaceNotAllowed { .. }));
        let large = json!({"settings": {"a": "x".repeat(70_000)}});
        assert!(matches!(error(large, &EVERYONE), SpecError::Settings(SettingsError::TooLarge { .. })));
    }

    #[test]
    fn seed_digest_covers_exactly_the_seeded_fields() {
        let of = |spec| desired_tenant(&tenant(spec), &EVERYONE).unwrap().seed_digest();
        let plain = of(json!({}));
        assert_eq!(plain, of(json!({"displayName": "Other", "paused": true})));
        assert_ne!(plain, of(json!({"demoData": true})));
        assert_ne!(plain, of(json!({"settings": {"theme": "dark"}})));
        assert_ne!(plain, of(json!({"admins": [{"email": "a@b.example"}]})));
        assert_ne!(
            of(json!({"admins": [{"email": "a@b.example"}]})),
            of(json!({"admins": [{"email": "a@b.example", "credential": "OneTimePassword"}]}))
        );
    }
}
