//! The inactivity check, for tenants whose plan has an inactivity policy: PostgreSQL's session counts are read once an hour,
//! one query per server. A tenant that is idle for long is reported, then held.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};
use tracing::{info, warn};

use crate::{
    api::{
        plan::Inactivity,
        reason::Reason,
        tenant::{SuspensionTrigger, Tenant},
    },
    controller::{
        context::{Context, SharedContext},
        state::servers::ServerState,
        tenant::{
            evaluate,
            failure::StepError,
            holds::{Placer, place},
        },
        tenant_account::in_force::in_force,
        watch::requeue::requeue_tenant,
    },
    domain::{
        access::{
            AccessLevel,
            holds::{Hold, INACTIVITY, Party, requested_resume},
            inactivity::{InactivityAction, inactivity_action},
        },
        identity::TenantId,
        record::TenantRecord,
    },
    postgres::{server::Server, tenant::usage::SessionCount},
    registry::SessionSample,
};

/// How often sessions are counted.
const PERIOD: SignedDuration = SignedDuration::from_hours(1);

/// The first count is this long after the start, when everything else has begun.
const FIRST: SignedDuration = SignedDuration::from_secs(60);

/// How often the clock is read.
const TICK: Duration = Duration::from_secs(1);

/// Checks until it is dropped.
pub async fn run(context: SharedContext) {
    let mut next = context.clock.now() + FIRST;
    let mut own = HashMap::new();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let now = context.clock.now();
        if now < next {
            continue;
        }
        next = now + PERIOD;
        if let Err(error) = check(&context, &mut own).await {
            warn!(%error, "could not check which tenants are inactive");
        }
    }
}

/// A tenant whose plan has an inactivity policy.
struct Watched {
    tenant: Arc<Tenant>,
    row: TenantRecord,
    policy: Inactivity,
}

async fn check(context: &SharedContext, own: &mut HashMap<TenantId, i64>) -> Result<(), StepError> {
    let watched = watched(context).await?;
    let mut seen = Vec::new();
    let servers: BTreeSet<&str> =
        watched.iter().map(|watched| watched.row.placement.server.as_str()).collect();
    let mut counted: HashMap<String, (Server, HashMap<String, SessionCount>)> = HashMap::new();
    for name in servers {
        let ServerState::Ready(server) = context.state.servers.get(name) else { continue };
        match server.session_counts().await {
            Ok(counts) => drop(counted.insert(name.to_owned(), (server, counts))),
            Err(error) => warn!(server = name, %error, "could not count the sessions on this server"),
        }
    }
    let now = context.clock.now();
    for Watched { tenant, row, policy } in &watched {
        let Some((server, counts)) = counted.get(&row.placement.server) else { continue };
        let Some(count) = counts.get(&row.placement.database) else { continue };
        let own_now = server.own_sessions(&row.placement);
        // The sessions of this process are no use by the customer, also those from before its first check.
        let own_before = own.insert(row.id, own_now).unwrap_or_default();
        // Nothing is known of the time before the first check: inactivity counts from there.
        let used = row.sessions_seen.is_none() || is_used(row, count, own_now - own_before);
        if used || row.sessions_seen != Some(count.sessions) {
            seen.push(SessionSample { tenant: row.id, sessions: count.sessions, used });
        }
        if !used && let Err(error) = act(tenant, row, policy, now, context).await {
            warn!(tenant = tenant.name_any(), %error, "could not report or hold an inactive tenant; it is tried again at the next check");
        }
    }
    context.registry.record_sessions(&seen, now).await?;
    Ok(())
}

/// Whether the tenant had a session since the last check. Statistics that were reset prove nothing, which counts as use.
fn is_used(row: &TenantRecord, count: &SessionCount, own: i64) -> bool {
    let connected = row.placement.logins().any(|login| count.connected.iter().any(|found| found == login));
    let others = row.sessions_seen.is_some_and(|seen| count.sessions < seen || count.sessions - seen > own);
    connected || others
}

/// The active tenants with access whose plan has an inactivity policy.
async fn watched(context: &Context) -> Result<Vec<Watched>, StepError> {
    let policy = |row: &TenantRecord| context.plan(&row.plan)?.spec.inactivity.clone();
    if !context.stores.plans.state().iter().any(|plan| plan.spec.inactivity.is_some()) {
        return Ok(Vec::new());
    }
    let rows = context.registry.all_registered().await?;
    let watched = rows.into_iter().filter(|row| row.status.was_active()).filter_map(|row| {
        let policy = policy(&row)?;
        let tenant = context.stores.scopes.tenant(&row.resource_namespace, &row.resource_name)?;
        // A plan that was granted to the customer counts.
        let counted = match in_force(&tenant, Some(&row), context) {
            Cow::Borrowed(_) => None,
            Cow::Owned(counted) => Some(Arc::new(counted)),
        };
        let tenant = counted.unwrap_or(tenant);
        let has_access = evaluate::access(&tenant, Some(&row), None, context).access > AccessLevel::Blocked;
        has_access.then_some(Watched { tenant, row, policy })
    });
    Ok(watched.collect())
}

/// Reports or holds a tenant that was idle for as long as its plan allows.
async fn act(
    tenant: &Tenant,
    row: &TenantRecord,
    policy: &Inactivity,
    now: Timestamp,
    context: &SharedContext,
) -> Result<(), StepError> {
    if row.holds.iter().any(|hold| hold.name == INACTIVITY) {
        return Ok(());
    }
    // A tenant that was granted access again has its full time from then on.
    let since = [row.last_session_at, row.activated_at, Some(row.status_updated_at)];
    let used_at = since.into_iter().flatten().max().unwrap_or(now);
    match inactivity_action(policy, used_at, row.inactivity_warned_at, now) {
        InactivityAction::Nothing => Ok(()),
        InactivityAction::Warn(held_at) => {
            let then = held_at.map_or_else(String::new, |at| format!("; it is held from {at} on"));
            let note = format!("the tenant was not used since {used_at}{then}");
            context.events.warning(tenant.object_ref(&()), "Warn", Reason::Inactive, note);
            context.registry.record_inactivity_warning(row.id, now).await?;
            Ok(())
        }
        InactivityAction::Hold => hold(tenant, row, used_at, now, context).await,
    }
}

async fn hold(
    tenant: &Tenant,
    row: &TenantRecord,
    used_at: Timestamp,
    now: Timestamp,
    context: &SharedContext,
) -> Result<(), StepError> {
    let key = (row.resource_namespace.clone(), row.resource_name.clone());
    let _lock = context.state.tenant_locks.take(key).await;
    let hold = Hold {
        name: INACTIVITY.to_owned(),
        mode: None,
        preserve: None,
        trigger: Some(SuspensionTrigger::Inactivity),
        reason: format!("the tenant was not used since {used_at}"),
        since: now,
        party: Party::Tenantry { plan: tenant.spec.plan.clone(), resume: requested_resume(tenant) },
    };
    let Some(mut row) = context.registry.by_id(row.id).await?.filter(|now| now.status == row.status) else {
        return Ok(());
    };
    place(&mut row, hold, Placer::Operator, context).await?;
    info!(tenant = tenant.name_any(), %used_at, "an inactive tenant is held");
    requeue_tenant(&row.resource_namespace, &row.resource_name, context);
    Ok(())
}
