//! What the span of a Tenant's reconcile says of the tenant.

use crate::{
    domain::{status::Summary, subject::Subject},
    traces,
};

/// Describes the tenant, and how the reconcile ended.
pub fn describe(subject: &Subject<'_>, summary: &Summary) {
    if let Some(record) = &subject.record {
        traces::note("tenantry.tenant.id", record.id.to_string());
        traces::note("tenantry.tenant.slug", record.slug.clone());
    }
    traces::note("tenantry.outcome", summary.as_str());
    if let Some((reason, message)) = summary.failure() {
        traces::failed(reason.as_str(), message);
    }
}
