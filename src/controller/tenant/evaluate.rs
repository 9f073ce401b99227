//! Evaluates a tenant with what is available in this process: its object, its plan, and the registry's row.

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::tenant::Tenant,
    controller::context::Context,
    domain::{
        access::{
            evaluate::{AccessEvaluation, evaluate_access},
            inputs::AccessInputs,
        },
        modules,
        record::TenantRecord,
        spec::SpecError,
        subject::Evaluation,
        usage::entitlements::{Entitlements, resolve, without_effect},
    },
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
    Some(known.map_err(SpecError::from).and_then(|()| Ok(resolve(plan, spec, &tenant.spec.limits)?)))
}
