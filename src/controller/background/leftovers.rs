//! Leftovers on the servers: what has the ownership comment of a tenant that is deprovisioned, or that the registry does not
//! know, loses its access and is reported, by the condition `Leftovers` of its DatabaseServer, an Event and metrics.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use kube::Resource;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::{
    api::reason::Reason,
    controller::{
        context::{Context, SharedContext},
        state::servers::ServerState,
        watch::guarded::StatusTenant,
    },
    domain::{
        breaker::BreakerState,
        claims::Claims,
        identity::TenantId,
        leftovers::{FormerOwner, Frozen, Leftover, UnknownTenants, report, to_cut},
    },
    postgres::catalog::inventory::Inventory,
    registry::{Error, KnownTenant},
};

/// How long one attempt to cut off may take.
const CUT_TIMEOUT: Duration = Duration::from_secs(20);

/// How many unknown tenants on one server are cut off at most, where the breaker of mass deletions is turned off.
const MOST_UNKNOWN: usize = 10;

/// Finds the leftovers of the servers that were read, cuts off those that have access, and reports all of them. `accounted`
/// are the tenants that may have a database. The registry is asked only about others.
pub async fn check(
    inventories: &HashMap<&str, Inventory>,
    accounted: &HashSet<TenantId>,
    context: &SharedContext,
) -> Result<(), Error> {
    let marked: HashMap<&str, _> =
        inventories.iter().map(|(server, inventory)| (*server, inventory.marked(accounted))).collect();
    let ids: HashSet<TenantId> = marked.values().flatten().map(|found| found.tenant).collect();
    // Asked after the servers were read: a tenant is registered before anything is created for it.
    let (known, claims) = match ids.is_empty() {
        true => (HashMap::new(), Claims::default()),
        false => {
            let known = context.registry.known(&ids.into_iter().collect::<Vec<_>>()).await?;
            (known, context.stores.scopes.claims())
        }
    };
    let invalid_claims = invalid_claims(context);
    let is_claimed =
        |tenant: TenantId| claims.include(tenant) || invalid_claims.contains(&tenant.to_string());
    let unknown = unknown_tenants(accounted.len(), context);
    let (mut databases, mut logins) = (0, 0);
    for (server, found) in marked {
        let all = leftovers(found, &known, is_claimed);
        databases += all.iter().map(|leftover| leftover.databases.len()).sum::<usize>();
        logins += all.iter().map(|leftover| leftover.logins.len()).sum::<usize>();
        for leftover in to_cut(&all, unknown) {
            cut(server, leftover, context);
        }
        publish(server, report(&all, unknown), context);
    }
    context.metrics.leftovers(databases, logins);
    Ok(())
}

/// Those that belong to no tenant. The Tenant of one that lost its row reports that itself, and keeps its access.
fn leftovers(
    found: Vec<Leftover>,
    known: &HashMap<TenantId, KnownTenant>,
    is_claimed: impl Fn(TenantId) -> bool,
) -> Vec<Leftover> {
    let all = found.into_iter().filter_map(|leftover| match known.get(&leftover.tenant) {
        Some(KnownTenant::Dropped) => Some(Leftover { owner: FormerOwner::Deprovisioned, ..leftover }),
        Some(KnownTenant::Other) => None,
        None if is_claimed(leftover.tenant) => None,
        None => Some(leftover),
    });
    // In a fixed order, so that the report of the same leftovers is the same.
    all.map(|leftover| (leftover.tenant.0, leftover)).collect::<BTreeMap<_, _>>().into_values().collect()
}

/// The ids in the statuses of Tenants that cannot be decoded.
fn invalid_claims(context: &Context) -> HashSet<String> {
    let statuses = context.stores.scopes.invalid_statuses().into_iter();
    let ids = statuses.filter_map(|status| match status {
        StatusTenant::Id(id) => Some(id),
        StatusTenant::None | StatusTenant::Unreadable => None,
    });
    ids.collect()
}

/// As many as the breaker tolerates deletions, and none while it is open, or while the status of a Tenant that cannot be
/// decoded cannot be read either: it may be that of an unknown one.
fn unknown_tenants(tenants: usize, context: &Context) -> UnknownTenants {
    let most = context.state.breaker.thresholds().map_or(MOST_UNKNOWN, |thresholds| {
        let share = tenants.saturating_mul(thresholds.percent as usize) / 100;
        share.max(thresholds.minimum as usize)
    });
    let is_closed = matches!(context.state.breaker.state(), BreakerState::Closed | BreakerState::Disabled);
    let frozen = if !is_closed {
        Some(Frozen::BreakerOpen)
    } else if context.stores.scopes.invalid_statuses().contains(&StatusTenant::Unreadable) {
        Some(Frozen::UnreadableTenant)
    } else {
        None
    };
    UnknownTenants { most, frozen }
}

/// Cuts one off, beside the check: its sessions may take long to end.
fn cut(server: &str, leftover: &Leftover, context: &SharedContext) {
    let ServerState::Ready(handle) = context.state.servers.get(server) else { return };
    if !context.state.leftovers.begin(server, leftover.tenant) {
        return;
    }
    let (server, leftover, context) = (server.to_owned(), leftover.clone(), context.clone());
    tokio::spawn(async move {
        let tenant = leftover.tenant.to_string();
        let result = timeout(CUT_TIMEOUT, handle.for_restriction().cut_leftover(&leftover)).await;
        let failure = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        context.state.leftovers.ended(&server, leftover.tenant, failure.is_some());
        let Some(failure) = failure else {
            info!(server, tenant, "what a former tenant left on the server has lost its access");
            return;
        };
        warn!(server, tenant, failure, "could not revoke the access to what a former tenant left");
        if let Some(resource) = context.database_server(&server) {
            let note = format!(
                "the access to what tenant {tenant} left on the server could not be revoked: {failure}; revoke it by hand"
            );
            context.events.warning(resource.object_ref(&()), "CutLeftovers", Reason::LeftoverNotCut, note);
        }
    });
}

/// Shows the report on the DatabaseServer, if it changed.
fn publish(server: &str, report: Option<(Reason, String)>, context: &Context) {
    if !context.state.leftovers.set_report(server, report.as_ref()) {
        return;
    }
    context.state.servers.request_check(server);
    let Some((reason, message)) = report else { return };
    warn!(server, message, "the server has leftovers of tenants");
    if let Some(resource) = context.database_server(server) {
        context.events.warning(resource.object_ref(&()), "CutLeftovers", reason, message);
    }
}
