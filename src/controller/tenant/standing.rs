//! Where a tenant stands, by what is at hand: its object, its plan, the holds of its row.

use k8s_openapi::jiff::Timestamp;
use kube::Resource;

use super::{failure::StepError, visit::Visit};
use crate::{
    api::tenant::Tenant,
    controller::context::Context,
    domain::{
        desired::Invalid,
        given::Given,
        limits::{Entitlements, resolve, without_effect},
        modules,
        standing::{Ending, Standing, standing},
    },
    registry::TenantRow,
};

impl Context {
    /// Judges where a tenant stands now; `activated_at` for one that is being handed out.
    pub fn standing(
        &self,
        tenant: &Tenant,
        row: Option<&TenantRow>,
        activated_at: Option<Timestamp>,
    ) -> Standing {
        let plan = self.plan(&tenant.spec.plan);
        let given = Given {
            tenant,
            plan: plan.as_ref().map(|plan| &plan.spec),
            holds: row.map_or(&[], |row| row.holds.as_slice()),
            activated_at: activated_at.or(row.and_then(|row| row.activated_at)),
            // One that was handed out before gates were recorded began with none, and was let in then.
            default_gates: row
                .filter(|row| row.activated_at.is_some())
                .map(|row| row.default_gates.as_deref().unwrap_or_default()),
            recorded_gates: row.map_or(&[], |row| row.gates.as_slice()),
            gates_done_at: row.and_then(|row| {
                row.gates_done_at.or(row.activated_at.filter(|_| row.default_gates.is_none()))
            }),
            known_trial_end: tenant.status.as_ref().and_then(|status| Some(status.trial_ends_at.as_ref()?.0)),
        };
        standing(given, self.clock.now())
    }
}

impl Context {
    /// What a plan gives a tenant; none if there is no such plan.
    pub fn entitlements(&self, tenant: &Tenant, plan: &str) -> Option<Result<Entitlements, Invalid>> {
        let spec = &self.plan(plan)?.spec;
        let known = modules::check(plan, &spec.modules, self.modules.names());
        Some(known.map_err(Invalid::from).and_then(|()| Ok(resolve(plan, spec, &tenant.spec.limits)?)))
    }
}

impl Visit<'_> {
    /// Judges the tenant anew: where it stands, and what its plan gives it.
    pub fn judge(&mut self, context: &Context) {
        let standing = context.standing(self.tenant, self.row.as_ref(), None);
        let plan = context.plan(&standing.plan);
        let unused = plan.as_ref().map(|plan| without_effect(&plan.spec, &self.tenant.spec.limits));
        self.without_effect = unused.unwrap_or_default().into_iter().map(str::to_owned).collect();
        self.entitlements = context.entitlements(self.tenant, &standing.plan).and_then(Result::ok);
        self.standing = Some(standing);
    }
}

/// Warns once of an end that comes by itself.
pub async fn warn(visit: &Visit<'_>, context: &Context) -> Result<(), StepError> {
    let (Some(row), Some(standing)) = (&visit.row, &visit.standing) else { return Ok(()) };
    let Some(warning) = standing.warning.filter(|warning| warning.from <= context.clock.now()) else {
        return Ok(());
    };
    let told = row.warned_of.is_some_and(|of| of.as_microsecond() == warning.at.as_microsecond());
    if told || !row.status.was_active() {
        return Ok(());
    }
    let (reason, what) = match warning.of {
        Ending::Trial => ("TrialEnding", "the trial ends"),
        Ending::Validity => ("ValidityEnding", "the validity ends"),
    };
    let note = format!("{what} at {}; what happens then: {}", warning.at, after(visit, warning.of, context));
    context.events.warning(visit.tenant.object_ref(&()), "Warn", reason, note);
    context.registry.warned_of(row.id, warning.at).await?;
    context.bulk.forget(&row.resource_uid);
    Ok(())
}

/// What an end leads to, in words.
fn after(visit: &Visit<'_>, ending: Ending, context: &Context) -> String {
    let plan = context.plan(&visit.tenant.spec.plan);
    let end = plan.as_ref().and_then(|plan| plan.spec.trial_end.as_ref());
    match (ending, end.and_then(|end| end.plan.as_deref()), end.and_then(|end| end.mode)) {
        (Ending::Validity, _, _) => "its access is Blocked".to_owned(),
        (Ending::Trial, Some(plan), _) => format!("its plan becomes {plan}"),
        (Ending::Trial, None, Some(mode)) => format!("its access is {mode}"),
        (Ending::Trial, None, None) => "its access is Blocked".to_owned(),
    }
}
