//! Usage sampling: how much tenants use of what their plans limit. One query per server and period finds the tenants that
//! wrote something; only of those, and of each once an hour, the size is read; only into their databases goes a session, to
//! read the counters. An idle tenant costs nothing. Samples are recorded in the registry. A tenant is reconciled when its
//! status would change, when its storage is full, or when it has room again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use k8s_openapi::jiff::{SignedDuration, Timestamp, tz::TimeZone};
use kube::ResourceExt;
use tokio::time::timeout;
use tracing::warn;

use super::reclaim::{FullTenant, StorageReclaims};
use crate::{
    api::{
        tenant::Tenant,
        tenant_status::{ModuleState, ModuleStatus, TenantState},
    },
    controller::{
        context::{Context, SharedContext},
        state::servers::ServerState,
        tenant::{evaluate::modules_in_status, failure::StepError},
    },
    domain::{
        identity::TenantId,
        modules::INTERNAL,
        names::login_name,
        placement::Placement,
        spec::is_paused,
        status::usage::{in_force, is_held, near, requires_reconcile},
        usage::{
            entitlements::{Amounts, CONNECTIONS, STORAGE_BYTES},
            sampling::{Counted, Sampled},
        },
    },
    metrics::NearLimit,
    modules::ModuleSet,
    postgres::{server::Server, tenant::storage::SampleRequest},
};

/// The maximum of tenants of one server that are sampled in one period: those whose last sample is the oldest.
const BATCH: usize = 500;

/// The maximum of them whose counters are read, each with a session of its own.
const COUNTED: usize = 50;

/// How often the clock is read.
const TICK: Duration = Duration::from_secs(1);

/// How long one server may take for the sizes, and for the counters. The other servers are sampled at the same time.
const SERVER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long counters are read. The rest of the time is for recording them.
const COUNTING: Duration = Duration::from_secs(30);

/// The samples of all tenants.
#[derive(Default)]
struct UsageMemory {
    /// By server, then by tenant.
    samples: BTreeMap<String, HashMap<TenantId, Sampled>>,
    /// The write counts at which earlier processes read the counters.
    before: Option<HashMap<TenantId, i64>>,
}

/// A tenant to sample, by its status.
#[derive(Clone)]
struct Target {
    tenant: Arc<Tenant>,
    placement: Placement,
    /// The modules of its database.
    modules: Arc<ModuleSet>,
    /// Its storage is full: it is sampled in every period.
    held: bool,
    /// Its counters can be read: the modules that have them are up to date, and it is not paused.
    is_counted: bool,
    /// A pipeline has to report a version.
    awaits_report: bool,
}

/// Samples until it is dropped.
pub async fn run(context: SharedContext) {
    let mut memory = UsageMemory::default();
    let reclaims = StorageReclaims::default();
    let mut next = context.clock.now() + context.config.usage_interval;
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let now = context.clock.now();
        if now < next {
            continue;
        }
        next = now + context.config.usage_interval;
        sample(&context, &mut memory, &reclaims).await;
    }
}

async fn sample(context: &SharedContext, memory: &mut UsageMemory, reclaims: &StorageReclaims) {
    let mut by_server: BTreeMap<String, Vec<Target>> = BTreeMap::new();
    for tenant in context.stores.scopes.tenants() {
        if let Some((server, target)) = target(&tenant, context) {
            by_server.entry(server).or_default().push(target);
        }
    }
    if memory.before.is_none() {
        match timeout(SERVER_TIMEOUT, context.registry.counted_writes()).await {
            Ok(Ok(before)) => memory.before = Some(before),
            Ok(Err(error)) => return warn!(%error, "could not sample usage"),
            Err(_) => return warn!("could not sample usage: no answer from the registry in time"),
        }
    }
    let UsageMemory { samples: memory, before } = memory;
    for id in context.state.usage_recorded.take() {
        memory
            .values_mut()
            .filter_map(|sampled| sampled.get_mut(&id))
            .for_each(|sampled| sampled.recorded.clear());
    }
    memory.retain(|server, _| by_server.contains_key(server));
    for (server, targets) in &by_server {
        let memory = memory.entry(server.clone()).or_default();
        let known: HashSet<TenantId> = targets.iter().map(|target| target.placement.tenant).collect();
        memory.retain(|id, _| known.contains(id));
        for target in targets {
            let written = || before.iter().find_map(|before| before.get(&target.placement.tenant));
            memory
                .entry(target.placement.tenant)
                .or_insert_with(|| Sampled::new(target.tenant.status.as_ref(), written()));
        }
    }
    let servers = memory.iter_mut().filter_map(|(name, sampled)| {
        let ServerState::Ready(server) = context.state.servers.get(name) else { return None };
        let targets = by_server.get(name)?;
        Some(async move {
            match timeout(SERVER_TIMEOUT, measure(context, &server, targets, sampled)).await {
                Ok(Ok(changed)) => match timeout(SERVER_TIMEOUT, count(context, &server, changed, sampled))
                    .await
                {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        warn!(server = name, %error, "could not read the counters on this server")
                    }
                    Err(_) => {
                        warn!(server = name, "could not read the counters on this server: no answer in time")
                    }
                },
                Ok(Err(error)) => warn!(server = name, %error, "could not sample usage on this server"),
                Err(_) => warn!(server = name, "could not sample usage on this server: no answer in time"),
            }
            for Target { tenant, placement, modules, .. } in targets.iter().filter(|target| target.held) {
                let deleted = sampled.get(&placement.tenant).and_then(|sampled| sampled.deleted);
                let status = context.state.latest_status.newest(tenant);
                let limit = in_force(&status).get(STORAGE_BYTES).copied().flatten();
                let (tenant, placement, modules) = (tenant.clone(), placement.clone(), modules.clone());
                let full = FullTenant { tenant, placement, modules, deleted, limit };
                reclaims.request(context, name, &server, full);
            }
        })
    });
    join_all(servers).await;
    reclaims.retain(|id| {
        by_server.values().flatten().any(|target| target.held && target.placement.tenant == *id)
    });
    let near = by_server.iter().flat_map(|(server, targets)| {
        let sampled = memory.get(server);
        targets.iter().flat_map(move |target| {
            let amounts = sampled
                .and_then(|sampled| sampled.get(&target.placement.tenant))
                .map(|sampled| &sampled.amounts);
            near_limits(target, amounts.unwrap_or(&Amounts::new()), context)
        })
    });
    context.metrics.near_limits(near);
}

/// A tenant in use, by its status alone.
fn target(tenant: &Arc<Tenant>, context: &SharedContext) -> Option<(String, Target)> {
    let status = tenant.status.as_ref()?;
    let in_use = [TenantState::Active, TenantState::Trial, TenantState::Suspended];
    if !status.state.is_some_and(|state| in_use.contains(&state))
        || tenant.metadata.deletion_timestamp.is_some()
    {
        return None;
    }
    let database = status.database.clone()?;
    let credentials = status.credentials.as_ref();
    let placement = Placement {
        tenant: TenantId(uuid::Uuid::try_parse(status.tenant_id.as_deref()?).ok()?),
        server: status.server.clone()?,
        login: credentials.and_then(|found| found.login.clone()).unwrap_or_else(|| login_name(&database)),
        database,
        schema: None,
        previous_login: credentials.and_then(|found| found.previous_login.clone()),
        reader_login: credentials.and_then(|found| Some(found.reader.as_ref()?.login.clone())),
    };
    let held = is_held(status);
    let is_counted = !is_paused(tenant)
        && status.modules.iter().all(|module| module.version >= module.target || module.name != INTERNAL);
    let awaits = |module: &ModuleStatus| module.state == Some(ModuleState::AwaitingReport);
    let awaits_report = !is_paused(tenant) && status.modules.iter().any(awaits);
    let modules = context.modules.set_of(&modules_in_status(status));
    let server = placement.server.clone();
    Some((server, Target { tenant: tenant.clone(), placement, modules, held, is_counted, awaits_report }))
}

/// The limits that a tenant is near or exceeds.
fn near_limits(target: &Target, amounts: &Amounts, context: &Context) -> Vec<NearLimit> {
    let Some(status) = &target.tenant.status else { return Vec::new() };
    let labelled = |(limit, ratio)| NearLimit {
        namespace: target.tenant.namespace().unwrap_or_default(),
        tenant: target.tenant.name_any(),
        limit,
        ratio,
    };
    let warned = context.state.warned_limits.get(target.placement.tenant);
    near(status, amounts, &warned).into_iter().map(labelled).collect()
}

/// The tenants to sample in this period. Those with full storage come first, but take half of the batch at most.
fn batch<'t>(
    targets: &'t [Target],
    sampled: &HashMap<TenantId, Sampled>,
    context: &Context,
) -> Vec<&'t Target> {
    let now = context.clock.now();
    let sampled_at =
        |target: &Target| sampled.get(&target.placement.tenant).and_then(|sampled| sampled.sampled_at);
    // A tenant that was just activated is sampled one period later, when PostgreSQL has the statistics of its creation.
    let settled = |target: &&Target| {
        let changed_at = target.tenant.status.as_ref().and_then(|status| status.state_updated_at.as_ref());
        let age = changed_at.map_or(SignedDuration::MAX, |at| now.duration_since(at.0));
        sampled_at(target).is_some() || age >= context.config.usage_interval
    };
    let (mut batch, mut others): (Vec<_>, Vec<_>) =
        targets.iter().filter(settled).partition(|target| target.held);
    for part in [&mut batch, &mut others] {
        part.sort_by_key(|target| sampled_at(target));
    }
    batch.truncate(BATCH / 2);
    batch.extend(others);
    batch.truncate(BATCH);
    batch
}

/// Reads the sizes and the sessions of some tenants, and returns those whose counters may have changed. What could not be
/// recorded is read again.
async fn measure<'t>(
    context: &SharedContext,
    server: &Server,
    targets: &'t [Target],
    sampled: &mut HashMap<TenantId, Sampled>,
) -> Result<Vec<(&'t Target, Counted)>, StepError> {
    let batch = batch(targets, sampled, context);
    let now = context.clock.now();
    let requests: Vec<SampleRequest<'_>> = batch
        .iter()
        .map(|target| {
            let sampled = sampled.entry(target.placement.tenant).or_default();
            // Also when it fails: other tenants are next.
            sampled.sampled_at = Some(now);
            SampleRequest {
                placement: &target.placement,
                modules: &target.modules,
                written: sampled.written,
                due: target.held || sampled.is_due(target.tenant.status.as_ref(), now),
            }
        })
        .collect();
    let samples = server.sample(&requests).await?;
    let mut measured = HashMap::new();
    for target in &batch {
        let Some(sample) = samples.get(&target.placement.database) else { continue };
        if sample.is_previous_in_use {
            context.state.previous_login_use.record(target.placement.tenant, now);
        }
        let bytes = sample.bytes.map(|bytes| (STORAGE_BYTES.to_owned(), bytes));
        let connections = (CONNECTIONS.to_owned(), sample.connections);
        measured.insert(target.placement.tenant, Amounts::from_iter(bytes.into_iter().chain([connections])));
    }
    record(context, &batch, &measured, sampled, now).await?;
    let (mut changed, mut untouched, mut reported) = (Vec::new(), Vec::new(), Vec::new());
    for target in batch {
        let (Some(sample), Some(sampled)) =
            (samples.get(&target.placement.database), sampled.get_mut(&target.placement.tenant))
        else {
            continue;
        };
        if target.awaits_report && sampled.written != Some(sample.written) {
            reported.push(target);
        }
        (sampled.written, sampled.deleted) = (Some(sample.written), Some(sample.deleted));
        if sample.bytes.is_some() {
            sampled.sized_at = Some(now);
        }
        let others = sample.sessions - server.own_sessions(&target.placement);
        let found = Counted { written: sample.written, others: Some(others) };
        if sampled.counted.is_none() && others <= 0 && sample.connections == 0 {
            // Fewer sessions than its own: statistics are late.
            if others == 0 {
                untouched.push((target.placement.tenant, sample.written));
                // As it was created: nothing to read.
                (sampled.counted, sampled.counted_at) = (Some(found), Some(now));
            }
        } else if target.is_counted && sampled.may_have_changed(found, sample.connections > 0, now) {
            changed.push((sampled.counted_at, target, found));
        }
    }
    look_for_reports(&reported, context);
    context.registry.record_counted_writes(&untouched).await?;
    changed.sort_by_key(|(counted_at, ..)| *counted_at);
    Ok(changed.into_iter().map(|(_, target, found)| (target, found)).take(COUNTED).collect())
}

/// Has tenants looked at whose pipelines have not reported a version, and into whose databases something wrote.
fn look_for_reports(tenants: &[&Target], context: &Context) {
    for target in tenants {
        context.state.reports.written_in(target.placement.tenant);
        context.state.snapshot.forget(&target.tenant.uid().unwrap_or_default());
        let namespace = target.tenant.namespace().unwrap_or_default();
        context.stores.scopes.requeue(&namespace, &target.tenant.name_any());
    }
}

/// Reads the counters of these tenants, as many as time permits.
async fn count(
    context: &SharedContext,
    server: &Server,
    changed: Vec<(&Target, Counted)>,
    sampled: &mut HashMap<TenantId, Sampled>,
) -> Result<(), StepError> {
    let (begun, now) = (Instant::now(), context.clock.now());
    let mut measured = HashMap::new();
    let mut read = Vec::new();
    for (target, found) in changed {
        let left = COUNTING.saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        // Also when it fails: other tenants are next.
        sampled.entry(target.placement.tenant).or_default().counted_at = Some(now);
        match timeout(left, server.read_counters(&target.placement)).await {
            Ok(Ok(counters)) => {
                measured.insert(target.placement.tenant, counters);
                read.push((target, found));
            }
            Ok(Err(error)) => {
                warn!(tenant = target.tenant.name_any(), %error, "could not read the counters of a tenant")
            }
            Err(_) => {
                warn!(tenant = target.tenant.name_any(), "could not read the counters of a tenant in time")
            }
        }
    }
    let targets: Vec<&Target> = read.iter().map(|(target, _)| *target).collect();
    record(context, &targets, &measured, sampled, now).await?;
    let writes: Vec<(TenantId, i64)> =
        read.iter().map(|(target, found)| (target.placement.tenant, found.written)).collect();
    context.registry.record_counted_writes(&writes).await?;
    for (target, found) in read {
        sampled.entry(target.placement.tenant).or_default().counted = Some(found);
    }
    Ok(())
}

/// Records samples that changed, or are the first of a day; then requests the reconcile of the tenants whose status would
/// change. Earlier samples do not count here: a reconcile may have measured since.
async fn record(
    context: &SharedContext,
    batch: &[&Target],
    measured: &HashMap<TenantId, Amounts>,
    sampled: &mut HashMap<TenantId, Sampled>,
    now: Timestamp,
) -> Result<(), StepError> {
    let today = now.to_zoned(TimeZone::UTC).date();
    let mut changed: Vec<(TenantId, Amounts)> = Vec::new();
    let mut outdated = Vec::new();
    for target in batch {
        let Some(amounts) = measured.get(&target.placement.tenant) else { continue };
        // Compared with the status that was written last: the store may be behind.
        let is_outdated = !is_paused(&target.tenant)
            && requires_reconcile(
                &context.state.latest_status.newest(&target.tenant),
                amounts,
                &context.state.warned_limits.get(target.placement.tenant),
            );
        if is_outdated {
            outdated.push(*target);
        }
        let recorded = sampled.get(&target.placement.tenant).map(|sampled| &sampled.recorded);
        let is_new = |name: &str, amount: i64| {
            recorded.and_then(|recorded| recorded.get(name)) != Some(&(amount, today))
        };
        // A reconcile may have recorded another amount since.
        let new: Amounts = amounts
            .iter()
            .filter(|(name, amount)| is_outdated || is_new(name, **amount))
            .map(|(name, amount)| (name.clone(), *amount))
            .collect();
        if !new.is_empty() {
            changed.push((target.placement.tenant, new));
        }
    }
    context.registry.record_usage(&changed, now).await?;
    for (id, amounts) in changed {
        let sampled = sampled.entry(id).or_default();
        sampled.recorded.extend(amounts.iter().map(|(name, amount)| (name.clone(), (*amount, today))));
    }
    for (id, amounts) in measured {
        sampled.entry(*id).or_default().amounts.extend(amounts.clone());
    }
    for target in outdated {
        // The startup snapshot is older than this.
        context.state.snapshot.forget(&target.tenant.uid().unwrap_or_default());
        // A failed tenant still waits for its next attempt; revoking access does not wait.
        context
            .stores
            .scopes
            .requeue(&target.tenant.namespace().unwrap_or_default(), &target.tenant.name_any());
    }
    Ok(())
}
