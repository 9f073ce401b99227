//! Usage: how much tenants use of what their plans limit. One query per server and period tells who wrote anything; only
//! of those, and of each once an hour, the size is looked at; only into their databases goes a session, to read the
//! counters. So a tenant that nobody uses is not woken. What is measured goes to the registry; the tenant is visited when
//! its status would say something new, or when its storage is full, or has room again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use k8s_openapi::jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use kube::ResourceExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    failure::StepError,
    limits::{in_force, is_held, is_news, near},
    reclaim::{Full, Reclaims},
};
use crate::{
    api::{tenant::Tenant, tenant_status::TenantState},
    controller::{context::SharedContext, servers::Standing},
    domain::{
        desired::is_paused,
        identity::TenantId,
        limits::{Amounts, CONNECTIONS, STORAGE_BYTES},
        names::login_name,
        quota::{Rung, Warned, rung_of},
    },
    metrics::NearLimit,
    postgres::{server::Server, storage::Asked},
};

/// The most tenants of one server that are looked at in one period: those whose last look was longest ago.
const BATCH: usize = 500;

/// The most of them whose counters are read, each with a session of its own.
const COUNTED: usize = 50;

/// How often a size is looked at although nobody wrote: it also shrinks, and statistics may lag.
const IDLE: SignedDuration = SignedDuration::from_hours(1);

/// How often the clock is asked whether it is time.
const TICK: Duration = Duration::from_secs(1);

/// How long one server may take: the others are looked at meanwhile, and again after that.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is known of a tenant from one period to the next.
#[derive(Default)]
struct Seen {
    /// When it was looked at last.
    looked_at: Option<Timestamp>,
    /// How much had been written then.
    written: Option<i64>,
    /// How much had been deleted then.
    deleted: Option<i64>,
    /// When its size was looked at last.
    sized_at: Option<Timestamp>,
    /// When its counters were read last by this process, or could not be.
    counted_at: Option<Timestamp>,
    /// How much had been written then, and how many sessions of others had begun; before that, at the first look.
    counted: Option<(i64, i64)>,
    /// What it was found to use, each at its time.
    amounts: Amounts,
    /// What of that is in the registry, and for which day.
    recorded: BTreeMap<String, (i64, Date)>,
}

impl Seen {
    /// Whether its size is looked at although nobody seems to have written: a transaction that is open does not show, nor
    /// does what vacuum gives back.
    fn is_due(&self, target: &Target, now: Timestamp) -> bool {
        let limits = target.tenant.status.as_ref().map(in_force).unwrap_or_default();
        let rung = |used: &i64| rung_of(STORAGE_BYTES, *used, &limits, &Warned::new());
        target.held
            || self.amounts.get(CONNECTIONS).is_some_and(|sessions| *sessions > 0)
            || self.amounts.get(STORAGE_BYTES).is_some_and(|used| rung(used) > Rung::Fine)
            || self.sized_at.is_none_or(|at| now.duration_since(at) >= IDLE)
    }
}

/// By server, then by tenant.
type Memory = BTreeMap<String, HashMap<TenantId, Seen>>;

/// A tenant to be looked at, by its status.
#[derive(Clone)]
struct Target {
    tenant: Arc<Tenant>,
    id: TenantId,
    database: String,
    login: String,
    /// Its storage is full: it is looked at every time.
    held: bool,
    /// Its counters can be read: what makes them is applied, and nobody wants it left alone.
    is_counted: bool,
}

/// Looks until `shutdown`.
pub async fn run(context: SharedContext, shutdown: CancellationToken) {
    let mut memory = Memory::new();
    let reclaims = Reclaims::default();
    let mut next = context.clock.now() + context.usage_interval;
    let mut ticks = tokio::time::interval(TICK);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let now = context.clock.now();
        if now < next {
            continue;
        }
        next = now + context.usage_interval;
        if shutdown.run_until_cancelled(look(&context, &mut memory, &reclaims)).await.is_none() {
            return;
        }
    }
}

async fn look(context: &SharedContext, memory: &mut Memory, reclaims: &Reclaims) {
    let mut by_server: BTreeMap<String, Vec<Target>> = BTreeMap::new();
    for tenant in context.scopes.tenants() {
        if let Some((server, target)) = target(&tenant) {
            by_server.entry(server).or_default().push(target);
        }
    }
    memory.retain(|server, _| by_server.contains_key(server));
    for (server, targets) in &by_server {
        let known: std::collections::HashSet<TenantId> = targets.iter().map(|target| target.id).collect();
        memory.entry(server.clone()).or_default().retain(|id, _| known.contains(id));
    }
    let looks = memory.iter_mut().filter_map(|(name, seen)| {
        let Standing::Ready(server) = context.servers.get(name) else { return None };
        let targets = by_server.get(name)?;
        Some(async move {
            match timeout(PATIENCE, look_at(context, &server, targets, seen)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(server = name, %error, "usage was not sampled on this server"),
                Err(_) => warn!(server = name, "usage was not sampled on this server: no answer in time"),
            }
            for Target { tenant, id, database, .. } in targets.iter().filter(|target| target.held) {
                let deleted = seen.get(id).and_then(|seen| seen.deleted);
                let full = Full { tenant: tenant.clone(), id: *id, database: database.clone(), deleted };
                reclaims.want(context, name, &server, full);
            }
        })
    });
    join_all(looks).await;
    reclaims.retain(|id| by_server.values().flatten().any(|target| target.held && target.id == *id));
    let near = by_server.iter().flat_map(|(server, targets)| {
        let seen = memory.get(server);
        targets.iter().flat_map(move |target| {
            let amounts = seen.and_then(|seen| seen.get(&target.id)).map(|seen| &seen.amounts);
            tell(target, amounts.unwrap_or(&Amounts::new()))
        })
    });
    context.metrics.near_limits(near);
}

/// A tenant in use, by what its status says: nothing else is asked.
fn target(tenant: &Arc<Tenant>) -> Option<(String, Target)> {
    let status = tenant.status.as_ref()?;
    let in_use = [TenantState::Active, TenantState::Trial, TenantState::Suspended];
    if !status.state.is_some_and(|state| in_use.contains(&state))
        || tenant.metadata.deletion_timestamp.is_some()
    {
        return None;
    }
    let id = TenantId(uuid::Uuid::try_parse(status.tenant_id.as_deref()?).ok()?);
    let database = status.database.clone()?;
    let login = login_name(&database);
    let held = is_held(status);
    let is_counted =
        !is_paused(tenant) && status.modules.iter().all(|module| module.version >= module.target);
    let server = status.server.clone()?;
    Some((server, Target { tenant: tenant.clone(), id, database, login, held, is_counted }))
}

fn tell(target: &Target, amounts: &Amounts) -> Vec<NearLimit> {
    let Some(status) = &target.tenant.status else { return Vec::new() };
    let told = |(limit, ratio)| NearLimit {
        namespace: target.tenant.namespace().unwrap_or_default(),
        tenant: target.tenant.name_any(),
        limit,
        ratio,
    };
    near(status, amounts).into_iter().map(told).collect()
}

async fn look_at(
    context: &SharedContext,
    server: &Server,
    targets: &[Target],
    seen: &mut HashMap<TenantId, Seen>,
) -> Result<(), StepError> {
    let now = context.clock.now();
    // One that was just handed out is looked at a period later, when the statistics of its making are in.
    let settled = |target: &&Target| {
        let changed_at = target.tenant.status.as_ref().and_then(|status| status.state_updated_at.as_ref());
        let age = changed_at.map_or(SignedDuration::MAX, |at| now.duration_since(at.0));
        seen.contains_key(&target.id) || age >= context.usage_interval
    };
    let mut batch: Vec<&Target> = targets.iter().filter(settled).collect();
    batch.sort_by_key(|target| (!target.held, seen.get(&target.id).and_then(|seen| seen.looked_at)));
    batch.truncate(BATCH);
    let asked: Vec<Asked<'_>> = batch
        .iter()
        .map(|target| {
            let seen = seen.entry(target.id).or_default();
            let due = seen.is_due(target, now);
            Asked { database: &target.database, login: &target.login, written: seen.written, due }
        })
        .collect();
    let samples = server.sample(&asked, &context.modules).await?;
    let mut measured = HashMap::new();
    let mut changed = Vec::new();
    for target in &batch {
        let (Some(sample), Some(seen)) = (samples.get(&target.database), seen.get_mut(&target.id)) else {
            continue;
        };
        seen.looked_at = Some(now);
        (seen.written, seen.deleted) = (Some(sample.written), Some(sample.deleted));
        let mut amounts = Amounts::from([(CONNECTIONS.to_owned(), sample.connections)]);
        if let Some(bytes) = sample.bytes {
            amounts.insert(STORAGE_BYTES.to_owned(), bytes);
            seen.sized_at = Some(now);
        }
        measured.insert(target.id, amounts);
        let others = sample.sessions - server.own_sessions(&target.database);
        let now_found = (sample.written, others);
        let (written, sessions) = *seen.counted.get_or_insert(now_found);
        let is_used = sample.connections > 0 || sessions != others;
        let long_ago = seen.counted_at.or(shown_at(target)).is_none_or(|at| now.duration_since(at) >= IDLE);
        // Without anybody there, it was written by autovacuum; or statistics are late, which an hour later they are not.
        let may_have_changed = written != sample.written && (is_used || long_ago);
        if target.is_counted && (may_have_changed || seen.counted_at.is_none() && long_ago) {
            changed.push((seen.counted_at, now_found, *target));
        }
    }
    changed.sort_by_key(|(counted_at, ..)| *counted_at);
    for (_, found, target) in changed.into_iter().take(COUNTED) {
        match server.read_counters(target.id, &target.database).await {
            Ok(counters) => measured.entry(target.id).or_default().extend(counters),
            Err(error) => warn!(tenant = target.tenant.name_any(), %error, "its counters were not read"),
        }
        // One that cannot be read takes nobody else's place.
        let seen = seen.entry(target.id).or_default();
        (seen.counted_at, seen.counted) = (Some(now), Some(found));
    }
    for (id, amounts) in &measured {
        seen.entry(*id).or_default().amounts.extend(amounts.clone());
    }
    record(context, &batch, &measured, seen, now).await
}

/// When what the status shows was measured, maybe by another process.
fn shown_at(target: &Target) -> Option<Timestamp> {
    Some(target.tenant.status.as_ref()?.usage.as_ref()?.measured_at.as_ref()?.0)
}

/// Writes down what was measured just now and has changed, or is the first of a new day; then visits those of whom there is
/// news. What was measured earlier says nothing here: a visit may have measured since.
async fn record(
    context: &SharedContext,
    batch: &[&Target],
    measured: &HashMap<TenantId, Amounts>,
    seen: &mut HashMap<TenantId, Seen>,
    now: Timestamp,
) -> Result<(), StepError> {
    let today = now.to_zoned(TimeZone::UTC).date();
    let mut changed: Vec<(TenantId, Amounts)> = Vec::new();
    for (id, amounts) in measured {
        let Some(seen) = seen.get(id) else { continue };
        let is_new = |(name, amount): &(&String, &i64)| seen.recorded.get(*name) != Some(&(**amount, today));
        let new: Amounts =
            amounts.iter().filter(is_new).map(|(name, amount)| (name.clone(), *amount)).collect();
        if !new.is_empty() {
            changed.push((*id, new));
        }
    }
    context.registry.record_usage(&changed, now).await?;
    for (id, amounts) in changed {
        let recorded = amounts.into_iter().map(|(name, amount)| (name, (amount, today)));
        seen.entry(id).or_default().recorded.extend(recorded);
    }
    for target in batch {
        let Some(amounts) = measured.get(&target.id) else { continue };
        // As it was written last: the copy at hand may be older.
        let status = context.written.newest(&target.tenant);
        if !is_paused(&target.tenant) && is_news(&status, amounts) {
            // What was read at start-up is older than this.
            context.bulk.forget(&target.tenant.uid().unwrap_or_default());
            // One that failed still waits as long as it has to; what is to be taken from it does not wait.
            context.scopes.visit(&target.tenant.namespace().unwrap_or_default(), &target.tenant.name_any());
        }
    }
    Ok(())
}
