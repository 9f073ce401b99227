//! A Tenant that has no row of its own, and whose status names a tenant that has one. Such a Tenant is never registered afresh:
//! it would be another tenant, without that one's data.

use super::{observed::RegistryStatus, record::TenantRecord};
use crate::api::{ANNOTATION_ADOPT_ROW, tenant::Tenant};

/// What the row of the tenant that the status names is to the Tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedRow {
    /// The tenant is deprovisioned.
    Closed,
    /// It is that of an earlier object of this namespace, name and slug: Register finds it.
    OfEarlierObject,
    /// It belongs to another Tenant, or its purge has begun: the Tenant was moved, or the registry is older than a move.
    Elsewhere,
}

impl NamedRow {
    /// Of this Tenant.
    pub fn of(row: &TenantRecord, tenant: &Tenant) -> Self {
        let is_same = tenant.metadata.namespace.as_ref() == Some(&row.resource_namespace)
            && tenant.metadata.name.as_ref() == Some(&row.resource_name)
            && tenant.spec.slug == row.slug;
        match row.status {
            RegistryStatus::Deprovisioned => Self::Closed,
            _ if is_same && row.purge_started_at.is_none() => Self::OfEarlierObject,
            _ => Self::Elsewhere,
        }
    }
}

/// Why a Tenant does not take a row over from one of another namespace by annotation, and what to do: who may annotate Tenants
/// in one namespace must not get the data of another.
pub fn describe_other_namespace(row: &TenantRecord, tenant: &Tenant) -> String {
    let owner = format!("{}/{}", row.resource_namespace, row.resource_name);
    format!(
        "tenant {} is that of Tenant {owner}, which is in another namespace: {}",
        row.id,
        move_by_registry(&owner, &row.slug, tenant)
    )
}

/// How a platform operator moves a tenant from another Tenant to this one.
fn move_by_registry(owner: &str, slug: &str, tenant: &Tenant) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let (namespace, name) = (part(&tenant.metadata.namespace), part(&tenant.metadata.name));
    format!(
        "a platform operator applies Tenant {owner}, deletes it with a grace, and moves its tombstone, in the registry: SELECT move_tenant('{slug}', '{namespace}', '{name}')"
    )
}

/// Why a Tenant does nothing whose tenant is that of another one by the registry, and what to do.
pub fn describe_elsewhere(row: &TenantRecord, tenant: &Tenant) -> String {
    let (id, slug, status) = (row.id, &row.slug, row.status.as_str());
    let owner = format!("{}/{}", row.resource_namespace, row.resource_name);
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let (namespace, name) = (part(&tenant.metadata.namespace), part(&tenant.metadata.name));
    let what = format!(
        "the registry records tenant {id}, which the status names, as that of Tenant {owner} ({status}), so nothing is done for this Tenant"
    );
    if let Some(begun) = row.purge_started_at {
        return format!(
            "{what}; its purge began at {begun:.0} and cannot be undone: delete this Tenant; one that is applied after that is a new tenant"
        );
    }
    let back = match row.status {
        RegistryStatus::Deprovisioning => {
            format!("move it, in the registry: SELECT move_tenant('{slug}', '{namespace}', '{name}')")
        }
        _ if row.resource_namespace != namespace => move_by_registry(&owner, slug, tenant),
        _ => format!(
            "confirm it, once no Tenant {owner} exists: kubectl annotate tenant -n {namespace} {name} {ANNOTATION_ADOPT_ROW}={id}"
        ),
    };
    format!(
        "{what}; if it was moved there, delete this Tenant; if it belongs here, since the registry was restored to a state before it was moved, {back}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use serde_json::json;

    fn tenant(namespace: &str, name: &str, slug: &str) -> Tenant {
        serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"slug": slug, "displayName": "Acme", "plan": "starter"},
        }))
        .unwrap()
    }

    #[test]
    fn only_a_row_of_this_namespace_name_and_slug_is_found_again() {
        let same = tenant("customers", "acme", "acme");
        let mut row = TenantRecord::example(RegistryStatus::Active);
        assert_eq!(NamedRow::of(&row, &same), NamedRow::OfEarlierObject);
        for other in [
            tenant("others", "acme", "acme"),
            tenant("customers", "renamed", "acme"),
            tenant("customers", "acme", "other"),
        ] {
            assert_eq!(NamedRow::of(&row, &other), NamedRow::Elsewhere);
        }
        row.purge_started_at = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(NamedRow::of(&row, &same), NamedRow::Elsewhere);
        row.status = RegistryStatus::Deprovisioned;
        assert_eq!(NamedRow::of(&row, &same), NamedRow::Closed);
    }

    #[test]
    fn message_names_the_owner_and_the_way_for_its_state() {
        let mut row = TenantRecord::example(RegistryStatus::Active);
        let active = describe_elsewhere(&row, &tenant("customers", "renamed", "acme"));
        let annotation =
            format!("kubectl annotate tenant -n customers renamed {ANNOTATION_ADOPT_ROW}={}", row.id);
        assert!(active.contains("as that of Tenant customers/acme (active)") && active.contains(&annotation));
        // One namespace's users do not get the data of another by an annotation.
        let tenant = tenant("others", "renamed", "acme");
        let moved = "a platform operator applies Tenant customers/acme, deletes it with a grace";
        for message in [describe_elsewhere(&row, &tenant), describe_other_namespace(&row, &tenant)] {
            assert!(message.contains(moved) && message.contains("move_tenant('acme', 'others', 'renamed')"));
            assert!(!message.contains(ANNOTATION_ADOPT_ROW), "{message}");
        }
        row.status = RegistryStatus::Deprovisioning;
        let leaving = describe_elsewhere(&row, &tenant);
        assert!(leaving.contains("SELECT move_tenant('acme', 'others', 'renamed')"), "{leaving}");
        row.purge_started_at = Some(Timestamp::UNIX_EPOCH);
        assert!(describe_elsewhere(&row, &tenant).contains("cannot be undone: delete this Tenant"));
    }
}
