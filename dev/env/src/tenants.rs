//! Tenants as the demo and the benchmarks read them: without the operator's own types.

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use serde_json::Value;

use crate::installation::CUSTOMERS;

/// The Tenants of the namespace `customers`.
pub(crate) fn api(client: Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("tenantry.dev", "v1alpha1", "Tenant");
    Api::namespaced_with(client, CUSTOMERS, &ApiResource::from_gvk_with_plural(&kind, "tenants"))
}

/// The tenant's condition of this type.
pub(crate) fn condition<'a>(tenant: &'a DynamicObject, name: &str) -> Option<&'a Value> {
    let conditions = tenant.data.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == name)
}

/// Whether the tenant is Ready, reported for its current generation.
pub(crate) fn is_ready(tenant: &DynamicObject) -> bool {
    tenant.data.pointer("/status/observedGeneration").and_then(Value::as_i64) == tenant.metadata.generation
        && condition(tenant, "Ready").is_some_and(|ready| ready["status"] == "True")
}
