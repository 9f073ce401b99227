//! Templates of older releases, and of modules that no plan names any more: dropped one at a time, since a drop makes the
//! server write a checkpoint. Scratch databases that interrupted rehearsals left are dropped with them. No tenant depends on them: a tenant's database is a copy.

use std::{collections::HashSet, time::Duration};

use futures::future::join_all;
use kube::ResourceExt;
use tracing::{info, warn};

use crate::{
    controller::{
        context::{Context, SharedContext},
        state::servers::ServerState,
        tenant::evaluate::modules_in_status,
    },
    domain::modules::{ModuleWishes, choose},
};

/// How often one template of each server may be dropped. The first time is not at the start, when all tenants are reconciled.
const PERIOD: Duration = Duration::from_secs(600);

/// Drops until it is dropped.
pub async fn run(context: SharedContext) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let needed = needed_digests(&context);
        let servers = context.stores.database_servers.state();
        join_all(servers.iter().map(|server| drop_one(server.name_any(), &needed, &context))).await;
    }
}

async fn drop_one(name: String, needed: &HashSet<String>, context: &Context) {
    let ServerState::Ready(server) = context.state.servers.get(&name) else { return };
    match server.drop_old_scratch().await {
        Ok(dropped) if dropped.is_empty() => {}
        Ok(dropped) => info!(server = name, ?dropped, "dropped what interrupted rehearsals left"),
        Err(error) => warn!(server = name, %error, "could not drop what an interrupted rehearsal left"),
    }
    match server.drop_old_template(needed).await {
        Ok(None) => {}
        Ok(Some(template)) => {
            info!(server = name, template, "dropped a template that no new tenant is cloned from")
        }
        Err(error) => warn!(server = name, %error, "could not drop a template that no tenant needs"),
    }
}

/// The digests of the sets of modules that new tenants would have, and those that tenants have: the size of a template is
/// subtracted from that of a database.
fn needed_digests(context: &Context) -> HashSet<String> {
    let plans = context.stores.plans.state();
    let known = context.modules.known();
    let of_list = |of_plan: &[String]| {
        let wishes = ModuleWishes { tenant: &[], plan: "", of_plan };
        context.modules.set_of(&choose(wishes, &[], known.list()).modules)
    };
    let of_plans = plans.iter().map(|plan| of_list(&plan.spec.modules));
    let tenants = context.stores.scopes.tenants();
    let of_tenants = tenants
        .iter()
        .filter_map(|tenant| Some(context.modules.set_of(&modules_in_status(tenant.status.as_ref()?))));
    of_plans
        .chain(of_tenants)
        .map(|set| set.digest().to_owned())
        .chain([of_list(&[]).digest().to_owned()])
        .chain(context.state.runs.building())
        .collect()
}
