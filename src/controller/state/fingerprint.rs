//! Fingerprints of the parts of an object whose change leads to a reconcile.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use crate::api::{
    ANNOTATION_ADOPT_ROW, ANNOTATION_RECONCILE_REQUESTED_AT, ANNOTATION_RESUME_REQUESTED_AT,
    ANNOTATION_ROTATE_CREDENTIALS, FINALIZER,
    plan::{TenantPlan, TenantPlanSpec},
    tenant::Tenant,
};

/// Of a Tenant: everything but its status, which the operator writes.
pub fn of_tenant(tenant: &Tenant) -> u64 {
    let mut hasher = DefaultHasher::new();
    tenant.metadata.generation.hash(&mut hasher);
    // A finalizer that was lost, not the one that the operator has just added.
    let registered = tenant.status.as_ref().is_some_and(|status| status.tenant_id.is_some());
    (registered && !has_finalizer(tenant.finalizers())).hash(&mut hasher);
    tenant.metadata.deletion_timestamp.is_some().hash(&mut hasher);
    tenant.annotations().get(ANNOTATION_RECONCILE_REQUESTED_AT).hash(&mut hasher);
    tenant.annotations().get(ANNOTATION_RESUME_REQUESTED_AT).hash(&mut hasher);
    tenant.annotations().get(ANNOTATION_ADOPT_ROW).hash(&mut hasher);
    tenant.annotations().get(ANNOTATION_ROTATE_CREDENTIALS).hash(&mut hasher);
    hasher.finish()
}

fn has_finalizer(finalizers: &[String]) -> bool {
    finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

/// Of a TenantPlan: its spec and its finalizers.
pub fn of_plan(plan: &TenantPlan) -> u64 {
    let mut hasher = DefaultHasher::new();
    (plan.metadata.generation, plan.finalizers(), plan.metadata.deletion_timestamp.is_some())
        .hash(&mut hasher);
    hasher.finish()
}

/// Of a TenantPlan's spec: all of it.
pub fn of_plan_spec(spec: &TenantPlanSpec) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(spec).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

/// Of a Secret: its content.
pub fn of_secret(secret: &Secret) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (key, value) in secret.data.iter().flatten() {
        (key, &value.0).hash(&mut hasher);
    }
    hasher.finish()
}
