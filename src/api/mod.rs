//! The resources: one file per kind, with its types, its rules and the words of `kubectl explain`. No behaviour.
//!
//! A rule that the API server can check is written here, with a message that says what to write instead. The rules
//! sit on `spec` or below, never at the root: a root rule that is violated by a stored object would block the
//! release of its finalizer. The length of `metadata.name` is the one exception, from the first day. A rule on `spec`
//! itself tolerates what was wrong before (see `rules::rule_on_spec`), for the same reason.

pub mod conditions;
pub mod database_server;
mod manifest;
pub mod plan;
mod rules;
pub mod tenant;
pub mod tenant_hold;
pub mod tenant_lifecycle;
pub mod tenant_status;
mod words;

pub use manifest::{crd_files, crds, crds_yaml};

/// Annotation of a Tenant: any new value leads to a visit, as `reconcile.fluxcd.io/requestedAt` does in Flux.
pub const ANNOTATION_RECONCILE_REQUESTED_AT: &str = "tenantry.dev/reconcile-requested-at";

/// Annotation of a Tenant: any new value lifts the hold named inactivity.
pub const ANNOTATION_RESUME_REQUESTED_AT: &str = "tenantry.dev/resume-requested-at";

/// Annotation on a DatabaseServer: the system identifier of a server that took the place of the one before on purpose.
pub const ANNOTATION_ACCEPT_SERVER: &str = "tenantry.dev/accept-server";

/// Annotation of the definition of Tenants: the token of the opening of the breaker that somebody has looked at.
pub const ANNOTATION_BREAKER_ACKNOWLEDGED: &str = "tenantry.dev/breaker-acknowledged";

/// The API group of every kind.
pub const GROUP: &str = "tenantry.dev";

/// The `apiVersion` of every kind.
pub const API_VERSION: &str = "tenantry.dev/v1alpha1";

/// The finalizer on a Tenant, on a TenantHold, on a DatabaseServer, and on a TenantPlan while it is used.
pub const FINALIZER: &str = "tenantry.dev/deprovision";

/// The label with the registry's id of the tenant. It marks a Secret as ours: one without it is never read, changed
/// or deleted.
pub const LABEL_TENANT_ID: &str = "tenantry.dev/tenant-id";

/// The label with the name of the Tenant that a Secret belongs to.
pub const LABEL_TENANT: &str = "tenantry.dev/tenant";

/// The label that says who manages an object; its value is [`MANAGED_BY`].
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The value of [`LABEL_MANAGED_BY`], and the field manager of everything that the operator applies.
pub const MANAGED_BY: &str = "tenantry";
