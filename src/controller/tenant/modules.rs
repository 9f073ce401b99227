//! The modules of a tenant: which it should have, and which versions are recorded.

use std::sync::Arc;

use crate::{
    api::tenant_status::ModuleStatus,
    controller::context::Context,
    domain::{modules::belongs, record::TenantRecord, subject::Subject, usage::entitlements::Entitlements},
    modules::ModuleSet,
};

/// The modules that a tenant should have: those of its plan (`entitlements`, else those on record), and those that it has
/// already, since their tables hold the customer's data.
pub fn modules_of(
    record: &TenantRecord,
    entitlements: Option<&Entitlements>,
    context: &Context,
) -> Arc<ModuleSet> {
    let named =
        entitlements.or(record.entitlements.as_ref()).map_or(&[][..], |entitlements| &entitlements.modules);
    let has = |name: &str| record.module_versions.iter().any(|module| module.name == name);
    context.modules.select(|name| belongs(name, named) || has(name))
}

/// The modules for the status: recorded versions and target versions.
pub fn module_statuses(subject: &Subject<'_>, context: &Context) -> Vec<ModuleStatus> {
    let Some(record) = &subject.record else { return Vec::new() };
    let version = |name: &str| {
        record.module_versions.iter().find(|module| module.name == name).map_or(0, |module| module.version)
    };
    let targets = modules_of(record, subject.entitlements(), context).targets();
    targets
        .iter()
        .map(|module| ModuleStatus {
            name: module.name.clone(),
            version: i64::from(version(&module.name)),
            target: i64::from(module.version),
        })
        .collect()
}
