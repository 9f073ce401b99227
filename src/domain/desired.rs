//! The spec of a Tenant as types that cannot be wrong.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    limits::LimitNotSet,
    modules::ModuleNotFound,
    settings::{self, SettingsError},
    slug::{Slug, SlugError},
};
use crate::api::tenant::{AdminCredential, DeletionPolicy, OnFailure, Tenant};

/// The `DatabaseServer` of a tenant that names none.
pub const DEFAULT_SERVER: &str = "default";

/// An administrator of the customer, to be seeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Lower-case e-mail address, the key.
    pub email: String,
    /// Display name.
    pub name: Option<String>,
    /// What the admin gets to log in for the first time.
    pub credential: AdminCredential,
}

/// What a living tenant should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The customer's short name.
    pub slug: Slug,
    /// The customer's name, for people.
    pub display_name: String,
    /// Name of an existing `TenantPlan`.
    pub plan: String,
    /// Name of an existing `DatabaseServer`.
    pub server: String,
    /// The customer's administrators.
    pub admins: Vec<Admin>,
    /// Free-form settings, checked.
    pub settings: BTreeMap<String, Value>,
    /// Whether demo data is wanted.
    pub demo_data: bool,
    /// Name of the connection Secret.
    pub connection_secret: String,
    /// Name of the Secret with the admins' one-time credentials.
    pub admin_secret: String,
    /// Nothing is to be changed, for now.
    pub paused: bool,
    /// Whether what a failed first provisioning made is removed; none where the plan decides.
    pub on_failure: Option<OnFailure>,
    /// Whether the database outlives the tenant.
    pub retain: bool,
}

/// What is around the Tenant: which of the things it names exist.
pub trait Surroundings {
    /// Whether a `TenantPlan` of this name exists.
    fn has_plan(&self, name: &str) -> bool;
    /// Whether a `DatabaseServer` of this name exists, and whom it serves.
    fn server(&self, name: &str) -> ServerOffer;
}

/// What a server's name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerOffer {
    /// There is no `DatabaseServer` of this name.
    Missing,
    /// It serves every namespace.
    Everyone,
    /// It serves these namespaces only.
    Only(Vec<String>),
}

/// Why a spec cannot be acted on. Each has a reason of its own in the conditions, and goes away when its cause does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// `spec.slug` is not a slug. The API server refuses it too; an old object may have got past an older schema.
    #[error("spec.slug {slug:?} {error}")]
    Slug {
        /// As written.
        slug: String,
        /// What is wrong with it.
        error: SlugError,
    },
    /// `spec.plan` names nothing.
    #[error(
        "spec.plan: there is no TenantPlan {0:?}; create it, or name one that `kubectl get tenantplans` lists"
    )]
    PlanNotFound(String),
    /// The plan that follows a trial does not exist.
    #[error(
        "the trial has ended, and TenantPlan {of:?} says in trialEnd that TenantPlan {plan:?} follows: there is none of that name; create it, or name another"
    )]
    TrialPlanNotFound {
        /// The plan that should follow.
        plan: String,
        /// The plan that says so.
        of: String,
    },
    /// `spec.server` names nothing.
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
    /// The plan in force leaves a limit to the tenant, which does not say.
    #[error(transparent)]
    LimitNotSet(#[from] LimitNotSet),
    /// The plan in force names a module that is not there.
    #[error(transparent)]
    ModuleNotFound(#[from] ModuleNotFound),
    /// `spec.settings` break a limit.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// Turns a spec into what a living tenant should be.
pub fn desired(tenant: &Tenant, surroundings: &dyn Surroundings) -> Result<Desired, Invalid> {
    let spec = &tenant.spec;
    let name = tenant.metadata.name.clone().unwrap_or_default();
    let namespace = tenant.metadata.namespace.clone().unwrap_or_default();
    let slug = Slug::parse(&spec.slug).map_err(|error| Invalid::Slug { slug: spec.slug.clone(), error })?;
    settings::check(&spec.settings)?;
    if !surroundings.has_plan(&spec.plan) {
        return Err(Invalid::PlanNotFound(spec.plan.clone()));
    }
    let server = spec.server.clone().unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    match surroundings.server(&server) {
        ServerOffer::Missing => return Err(Invalid::ServerNotFound(server)),
        ServerOffer::Only(allowed) if !allowed.contains(&namespace) => {
            return Err(Invalid::NamespaceNotAllowed { server, namespace });
        }
        ServerOffer::Everyone | ServerOffer::Only(_) => {}
    }
    Ok(Desired {
        slug,
        display_name: spec.display_name.clone(),
        plan: spec.plan.clone(),
        server,
        admins: spec
            .admins
            .iter()
            .map(|admin| Admin {
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

/// Name of the connection Secret: `spec.connectionSecretName`, or `<name>-db`. It needs no valid spec.
pub fn connection_secret_name(tenant: &Tenant) -> String {
    let name = tenant.metadata.name.as_deref().unwrap_or_default();
    tenant.spec.connection_secret_name.clone().unwrap_or_else(|| format!("{name}-db"))
}

/// Name of the Secret with the admins' one-time credentials.
pub fn admin_secret_name(tenant_name: &str) -> String {
    format!("{tenant_name}-admin")
}

/// Whether `spec.paused` is set.
pub fn is_paused(tenant: &Tenant) -> bool {
    tenant.spec.paused.unwrap_or(false)
}

impl Desired {
    /// A digest of everything that seeding writes: equal digests mean that there is nothing to seed.
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
        server: ServerOffer,
    }

    impl Surroundings for World {
        fn has_plan(&self, name: &str) -> bool {
            name == "starter"
        }
        fn server(&self, _: &str) -> ServerOffer {
            self.server.clone()
        }
    }

    const EVERYONE: World = World { server: ServerOffer::Everyone };

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
    fn what_is_not_said_has_a_meaning() {
        let got = desired(&tenant(json!({"admins": [{"email": "Ada@acme.example"}]})), &EVERYONE).unwrap();
        assert_eq!(got.server, "default");
        assert_eq!(got.connection_secret, "acme-db");
        assert_eq!(got.admin_secret, "acme-admin");
        assert_eq!(got.admins[0].email, "ada@acme.example");
        assert_eq!(got.admins[0].credential, AdminCredential::ResetToken);
        assert!(!got.demo_data && !got.paused);
    }

    #[test]
    fn each_cause_has_its_own_refusal() {
        let refuse = |spec, world: &World| desired(&tenant(spec), world).unwrap_err();
        assert!(matches!(refuse(json!({"slug": "A"}), &EVERYONE), Invalid::Slug { .. }));
        assert_eq!(refuse(json!({"plan": "gone"}), &EVERYONE), Invalid::PlanNotFound("gone".into()));
        assert_eq!(
            refuse(json!({"server": "x"}), &World { server: ServerOffer::Missing }),
            Invalid::ServerNotFound("x".into())
        );
        let elsewhere = World { server: ServerOffer::Only(vec!["other".into()]) };
        assert!(matches!(refuse(json!({}), &elsewhere), Invalid::NamespaceNotAllowed { .. }));
        let large = json!({"settings": {"a": "x".repeat(70_000)}});
        assert!(matches!(refuse(large, &EVERYONE), Invalid::Settings(SettingsError::TooLarge { .. })));
    }

    #[test]
    fn the_seed_digest_sees_each_part_and_nothing_else() {
        let of = |spec| desired(&tenant(spec), &EVERYONE).unwrap().seed_digest();
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
