//! Objects of the API, as a user writes them.

use serde_json::{Map, Value, json};
use tenantry::api::API_VERSION;

/// A cluster-scoped or namespaced object of Tenantry.
fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// A Tenant whose slug is its name, on plan `starter`, without a grace period. `changes` go over its spec; null removes a
/// field.
pub fn tenant(name: &str, changes: Value) -> Value {
    let spec = json!({
        "slug": name, "displayName": name, "plan": "starter", "offboarding": {"gracePeriodSeconds": 0},
    });
    object("Tenant", name, changed(spec, changes))
}

/// A TenantPlan.
pub fn plan(name: &str, spec: Value) -> Value {
    object("TenantPlan", name, spec)
}

/// A TenantHold on a Tenant. `changes` go over its spec.
pub fn hold(name: &str, tenant: &str, changes: Value) -> Value {
    object(
        "TenantHold",
        name,
        changed(json!({"tenant": tenant, "reason": format!("held by {name}")}), changes),
    )
}

/// A DatabaseServer at a port of 127.0.0.1, without TLS, whose Secret has its name. `changes` go over its spec.
pub fn database_server(name: &str, port: u16, changes: Value) -> Value {
    let spec = json!({
        "engine": "PostgreSQL", "host": "127.0.0.1", "port": port, "adminSecretRef": {"name": name},
        "tls": {"mode": "Disable"},
    });
    object("DatabaseServer", name, changed(spec, changes))
}

/// A Secret of these texts.
pub fn secret(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
}

/// A quota that forbids new Secrets in its namespace: a tenant there fails at its credentials.
pub fn no_secrets(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name},
        "spec": {"hard": {"count/secrets": "0"}}})
}

/// A list of objects, for one `kubectl apply`.
pub fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// The fields of `changes` over those of `object`; null removes one.
pub fn changed(mut object: Value, changes: Value) -> Value {
    let fields: &mut Map<String, Value> = object.as_object_mut().unwrap();
    fields.extend(changes.as_object().unwrap().clone());
    fields.retain(|_, value| !value.is_null());
    object
}
