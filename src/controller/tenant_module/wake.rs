//! Requests the reconciles of the tenants that a changed module concerns.

use std::collections::BTreeSet;

use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tracing::info;

use crate::{
    api::{
        reason::Reason,
        tenant::Tenant,
        tenant_status::{ModuleState, TenantStatus},
    },
    controller::{context::Context, watch::requeue::requeue_tenant},
    domain::{
        modules::{KnownModule, ModuleWishes, choose},
        plan_adoption::rests,
        record::ModuleVersion,
        rollout_order::{self, is_failed},
    },
};

/// Failures that a changed module may end.
const WAIT_FOR_MODULES: [Reason; 4] =
    [Reason::DependencyTooOld, Reason::ModuleNotFound, Reason::ModuleNotReady, Reason::VersionNotFound];

/// Requests the reconciles of the tenants that lack something of these modules, a few at a time on each server, and of those
/// that wait for a module. Those on which a file failed are first: it may be corrected; then the quiet ones.
pub fn wake_tenants(names: &BTreeSet<String>, context: &Context) {
    context.state.plans_changed.notify_one();
    context.state.modules.status_changed.notify_one();
    let known = context.modules.known();
    let mut concerned = Vec::new();
    for tenant in context.stores.scopes.tenants() {
        let reference = ObjectRef::from_obj(tenant.as_ref());
        let failure = context.state.retries.failure(&reference);
        if failure.is_some_and(|failure| WAIT_FOR_MODULES.contains(&failure)) {
            requeue_tenant(&tenant.namespace().unwrap_or_default(), &tenant.name_any(), context);
            continue;
        }
        let Some(status) = tenant.status.as_ref().filter(|status| !rests(&tenant, status)) else { continue };
        if let (true, Some(server)) =
            (is_concerned(&tenant, status, names, known.list(), context), &status.server)
        {
            concerned.push((rollout_order::place(status), server.clone(), reference, is_failed(status)));
        }
    }
    let count = concerned.len();
    concerned.sort_by_key(|(place, ..)| *place);
    for (_, server, tenant, is_urgent) in concerned {
        context.state.module_rollouts.add(&server, [(tenant, is_urgent)]);
    }
    if count > 0 {
        info!(?names, tenants = count, "modules changed: their tenants are brought up");
    }
}

/// Whether a tenant's database, or what its status shows of it, is another one with these modules than with their earlier
/// content.
fn is_concerned(
    tenant: &Tenant,
    status: &TenantStatus,
    names: &BTreeSet<String>,
    known: &[KnownModule],
    context: &Context,
) -> bool {
    let plan = status.plan.as_ref().unwrap_or(&tenant.spec.plan);
    let spec = context.plan(plan);
    let of_plan = spec.as_ref().map_or(&[][..], |plan| &plan.spec.modules);
    let wishes = ModuleWishes { tenant: &tenant.spec.modules, plan, of_plan };
    let has = status.modules.iter().filter(|module| module.version > 0).map(|module| ModuleVersion {
        name: module.name.clone(),
        version: i32::try_from(module.version).unwrap_or(i32::MAX),
    });
    let has: Vec<ModuleVersion> = has.collect();
    let chosen = choose(wishes, &has, known).modules;
    let shown = |name: &str| status.modules.iter().find(|module| module.name == name);
    let lacks = chosen.iter().filter(|module| names.contains(&module.name)).any(|module| {
        let target = i64::from(module.version);
        shown(&module.name)
            .is_none_or(|shown| shown.version < target || shown.state == Some(ModuleState::Held))
    });
    let is_gone = |name: &String| !known.iter().any(|module| module.name == *name);
    lacks || names.iter().any(|name| is_gone(name) && shown(name).is_some())
}
