//! Which object stands for a tenant: asked of the API server itself, just before something that cannot be undone. The
//! stores may be behind, and an empty one says nothing.

use kube::{Api, Client, ResourceExt, api::ListParams};

use crate::api::{FINALIZER, tenant::Tenant};

/// The Tenant of this name, as the API server has it now. Listed rather than read by its name: where the resource
/// itself is not served, a list is an error, and a read would say that there is none.
pub async fn look_up(client: &Client, namespace: &str, name: &str) -> kube::Result<Option<Tenant>> {
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    let found = Api::<Tenant>::namespaced(client.clone(), namespace).list(&named).await?;
    Ok(found.items.into_iter().next())
}

/// Whether an object stands for the tenant with this uid and slug: it is that Tenant, or the same one applied again,
/// and its own controller looks after it. One that is deleted and no longer has our finalizer is only waiting for
/// somebody else's.
pub fn stands_for(object: &Tenant, uid: &str, slug: &str) -> bool {
    let attended = object.metadata.deletion_timestamp.is_none()
        || object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    attended && (object.uid().as_deref() == Some(uid) || object.spec.slug == slug)
}

/// Whether the tenant with this uid and slug still goes away: no object stands for it, or the one that does is the one
/// that was `visited`, unchanged since.
pub fn still_leaving(found: Option<&Tenant>, visited: &Tenant, uid: &str, slug: &str) -> bool {
    match found.filter(|found| stands_for(found, uid, slug)) {
        None => true,
        Some(found) => {
            found.uid() == visited.uid() && found.metadata.generation == visited.metadata.generation
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

    fn living(uid: &str, slug: &str) -> Tenant {
        object(uid, slug, json!({}))
    }

    fn deleted(uid: &str, finalizers: Value) -> Tenant {
        let at = "2026-01-01T00:00:00Z";
        object(uid, "acme", json!({"deletionTimestamp": at, "finalizers": finalizers}))
    }

    #[test]
    fn the_same_tenant_applied_again_stands_for_it_and_a_strangers_object_does_not() {
        assert!(stands_for(&living("one", "acme"), "one", "acme"));
        assert!(stands_for(&living("two", "acme"), "one", "acme"));
        assert!(!stands_for(&living("two", "other"), "one", "acme"));
    }

    #[test]
    fn one_that_is_deleted_stands_for_it_only_while_it_has_our_finalizer() {
        assert!(stands_for(&deleted("one", json!([FINALIZER, "backup.example/keep"])), "one", "acme"));
        assert!(!stands_for(&deleted("one", json!(["backup.example/keep"])), "one", "acme"));
        assert!(!stands_for(&deleted("two", json!(["backup.example/keep"])), "one", "acme"));
    }

    #[test]
    fn what_was_changed_or_applied_again_since_the_visit_began_goes_no_further() {
        let visited = living("one", "acme");
        let is_so = |found: Option<&Tenant>, visited: &Tenant| still_leaving(found, visited, "one", "acme");
        assert!(is_so(None, &visited));
        assert!(is_so(Some(&visited), &visited));
        let changed = object("one", "acme", json!({"generation": 3}));
        assert!(!is_so(Some(&changed), &visited));
        assert!(!is_so(Some(&living("two", "acme")), &visited));
        assert!(is_so(Some(&living("two", "other")), &visited));
        assert!(is_so(Some(&deleted("one", json!(["backup.example/keep"]))), &visited));
        // Visited from the registry alone, because it was not seen: it is there after all.
        let mut remembered = visited.clone();
        remembered.metadata.generation = None;
        assert!(!is_so(Some(&visited), &remembered));
    }
}
