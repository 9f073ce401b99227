//! Usage: how much tenants use of what their plans limit. One query per server and period tells who wrote anything; only
//! of those, and of each once an hour, the size is looked at; only into their databases goes a session, to read the
//! counters. So a tenant that nobody uses is not woken. What is measured goes to the registry; the tenant is visited when
//! its status would say something new, or when its storage is full, or has room again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::future::join_all;
use k8s_openapi::jiff::{SignedDuration, Timestamp, tz::TimeZone};
use kube::ResourceExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    failure::StepError,
    limits::{in_force, is_held, is_news, near},
    reclaim::{Full, Reclaims},
    sampled::{Counted, Sampled},
};
use crate::{
    api::{tenant::Tenant, tenant_status::TenantState},
    controller::{
        context::{Context, SharedContext},
        servers::Standing,
    },
    domain::{
        desired::is_paused,
        identity::TenantId,
        limits::{Amounts, CONNECTIONS, STORAGE_BYTES},
        names::login_name,
    },
    metrics::NearLimit,
    postgres::{modules::ModuleSet, server::Server, storage::Asked},
};

/// The most tenants of one server that are looked at in one period: those whose last look was longest ago.
const BATCH: usize = 500;

/// The most of them whose counters are read, each with a session of its own.
const COUNTED: usize = 50;

/// How often the clock is asked whether it is time.
const TICK: Duration = Duration::from_secs(1);

/// How long one server may take for the sizes, and for the counters: the others are looked at meanwhile, and again after
/// that.
const PATIENCE: Duration = Duration::from_secs(60);

/// For so long counters are read; there is time left to write them down.
const COUNTING: Duration = Duration::from_secs(30);

/// The tenants whose usage was recorded by somebody else than the sampler: what that remembers is not what the registry
/// has.
#[derive(Default)]
pub struct Recorded(Mutex<HashSet<TenantId>>);

impl Recorded {
    /// One more.
    pub fn add(&self, id: TenantId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    fn take(&self) -> HashSet<TenantId> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is known of all tenants.
#[derive(Default)]
struct Memory {
    /// By server, then by tenant.
    seen: BTreeMap<String, HashMap<TenantId, Sampled>>,
    /// What was written in each when its counters were read by the processes before this one.
    before: Option<HashMap<TenantId, i64>>,
}

/// A tenant to be looked at, by its status.
#[derive(Clone)]
struct Target {
    tenant: Arc<Tenant>,
    id: TenantId,
    database: String,
    login: String,
    /// What an empty tenant's database has.
    modules: Arc<ModuleSet>,
    /// Its storage is full: it is looked at every time.
    held: bool,
    /// Its counters can be read: what makes them is applied, and nobody wants it left alone.
    is_counted: bool,
}

/// Looks until `shutdown`.
pub async fn run(context: SharedContext, shutdown: CancellationToken) {
    let mut memory = Memory::default();
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
        if let Some((server, target)) = target(&tenant, context) {
            by_server.entry(server).or_default().push(target);
        }
    }
    if memory.before.is_none() {
        match timeout(PATIENCE, context.registry.counted()).await {
            Ok(Ok(before)) => memory.before = Some(before),
            Ok(Err(error)) => return warn!(%error, "usage was not sampled"),
            Err(_) => return warn!("usage was not sampled: the registry gave no answer in time"),
        }
    }
    let Memory { seen: memory, before } = memory;
    for id in context.usage_recorded.take() {
        memory.values_mut().filter_map(|seen| seen.get_mut(&id)).for_each(|seen| seen.recorded.clear());
    }
    memory.retain(|server, _| by_server.contains_key(server));
    for (server, targets) in &by_server {
        let memory = memory.entry(server.clone()).or_default();
        let known: HashSet<TenantId> = targets.iter().map(|target| target.id).collect();
        memory.retain(|id, _| known.contains(id));
        for target in targets {
            let written = || before.iter().find_map(|before| before.get(&target.id));
            memory.entry(target.id).or_insert_with(|| Sampled::new(target.tenant.status.as_ref(), written()));
        }
    }
    let looks = memory.iter_mut().filter_map(|(name, seen)| {
        let Standing::Ready(server) = context.servers.get(name) else { return None };
        let targets = by_server.get(name)?;
        Some(async move {
            match timeout(PATIENCE, measure(context, &server, targets, seen)).await {
                Ok(Ok(changed)) => match timeout(PATIENCE, count(context, &server, changed, seen)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => warn!(server = name, %error, "counters were not read on this server"),
                    Err(_) => {
                        warn!(server = name, "counters were not read on this server: no answer in time")
                    }
                },
                Ok(Err(error)) => warn!(server = name, %error, "usage was not sampled on this server"),
                Err(_) => warn!(server = name, "usage was not sampled on this server: no answer in time"),
            }
            for Target { tenant, id, database, modules, .. } in targets.iter().filter(|target| target.held) {
                let deleted = seen.get(id).and_then(|seen| seen.deleted);
                let status = context.written.newest(tenant);
                let limit = in_force(&status).get(STORAGE_BYTES).copied().flatten();
                let (tenant, database, modules) = (tenant.clone(), database.clone(), modules.clone());
                let full = Full { tenant, id: *id, database, modules, deleted, limit };
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
fn target(tenant: &Arc<Tenant>, context: &SharedContext) -> Option<(String, Target)> {
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
    let modules = context.modules.of(|name| status.modules.iter().any(|module| module.name == name));
    let server = status.server.clone()?;
    Some((server, Target { tenant: tenant.clone(), id, database, login, modules, held, is_counted }))
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

/// The next to be looked at. Those that are held, each time: but not so many that nobody else's turn comes.
fn batch<'t>(targets: &'t [Target], seen: &HashMap<TenantId, Sampled>, context: &Context) -> Vec<&'t Target> {
    let now = context.clock.now();
    let looked_at = |target: &Target| seen.get(&target.id).and_then(|seen| seen.looked_at);
    // One that was just handed out is looked at a period later, when the statistics of its making are in.
    let settled = |target: &&Target| {
        let changed_at = target.tenant.status.as_ref().and_then(|status| status.state_updated_at.as_ref());
        let age = changed_at.map_or(SignedDuration::MAX, |at| now.duration_since(at.0));
        looked_at(target).is_some() || age >= context.usage_interval
    };
    let (mut batch, mut others): (Vec<_>, Vec<_>) =
        targets.iter().filter(settled).partition(|target| target.held);
    for part in [&mut batch, &mut others] {
        part.sort_by_key(|target| looked_at(target));
    }
    batch.truncate(BATCH / 2);
    batch.extend(others);
    batch.truncate(BATCH);
    batch
}

/// Looks at the sizes and the sessions of some tenants, and returns those whose counters may have changed. What cannot be
/// written down is looked at again.
async fn measure<'t>(
    context: &SharedContext,
    server: &Server,
    targets: &'t [Target],
    seen: &mut HashMap<TenantId, Sampled>,
) -> Result<Vec<(&'t Target, Counted)>, StepError> {
    let batch = batch(targets, seen, context);
    let now = context.clock.now();
    let asked: Vec<Asked<'_>> = batch
        .iter()
        .map(|target| {
            let seen = seen.entry(target.id).or_default();
            // Whatever comes of it, others are next.
            seen.looked_at = Some(now);
            Asked {
                database: &target.database,
                login: &target.login,
                modules: &target.modules,
                written: seen.written,
                due: target.held || seen.is_due(target.tenant.status.as_ref(), now),
            }
        })
        .collect();
    let samples = server.sample(&asked).await?;
    let mut measured = HashMap::new();
    for target in &batch {
        let Some(sample) = samples.get(&target.database) else { continue };
        let bytes = sample.bytes.map(|bytes| (STORAGE_BYTES.to_owned(), bytes));
        let connections = (CONNECTIONS.to_owned(), sample.connections);
        measured.insert(target.id, Amounts::from_iter(bytes.into_iter().chain([connections])));
    }
    record(context, &batch, &measured, seen, now).await?;
    let (mut changed, mut untouched) = (Vec::new(), Vec::new());
    for target in batch {
        let (Some(sample), Some(seen)) = (samples.get(&target.database), seen.get_mut(&target.id)) else {
            continue;
        };
        (seen.written, seen.deleted) = (Some(sample.written), Some(sample.deleted));
        if sample.bytes.is_some() {
            seen.sized_at = Some(now);
        }
        let others = sample.sessions - server.own_sessions(target.id, &target.database);
        let found = Counted { written: sample.written, others: Some(others) };
        if seen.counted.is_none() && others <= 0 && sample.connections == 0 {
            // Fewer than its own: statistics are late.
            if others == 0 {
                untouched.push((target.id, sample.written));
                // As it was made: that is as good as read.
                (seen.counted, seen.counted_at) = (Some(found), Some(now));
            }
        } else if target.is_counted && seen.may_have_changed(found, sample.connections > 0, now) {
            changed.push((seen.counted_at, target, found));
        }
    }
    context.registry.record_counted(&untouched).await?;
    changed.sort_by_key(|(counted_at, ..)| *counted_at);
    Ok(changed.into_iter().map(|(_, target, found)| (target, found)).take(COUNTED).collect())
}

/// Reads the counters of these tenants, as many as there is time for.
async fn count(
    context: &SharedContext,
    server: &Server,
    changed: Vec<(&Target, Counted)>,
    seen: &mut HashMap<TenantId, Sampled>,
) -> Result<(), StepError> {
    let (begun, now) = (Instant::now(), context.clock.now());
    let mut measured = HashMap::new();
    let mut read = Vec::new();
    for (target, found) in changed {
        let left = COUNTING.saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        // One that cannot be read takes nobody else's place.
        seen.entry(target.id).or_default().counted_at = Some(now);
        match timeout(left, server.read_counters(target.id, &target.database)).await {
            Ok(Ok(counters)) => {
                measured.insert(target.id, counters);
                read.push((target, found));
            }
            Ok(Err(error)) => warn!(tenant = target.tenant.name_any(), %error, "its counters were not read"),
            Err(_) => warn!(tenant = target.tenant.name_any(), "its counters were not read in time"),
        }
    }
    let targets: Vec<&Target> = read.iter().map(|(target, _)| *target).collect();
    record(context, &targets, &measured, seen, now).await?;
    let writes: Vec<(TenantId, i64)> =
        read.iter().map(|(target, found)| (target.id, found.written)).collect();
    context.registry.record_counted(&writes).await?;
    for (target, found) in read {
        seen.entry(target.id).or_default().counted = Some(found);
    }
    Ok(())
}

/// Writes down what was measured just now and has changed, or is the first of a new day; then visits those of whom there is
/// news. What was measured earlier says nothing here: a visit may have measured since.
async fn record(
    context: &SharedContext,
    batch: &[&Target],
    measured: &HashMap<TenantId, Amounts>,
    seen: &mut HashMap<TenantId, Sampled>,
    now: Timestamp,
) -> Result<(), StepError> {
    let today = now.to_zoned(TimeZone::UTC).date();
    let mut changed: Vec<(TenantId, Amounts)> = Vec::new();
    let mut news = Vec::new();
    for target in batch {
        let Some(amounts) = measured.get(&target.id) else { continue };
        // As it was written last: the copy at hand may be older.
        let is_news = !is_paused(&target.tenant) && is_news(&context.written.newest(&target.tenant), amounts);
        if is_news {
            news.push(*target);
        }
        let recorded = seen.get(&target.id).map(|seen| &seen.recorded);
        let is_new = |name: &str, amount: i64| {
            recorded.and_then(|recorded| recorded.get(name)) != Some(&(amount, today))
        };
        // A visit may have recorded something else since: what is news is not what the registry has.
        let new: Amounts = amounts
            .iter()
            .filter(|(name, amount)| is_news || is_new(name, **amount))
            .map(|(name, amount)| (name.clone(), *amount))
            .collect();
        if !new.is_empty() {
            changed.push((target.id, new));
        }
    }
    context.registry.record_usage(&changed, now).await?;
    for (id, amounts) in changed {
        let seen = seen.entry(id).or_default();
        seen.recorded.extend(amounts.iter().map(|(name, amount)| (name.clone(), (*amount, today))));
    }
    for (id, amounts) in measured {
        seen.entry(*id).or_default().amounts.extend(amounts.clone());
    }
    for target in news {
        // What was read at start-up is older than this.
        context.bulk.forget(&target.tenant.uid().unwrap_or_default());
        // One that failed still waits as long as it has to; what is to be taken from it does not wait.
        context.scopes.visit(&target.tenant.namespace().unwrap_or_default(), &target.tenant.name_any());
    }
    Ok(())
}
