//! Tenants that nobody uses, where their plan asks for it: PostgreSQL's own counts are looked at once an hour, one query
//! per server; who is idle for long is warned of, then held.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{failure::StepError, holds::place};
use crate::{
    api::{
        plan::Inactivity,
        tenant::{SuspensionTrigger, Tenant},
    },
    controller::{
        context::{Context, SharedContext},
        servers::Standing,
    },
    domain::{
        access::AccessLevel,
        hold::{Hold, INACTIVITY, Party, requested_resume},
        identity::TenantId,
        inactivity::{Verdict, verdict},
    },
    postgres::{server::Server, usage::SessionCount},
    registry::{SessionsSeen, TenantRow},
};

/// How often it is looked.
const PERIOD: SignedDuration = SignedDuration::from_hours(1);

/// When it is looked first: not while everything else begins.
const FIRST: SignedDuration = SignedDuration::from_secs(60);

/// How often the clock is asked whether it is time.
const TICK: std::time::Duration = std::time::Duration::from_secs(1);

/// Looks until `shutdown`.
pub async fn run(context: SharedContext, shutdown: CancellationToken) {
    let mut next = context.clock.now() + FIRST;
    let mut own = HashMap::new();
    let mut ticks = tokio::time::interval(TICK);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let now = context.clock.now();
        if now < next {
            continue;
        }
        next = now + PERIOD;
        if let Err(error) = look(&context, &mut own).await {
            warn!(%error, "whether tenants are used was not looked at");
        }
    }
}

/// A tenant whose plan cares whether it is used.
struct Watched {
    tenant: std::sync::Arc<Tenant>,
    row: TenantRow,
    policy: Inactivity,
}

async fn look(context: &SharedContext, own: &mut HashMap<TenantId, i64>) -> Result<(), StepError> {
    let watched = watched(context).await?;
    let mut seen = Vec::new();
    let servers: BTreeSet<&str> = watched.iter().map(|watched| watched.row.server.as_str()).collect();
    let mut counted: HashMap<String, (Server, HashMap<String, SessionCount>)> = HashMap::new();
    for name in servers {
        let Standing::Ready(server) = context.servers.get(name) else { continue };
        match server.session_counts().await {
            Ok(counts) => drop(counted.insert(name.to_owned(), (server, counts))),
            Err(error) => warn!(server = name, %error, "sessions were not counted on this server"),
        }
    }
    let now = context.clock.now();
    for Watched { tenant, row, policy } in &watched {
        let Some((server, counts)) = counted.get(&row.server) else { continue };
        let Some(count) = counts.get(&row.database_name) else { continue };
        let own_now = server.own_sessions(row.id, &row.database_name);
        // What this process did before its first look was no use that anybody made of it either.
        let own_before = own.insert(row.id, own_now).unwrap_or_default();
        // Nothing is known of the time before the first look: it counts from there.
        let used = row.sessions_seen.is_none() || is_used(row, count, own_now - own_before);
        if used || row.sessions_seen != Some(count.sessions) {
            seen.push(SessionsSeen { tenant: row.id, sessions: count.sessions, used });
        }
        if !used && let Err(error) = judge(tenant, row, policy, now, context).await {
            warn!(tenant = tenant.name_any(), %error, "what nobody uses is looked at again later");
        }
    }
    context.registry.record_sessions(&seen, now).await?;
    Ok(())
}

/// Whether somebody had a session since the last look. Statistics that were reset say nothing, which counts as use.
fn is_used(row: &TenantRow, count: &SessionCount, own: i64) -> bool {
    let connected = count.connected.contains(&row.login_name);
    let others = row.sessions_seen.is_some_and(|seen| count.sessions < seen || count.sessions - seen > own);
    connected || others
}

/// The tenants in use whose plan says what follows when nobody uses them.
async fn watched(context: &Context) -> Result<Vec<Watched>, StepError> {
    let policy = |row: &TenantRow| context.plan(&row.plan)?.spec.inactivity.clone();
    if !context.plans.state().iter().any(|plan| plan.spec.inactivity.is_some()) {
        return Ok(Vec::new());
    }
    let rows = context.registry.all_living().await?;
    let watched = rows.into_iter().filter(|row| row.status.was_active()).filter_map(|row| {
        let policy = policy(&row)?;
        let tenant = context.scopes.tenant(&row.resource_namespace, &row.resource_name)?;
        let let_in = context.standing(&tenant, Some(&row), None).access > AccessLevel::Blocked;
        let_in.then_some(Watched { tenant, row, policy })
    });
    Ok(watched.collect())
}

async fn judge(
    tenant: &Tenant,
    row: &TenantRow,
    policy: &Inactivity,
    now: Timestamp,
    context: &SharedContext,
) -> Result<(), StepError> {
    if row.holds.iter().any(|hold| hold.name == INACTIVITY) {
        return Ok(());
    }
    // Whoever was let in again has its time from then on.
    let since = [row.last_session_at, row.activated_at, Some(row.status_updated_at)];
    let used_at = since.into_iter().flatten().max().unwrap_or(now);
    match verdict(policy, used_at, row.inactivity_warned_at, now) {
        Verdict::Nothing => Ok(()),
        Verdict::Warn(held_at) => {
            let then = held_at.map_or_else(String::new, |at| format!("; it is held from {at} on"));
            let note = format!("nobody has used the tenant since {used_at}{then}");
            context.events.warning(tenant.object_ref(&()), "Warn", "Inactive", note);
            Ok(context.registry.warned_of_inactivity(row.id, now).await?)
        }
        Verdict::Hold => hold(tenant, row, used_at, now, context).await,
    }
}

async fn hold(
    tenant: &Tenant,
    row: &TenantRow,
    used_at: Timestamp,
    now: Timestamp,
    context: &SharedContext,
) -> Result<(), StepError> {
    let whose = (row.resource_namespace.clone(), row.resource_name.clone());
    let _turn = context.turns.take(whose).await;
    let hold = Hold {
        name: INACTIVITY.to_owned(),
        mode: None,
        trigger: Some(SuspensionTrigger::Inactivity),
        reason: format!("nobody has used the tenant since {used_at}"),
        since: now,
        party: Party::Tenantry { plan: tenant.spec.plan.clone(), resume: requested_resume(tenant) },
    };
    let Some(mut row) = context.registry.by_id(row.id).await?.filter(|now| now.status == row.status) else {
        return Ok(());
    };
    place(&mut row, hold, context).await?;
    info!(tenant = tenant.name_any(), %used_at, "a tenant that nobody uses is held");
    context.wake(&row.resource_namespace, &row.resource_name);
    Ok(())
}
