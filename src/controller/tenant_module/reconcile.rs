//! Keeps the statuses of modules, and stops and continues their rollouts. Tenants are counted from memory, for all modules at
//! once: many changes lead to one write in two seconds per module, and quiet times to none.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kube::{Api, Resource, ResourceExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    status::{next_status, same},
    wake::wake_tenants,
};
use crate::{
    api::{
        conditions::{READY, find_condition},
        tenant_module::TenantModule,
    },
    controller::{
        apply_status::apply_status,
        context::{Context, SharedContext},
    },
    domain::{backoff, module_status::ModuleAdoption},
    traces,
};

/// The least time between two writes to a module.
const PERIOD: Duration = Duration::from_secs(2);

/// Reconciles the modules whenever something changed, until `shutdown`.
pub async fn run(context: SharedContext, shutdown: CancellationToken) {
    if !context.stores.scopes.are_known(&shutdown).await {
        return;
    }
    let mut failures = 0;
    loop {
        let done = traces::reconcile("TenantModule", "", "", reconcile_all(&context)).await;
        failures = if done { 0 } else { failures + 1 };
        let quiet = async {
            sleep(PERIOD).await;
            let changed = context.state.modules.status_changed.notified();
            if failures == 0 {
                changed.await;
            } else {
                let _ = timeout(backoff::temporary(failures, rand::random()), changed).await;
            }
        };
        if shutdown.run_until_cancelled(quiet).await.is_none() {
            return;
        }
    }
}

/// Reconciles all modules. Returns whether every write succeeded.
async fn reconcile_all(context: &Context) -> bool {
    let tenants = context.stores.scopes.tenants();
    let adopt = |name: &String| ModuleAdoption::of(name, tenants.iter().map(AsRef::as_ref));
    let adoptions: BTreeMap<String, ModuleAdoption> =
        context.modules.known().names().iter().map(|name| (name.clone(), adopt(name))).collect();
    let stopped = adoptions.iter().filter(|(_, adoption)| adoption.is_stopped());
    let resumed = context.state.modules.stop(stopped.map(|(name, _)| name.clone()).collect());
    if !resumed.is_empty() {
        wake_tenants(&resumed.into_iter().collect::<BTreeSet<_>>(), context);
    }
    context
        .metrics
        .modules_behind(adoptions.iter().map(|(name, adoption)| (name.as_str(), adoption.tenants.behind)));
    let mut done = true;
    for module in context.stores.tenant_modules.state() {
        let name = module.name_any();
        let adoption = adoptions.get(&name).cloned().unwrap_or_else(|| adopt(&name));
        if let Err(error) = reconcile(&module, &adoption, context).await {
            warn!(module = name, %error, "failed to update TenantModule status");
            done = false;
        }
    }
    done
}

async fn reconcile(
    module: &TenantModule,
    adoption: &ModuleAdoption,
    context: &Context,
) -> Result<(), kube::Error> {
    let name = module.name_any();
    // The next evaluation reads it.
    let Some(report) = context.state.modules.report_of(&name) else { return Ok(()) };
    let conditions = module.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let shown = find_condition(conditions, READY).filter(|ready| ready.status == "False");
    let shown = shown.map(|ready| ready.message.as_str());
    if let Some(refusal) = context.state.modules.announce(&name, &report.content, shown) {
        let about = module.object_ref(&());
        context.events.warning(about, "CheckContent", refusal.reason(), refusal.to_string());
    }
    let accepted = context.state.modules.accepted(&name);
    let metered = context.modules.known().module(&name).map(|module| module.metered_limits());
    let status = next_status(module, &report, accepted.as_ref(), metered, adoption, context.clock.now());
    if module.status.as_ref().is_some_and(|before| same(before, &status)) {
        return Ok(());
    }
    apply_status(&Api::<TenantModule>::all(context.client.clone()), module, &status).await.map(drop)
}
