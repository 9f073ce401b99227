//! Migration logins that were left: their run ended with its process, or an administrator passed one on. They are taken away
//! as soon as the drift check sees them.

use std::{collections::HashSet, sync::Arc, time::Duration};

use kube::ResourceExt;
use tokio::time::timeout;
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    api::{tenant::Tenant, tenant_status::TenantState},
    controller::{context::Context, state::servers::ServerState, watch::requeue::requeue_tenant},
    domain::{identity::TenantId, migration_login::stale_logins, modules::ModuleKind, spec::is_paused},
    postgres::catalog::inventory::Inventory,
};

/// How long one login may take. The next check tries again.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Takes the stale migration logins of a server away, and has those of pipelines made again that are missing.
pub fn close_stale(server: &str, inventory: &Inventory, context: &Context) {
    let found = inventory.migration_logins();
    let pipelines = pipelines(server, context);
    let standing = pipelines.iter().map(|(id, _)| id.0);
    let runs: HashSet<Uuid> = context.state.runs.ids().into_iter().chain(standing).collect();
    for (id, tenant) in pipelines {
        let is_missing = !is_paused(&tenant) && !found.iter().any(|login| login.run == id.0);
        if is_missing && context.state.reports.login_missing(id) {
            requeue_tenant(&tenant.namespace().unwrap_or_default(), &tenant.name_any(), context);
        }
    }
    let stale: Vec<String> =
        stale_logins(&found, &runs).into_iter().map(|login| login.name.clone()).collect();
    let ServerState::Ready(handle) = context.state.servers.get(server) else { return };
    if stale.is_empty() {
        return;
    }
    let server = server.to_owned();
    // Beside the check: the sessions of a login take some time to end.
    tokio::spawn(async move {
        for login in stale {
            match timeout(LOGIN_TIMEOUT, handle.close_migration_login(&login)).await {
                Ok(Ok(reassigned)) => {
                    info!(server, login, ?reassigned, "took a migration login away that was left");
                }
                Ok(Err(error)) => warn!(server, login, %error, "could not take a migration login away"),
                Err(_) => warn!(server, login, "could not take a migration login away: no answer in time"),
            }
        }
    });
}

/// The tenants of a server that have a module whose migrations a team's own pipeline applies.
fn pipelines(server: &str, context: &Context) -> Vec<(TenantId, Arc<Tenant>)> {
    let known = context.modules.known();
    let external = known.list().iter().filter(|module| module.kind == ModuleKind::External);
    let external: Vec<&str> = external.map(|module| module.name.as_str()).collect();
    if external.is_empty() {
        return Vec::new();
    }
    let has_pipeline = |tenant: Arc<Tenant>| {
        let status = tenant.status.as_ref()?;
        let in_use = [TenantState::Active, TenantState::Trial, TenantState::Suspended];
        let is_migrated = status.modules.iter().any(|module| external.contains(&module.name.as_str()));
        let is_here = status.server.as_deref() == Some(server)
            && status.state.is_some_and(|state| in_use.contains(&state));
        let id = Uuid::try_parse(status.tenant_id.as_deref()?).ok()?;
        (is_here && is_migrated).then_some((TenantId(id), tenant))
    };
    context.stores.scopes.tenants().into_iter().filter_map(has_pipeline).collect()
}
