//! What a tenant should have now: its access, its entitlements and its modules, from its object, its plan and the
//! registry's row. Nothing is read for it.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{tenant::Tenant, tenant_status::ModuleStatus},
    controller::context::Context,
    domain::{
        access::{
            evaluate::{AccessEvaluation, evaluate_access},
            inputs::AccessInputs,
        },
        modules::{self, belongs},
        record::TenantRecord,
        spec::SpecError,
        subject::{Evaluation, Subject},
        usage::entitlements::{Entitlements, entitlements_of_plan, without_effect},
    },
    modules::ModuleSet,
};

/// The access that the tenant should have now, and what its plan grants.
pub fn evaluate(tenant: &Tenant, record: Option<&TenantRecord>, context: &Context) -> Evaluation {
    let access = access(tenant, record, None, context);
    let plan = context.plan(&access.plan);
    let unused = plan.as_ref().map(|plan| without_effect(&plan.spec, &tenant.spec.limits));
    Evaluation {
        entitlements: entitlements(tenant, &access.plan, context).and_then(Result::ok),
        limits_without_effect: unused.unwrap_or_default().into_iter().map(str::to_owned).collect(),
        access,
    }
}

/// The access that the tenant should have now. `activated_at` is the time of an activation that is about to be recorded.
pub fn access(
    tenant: &Tenant,
    record: Option<&TenantRecord>,
    activated_at: Option<Timestamp>,
    context: &Context,
) -> AccessEvaluation {
    let plan = context.plan(&tenant.spec.plan);
    let inputs = AccessInputs {
        tenant,
        plan: plan.as_ref().map(|plan| &plan.spec),
        holds: record.map_or(&[], |record| record.holds.as_slice()),
        activated_at: activated_at.or(record.and_then(|record| record.activated_at)),
        // A tenant that was activated before gates were recorded had none.
        default_gates: record
            .filter(|record| record.activated_at.is_some())
            .map(|record| record.default_gates.as_deref().unwrap_or_default()),
        recorded_gates: record.map_or(&[], |record| record.gates.as_slice()),
        gates_done_at: record.and_then(|record| {
            record.gates_done_at.or(record.activated_at.filter(|_| record.default_gates.is_none()))
        }),
        known_trial_end: tenant.status.as_ref().and_then(|status| Some(status.trial_ends_at.as_ref()?.0)),
    };
    evaluate_access(inputs, context.clock.now())
}

/// What a plan grants a tenant. `None` if the plan does not exist.
pub fn entitlements(
    tenant: &Tenant,
    plan: &str,
    context: &Context,
) -> Option<Result<Entitlements, SpecError>> {
    let spec = &context.plan(plan)?.spec;
    let known = modules::check(plan, &spec.modules, context.modules.names());
    Some(
        known
            .map_err(SpecError::from)
            .and_then(|()| Ok(entitlements_of_plan(plan, spec, &tenant.spec.limits)?)),
    )
}

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
