//! The Tenants that have the id of a registered tenant in their status. The row of that tenant may name another Tenant: the
//! registry may be older than a move.

use std::collections::HashMap;

use uuid::Uuid;

use super::identity::TenantId;
use crate::api::tenant::{DesiredState, Tenant};

/// A Tenant that has the id in its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// It is neither being deleted nor deprovisioned.
    pub in_use: bool,
}

/// The claims, by the id.
#[derive(Clone, Debug, Default)]
pub struct Claims(HashMap<TenantId, Vec<Claimant>>);

impl Claims {
    /// Those of these Tenants.
    pub fn of<'a>(tenants: impl IntoIterator<Item = &'a Tenant>) -> Self {
        let mut claims: HashMap<TenantId, Vec<Claimant>> = HashMap::new();
        for tenant in tenants {
            let shown = tenant.status.as_ref().and_then(|status| status.tenant_id.as_deref());
            let Some(id) = shown.and_then(|id| Uuid::try_parse(id).ok()) else { continue };
            let claim = Claimant {
                namespace: tenant.metadata.namespace.clone().unwrap_or_default(),
                name: tenant.metadata.name.clone().unwrap_or_default(),
                in_use: tenant.metadata.deletion_timestamp.is_none()
                    && tenant.spec.state != Some(DesiredState::Deprovisioned),
            };
            claims.entry(TenantId(id)).or_default().push(claim);
        }
        Self(claims)
    }

    /// Whether any Tenant has the id.
    pub fn include(&self, id: TenantId) -> bool {
        self.0.contains_key(&id)
    }

    /// The Tenants with the id, other than the one of this namespace and name.
    pub fn elsewhere(&self, id: TenantId, namespace: &str, name: &str) -> impl Iterator<Item = &Claimant> {
        let claims = self.0.get(&id).into_iter().flatten();
        claims.filter(move |claim| claim.namespace != namespace || claim.name != name)
    }

    /// One of them that is in use.
    pub fn in_use_elsewhere(&self, id: TenantId, namespace: &str, name: &str) -> Option<&Claimant> {
        self.elsewhere(id, namespace, name).find(|claim| claim.in_use)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn tenant(name: &str, id: &str, metadata: Value, state: &str) -> Tenant {
        let mut all = json!({"name": name, "namespace": "customers"});
        all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": all,
            "spec": {"slug": name, "displayName": "Acme", "plan": "starter", "state": state},
            "status": {"tenantId": id},
        }))
        .unwrap()
    }

    #[test]
    fn only_another_tenant_in_use_keeps_a_tenant() {
        let id = TenantId(Uuid::from_u128(1));
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let tenants = [
            tenant("acme", &id.to_string(), json!({}), "Active"),
            tenant("left", &id.to_string(), deleted, "Active"),
            tenant("leaving", &id.to_string(), json!({}), "Deprovisioned"),
            tenant("odd", "no id", json!({}), "Active"),
        ];
        let claims = Claims::of(&tenants);
        assert!(claims.include(id) && !claims.include(TenantId(Uuid::from_u128(2))));
        let others: Vec<&str> =
            claims.elsewhere(id, "customers", "acme").map(|claim| claim.name.as_str()).collect();
        assert_eq!(others, ["left", "leaving"]);
        assert_eq!(claims.in_use_elsewhere(id, "customers", "acme"), None);
        assert_eq!(claims.in_use_elsewhere(id, "others", "acme").unwrap().name, "acme");
        assert_eq!(claims.in_use_elsewhere(TenantId(Uuid::from_u128(2)), "others", "acme"), None);
    }
}
