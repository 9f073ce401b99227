//! Which object a tenant belongs to. The API server itself is asked just before something that cannot be undone: a store
//! may be behind, and an empty store proves nothing.

use kube::{Api, Client, ResourceExt, api::ListParams};

use super::failure::StepError;
use crate::{
    api::{FINALIZER, tenant::Tenant},
    controller::watch::guarded::Guarded,
};

/// The Tenant of this name, as the API server has it now. It is listed, not read by name: where the resource itself is not
/// served, a list is an error, and a read would answer that the object does not exist.
///
/// # Errors
/// Also for a Tenant that cannot be decoded: it exists.
pub async fn find_tenant(client: &Client, namespace: &str, name: &str) -> Result<Option<Tenant>, StepError> {
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    let found = Api::<Guarded<Tenant>>::namespaced(client.clone(), namespace).list(&named).await?;
    Ok(found.items.into_iter().next().map(|object| object.0).transpose()?)
}

/// Whether an object is that of the tenant with this uid and slug: it is that Tenant, or the same one applied again, and
/// its reconcile works on it. An object that is deleted and does not have our finalizer any more only waits for the
/// finalizers of other controllers.
pub fn is_object_of(object: &Tenant, uid: &str, slug: &str) -> bool {
    let reconciled = object.metadata.deletion_timestamp.is_none()
        || object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    reconciled && (object.uid().as_deref() == Some(uid) || object.spec.slug == slug)
}

/// Whether the tenant with this uid and slug is still being deprovisioned: it has no object, or its object is the one that
/// was `reconciled`, unchanged since.
pub fn is_still_deprovisioning(found: Option<&Tenant>, reconciled: &Tenant, uid: &str, slug: &str) -> bool {
    match found.filter(|found| is_object_of(found, uid, slug)) {
        None => true,
        Some(found) => {
            found.uid() == reconciled.uid() && found.metadata.generation == reconciled.metadata.generation
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(uid: &str, slug: &str, more: Value) -> Tenant {
        let mut metadata = json!({"name": "acme", "uid": uid, "generation": 2});
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": metadata,
            "spec": {"slug": slug, "displayName": "Acme", "plan": "starter"},
        }))
        .unwrap()
    }

    fn present(uid: &str, slug: &str) -> Tenant {
        object(uid, slug, json!({}))
    }

    fn deleted(uid: &str, finalizers: Value) -> Tenant {
        let at = "2026-01-01T00:00:00Z";
        object(uid, "acme", json!({"deletionTimestamp": at, "finalizers": finalizers}))
    }

    #[test]
    fn same_tenant_applied_again_matches_and_another_slug_does_not() {
        assert!(is_object_of(&present("one", "acme"), "one", "acme"));
        assert!(is_object_of(&present("two", "acme"), "one", "acme"));
        assert!(!is_object_of(&present("two", "other"), "one", "acme"));
    }

    #[test]
    fn deleted_object_matches_only_while_it_has_our_finalizer() {
        assert!(is_object_of(&deleted("one", json!([FINALIZER, "backup.example/keep"])), "one", "acme"));
        assert!(!is_object_of(&deleted("one", json!(["backup.example/keep"])), "one", "acme"));
        assert!(!is_object_of(&deleted("two", json!(["backup.example/keep"])), "one", "acme"));
    }

    #[test]
    fn changed_or_reapplied_object_stops_the_purge() {
        let reconciled = present("one", "acme");
        let may_purge = |found: Option<&Tenant>, reconciled: &Tenant| {
            is_still_deprovisioning(found, reconciled, "one", "acme")
        };
        assert!(may_purge(None, &reconciled));
        assert!(may_purge(Some(&reconciled), &reconciled));
        let changed = object("one", "acme", json!({"generation": 3}));
        assert!(!may_purge(Some(&changed), &reconciled));
        assert!(!may_purge(Some(&present("two", "acme")), &reconciled));
        assert!(may_purge(Some(&present("two", "other")), &reconciled));
        assert!(may_purge(Some(&deleted("one", json!(["backup.example/keep"]))), &reconciled));
        // Reconciled from the registry alone, since the watch did not show the object, which exists after all.
        let mut remembered = reconciled.clone();
        remembered.metadata.generation = None;
        assert!(!may_purge(Some(&reconciled), &remembered));
    }
}
