//! Keeps the finalizers and the statuses of plans. Tenants are counted from memory, for all plans at once, when a tenant or a
//! plan changed: many new tenants lead to one write in two seconds per plan, and quiet times to none.

use std::{collections::BTreeMap, time::Duration};

use kube::{Api, ResourceExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::status::{PlanInputs, changes};
use crate::{
    api::plan::TenantPlan,
    controller::{
        apply_status::apply_status,
        context::{Context, SharedContext},
        finalizers,
    },
    domain::{
        backoff,
        plan_adoption::{PlanAdoption, adoption_by_plan},
    },
    metrics::PlanSeries,
    traces,
};

/// The least time between two writes to a plan.
const PERIOD: Duration = Duration::from_secs(2);

/// Reconciles the plans whenever something changed, until `shutdown`.
pub async fn run(context: SharedContext, shutdown: CancellationToken) {
    // Before all Tenants are known, a plan that is in use would look unused.
    if !context.stores.scopes.are_known(&shutdown).await {
        return;
    }
    let mut failures = 0;
    loop {
        let done = traces::reconcile("TenantPlan", "", "", reconcile_all(&context)).await;
        failures = if done { 0 } else { failures + 1 };
        let quiet = async {
            sleep(PERIOD).await;
            if failures == 0 {
                context.state.plans_changed.notified().await;
            } else {
                let wait = backoff::temporary(failures, rand::random());
                let _ = timeout(wait, context.state.plans_changed.notified()).await;
            }
        };
        if shutdown.run_until_cancelled(quiet).await.is_none() {
            return;
        }
    }
}

/// Reconciles all plans. Returns whether every write succeeded.
async fn reconcile_all(context: &Context) -> bool {
    let plans = context.stores.plans.state();
    let specs: BTreeMap<String, _> = plans.iter().map(|plan| (plan.name_any(), &plan.spec)).collect();
    let tenants = context.stores.scopes.tenants();
    let known = context.modules.known();
    let by_plan = adoption_by_plan(tenants.iter().map(AsRef::as_ref), &specs, known.list(), |tenant| {
        context.state.plan_rollout.is_pending(tenant)
    });
    context.metrics.plan_tenants(plans.iter().map(|plan| counts(plan, &by_plan)).collect());
    // A Tenant that cannot be decoded may be on any plan.
    let is_complete = !context.stores.scopes.has_invalid_tenants();
    let mut done = true;
    for plan in &plans {
        let name = plan.name_any();
        if !is_complete && !by_plan.contains_key(&name) {
            continue;
        }
        if let Err(error) = reconcile(plan, by_plan.get(&name), context).await {
            warn!(plan = name, %error, "failed to update TenantPlan status");
            done = false;
        }
    }
    done
}

/// How many tenants of a plan are how far.
fn counts(plan: &TenantPlan, by_plan: &BTreeMap<String, PlanAdoption>) -> PlanSeries {
    let plan = plan.name_any();
    let [users, pending, stalled] = by_plan
        .get(&plan)
        .map_or([0; 3], |adoption| [adoption.users.count, adoption.pending.count, adoption.stalled.count]);
    let by_state = [("Current", users - pending), ("Pending", pending - stalled), ("Stalled", stalled)];
    PlanSeries { plan, by_state }
}

async fn reconcile(
    plan: &TenantPlan,
    adoption: Option<&PlanAdoption>,
    context: &Context,
) -> Result<(), kube::Error> {
    let manager = finalizers::manager_of(&context.installation.id.to_string());
    let modules = context.modules.known();
    let (metered_limits, modules) = (modules.metered_limits(), modules.names());
    let sees_all_tenants = context.stores.scopes.0.iter().any(|scope| scope.namespace.is_none());
    let known = PlanInputs { adoption, sees_all_tenants, metered_limits, modules };
    let changes = changes(plan, &known, &manager, &finalizers::manager_of(""), context.clock.now());
    let plans = Api::<TenantPlan>::all(context.client.clone());
    // The finalizer is added before the status reports users, and released after it reports none.
    if changes.guard == Some(true) {
        deleted_is_fine(finalizers::claim_as(&manager, &plans, plan).await)?;
    }
    if let Some(status) = &changes.status {
        apply_status(&plans, plan, status).await?;
    }
    for former in &changes.abandoned {
        finalizers::release_as(former, &plans, plan).await?;
        info!(plan = plan.name_any(), manager = former, "finalizer of a former installation released");
    }
    if changes.guard == Some(false) {
        finalizers::release_as(&manager, &plans, plan).await?;
        info!(plan = plan.name_any(), "no tenant is on the plan any more: finalizer released");
    }
    Ok(())
}

/// A plan that was deleted, or deleted and created again, needs no finalizer.
fn deleted_is_fine(written: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match written {
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        other => other,
    }
}
