//! The resources: one file per kind, with its types, its validation rules and the texts of `kubectl explain`. No
//! behaviour.
//!
//! A rule that the API server can check is written here, with a message that states what to write instead. The rules
//! are on `spec` or below, never at the root: a stored object that violates a root rule could not have its finalizer
//! released. The length of `metadata.name` is the one exception, from the first day. A rule on `spec` itself tolerates
//! what was wrong before (see `validation::rule_on_spec`), for the same reason.

pub mod conditions;
mod crd;
pub mod database_server;
pub mod limit;
pub mod module_image;
pub mod module_job;
pub mod plan;
pub mod reason;
mod string_enum;
pub mod support_access;
pub mod tenant;
pub mod tenant_account;
pub mod tenant_adoption;
pub mod tenant_credentials;
pub mod tenant_hold;
pub mod tenant_lifecycle;
pub mod tenant_module;
pub mod tenant_status;
mod validation;

pub use crd::{crd_files, crds, crds_yaml};

/// Annotation of a Tenant: a new value requests a reconcile, as `reconcile.fluxcd.io/requestedAt` does in Flux.
pub const ANNOTATION_RECONCILE_REQUESTED_AT: &str = "tenantry.dev/reconcile-requested-at";

/// Annotation of a Tenant: a new value lifts the hold named inactivity.
pub const ANNOTATION_RESUME_REQUESTED_AT: &str = "tenantry.dev/resume-requested-at";

/// Annotation of a Tenant whose registry row was lost, or is that of another Tenant since the registry was restored: the id in
/// its status. The row is written again, from what the server has, or bound to the Tenant, and the annotation is removed.
pub const ANNOTATION_ADOPT_ROW: &str = "tenantry.dev/adopt-row";

/// Annotation of a Tenant: a new value asks for a rotation of its credentials.
pub const ANNOTATION_ROTATE_CREDENTIALS: &str = "tenantry.dev/rotate-credentials";

/// Annotation of every kind with a spec: who changed it last, written by the admission policies of the chart
/// (docs/actors.md).
pub const ANNOTATION_CHANGES: &str = "tenantry.dev/changes";

/// Annotation of a DatabaseServer: the system identifier of a PostgreSQL server that replaced the previous one on
/// purpose.
pub const ANNOTATION_ACCEPT_SERVER: &str = "tenantry.dev/accept-server";

/// Annotation of the Tenant CRD: the token of the mass deletion that an operator has acknowledged.
pub const ANNOTATION_BREAKER_ACKNOWLEDGED: &str = "tenantry.dev/breaker-acknowledged";

/// The API group of every kind.
pub const GROUP: &str = "tenantry.dev";

/// The `apiVersion` of every kind.
pub const API_VERSION: &str = "tenantry.dev/v1alpha1";

/// The finalizer of Tenants, TenantHolds, SupportAccesses and DatabaseServers, and of a TenantPlan while a Tenant uses it.
pub const FINALIZER: &str = "tenantry.dev/deprovision";

/// The label with the registry's id of the tenant. Secrets and TenantAccounts without it are never read, changed or deleted.
pub const LABEL_TENANT_ID: &str = "tenantry.dev/tenant-id";

/// The label with the name of the Tenant that a Secret belongs to.
pub const LABEL_TENANT: &str = "tenantry.dev/tenant";

/// The label with the name of the SupportAccess that a Secret belongs to.
pub const LABEL_SUPPORT_ACCESS: &str = "tenantry.dev/support-access";

/// The label of a namespace in which TenantAccounts may be created; its value is `true`.
pub const LABEL_ACCOUNTS: &str = "tenantry.dev/accounts";

/// The label with the manager of an object; its value is [`MANAGED_BY`].
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The value of [`LABEL_MANAGED_BY`], and the field manager of every object that the operator applies.
pub const MANAGED_BY: &str = "tenantry";
