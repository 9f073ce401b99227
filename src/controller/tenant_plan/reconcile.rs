//! Keeps the finalizers and the statuses of plans. All of it is counted from memory, for all plans at once, when a tenant
//! or a plan changed: a crowd of new tenants leads to one write in two seconds per plan, and quiet times to none.

use std::{collections::BTreeMap, time::Duration};

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::status::changes;
use crate::{
    api::{
        FINALIZER,
        plan::{TenantPlan, TenantPlanStatus},
    },
    controller::{
        context::{Context, SharedContext},
        finalizers::{self, apply_finalizers_as},
    },
    domain::{
        backoff,
        uptake::{Uptake, uptake},
    },
};

/// Field manager of the status: one for all operators, so that a condition that one of them wrote does not outlive it.
const STATUS_MANAGER: &str = "tenantry/status";

/// No plan is written more often.
const PERIOD: Duration = Duration::from_secs(2);

/// Looks at the plans whenever something changed, until `shutdown`.
pub async fn run(context: SharedContext, shutdown: CancellationToken) {
    // Without all tenants, a plan that is used would look as if it were not.
    if !context.scopes.are_known(&shutdown).await {
        return;
    }
    let mut failures = 0;
    loop {
        failures = if look(&context).await { 0 } else { failures + 1 };
        let quiet = async {
            sleep(PERIOD).await;
            if failures == 0 {
                context.plan_news.notified().await;
            } else {
                let wait = backoff::temporary(failures, rand::random());
                let _ = timeout(wait, context.plan_news.notified()).await;
            }
        };
        if shutdown.run_until_cancelled(quiet).await.is_none() {
            return;
        }
    }
}

/// Looks at all plans. Whether all that is to be written was.
async fn look(context: &Context) -> bool {
    let plans = context.plans.state();
    let specs: BTreeMap<String, _> = plans.iter().map(|plan| (plan.name_any(), &plan.spec)).collect();
    let tenants = context.scopes.tenants();
    let by_plan = uptake(tenants.iter().map(AsRef::as_ref), &specs, context.modules.names(), |tenant| {
        context.rollout.is_awaited(tenant)
    });
    let mut done = true;
    for plan in &plans {
        let name = plan.name_any();
        if let Err(error) = visit(plan, by_plan.get(&name), context).await {
            warn!(plan = name, %error, "a plan could not be told how it stands");
            done = false;
        }
    }
    done
}

async fn visit(plan: &TenantPlan, uptake: Option<&Uptake>, context: &Context) -> Result<(), kube::Error> {
    let manager = finalizers::manager_of(&context.installation.id.to_string());
    let changes = changes(plan, uptake, &manager, &finalizers::manager_of(""), context.clock.now());
    let plans = Api::<TenantPlan>::all(context.client.clone());
    // Guarded before it is told that somebody uses it, and let go after it is told that nobody does.
    if changes.guard == Some(true) {
        gone_is_fine(apply_finalizers_as(&manager, &plans, plan, &[FINALIZER]).await)?;
    }
    if let Some(status) = &changes.status {
        gone_is_fine(write_status(&plans, plan, status).await)?;
    }
    if changes.guard == Some(false) {
        gone_is_fine(apply_finalizers_as(&manager, &plans, plan, &[]).await)?;
        info!(plan = plan.name_any(), "no tenant is on the plan any more");
    }
    Ok(())
}

async fn write_status(
    plans: &Api<TenantPlan>,
    plan: &TenantPlan,
    status: &TenantPlanStatus,
) -> Result<(), kube::Error> {
    let patch = json!({
        "apiVersion": TenantPlan::api_version(&()),
        "kind": TenantPlan::kind(&()),
        "metadata": {"name": plan.name_any(), "uid": plan.uid()},
        "status": status,
    });
    let params = PatchParams::apply(STATUS_MANAGER).force();
    plans.patch_status(&plan.name_any(), &params, &Patch::Apply(patch)).await.map(|_| ())
}

/// A plan that went, or was made anew, meanwhile needs nothing.
fn gone_is_fine(written: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match written {
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        other => other,
    }
}
