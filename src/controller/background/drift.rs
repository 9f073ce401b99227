//! The drift check: manual changes on the servers are found within a minute. One query for the registry, which returns
//! the rows that changed since the last check, and one per server, which returns its content if that changed; a tenant
//! without a difference costs nothing else.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use kube::{Resource, ResourceExt, runtime::reflector::ObjectRef};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    leftovers, migration_logins,
    moves::requeue_moved,
    reopened_access, support_access,
    vanished::{self, vanished},
};
use crate::{
    api::reason::Reason,
    controller::{
        context::{Context, SharedContext},
        database_server::preflight::restored,
        state::servers::ServerState,
        tenant::{evaluate, rights::report_rights_between_reconciles},
        tenant_account::in_force::in_force,
        watch::requeue::requeue_tenant,
    },
    domain::{
        drift::{DriftCheck, Expected, Mismatch, REPORTED, mismatches},
        identity::TenantId,
        known_rows::KnownRows,
        observed::RegistryStatus,
        record::TenantRecord,
        spec::{desired_tenant, is_paused},
        tenant_facts::{RecordedOids, TenantFacts},
    },
    postgres::catalog::inventory::Inventory,
    registry,
};

/// How long one server may take. The others are checked after that.
const SERVER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long one check may take. A server that does not respond has its own, shorter limits.
const CHECK_TIMEOUT: Duration = Duration::from_secs(300);

/// How often the registry records how far the servers have come: a restore to an older state is noticed by the next process
/// too, unless it lost less than this.
const WATERMARK_PERIOD: Duration = Duration::from_secs(300);

/// What is remembered from one check to the next.
#[derive(Default)]
struct DriftMemory {
    /// The registry's rows.
    rows: KnownRows,
    /// What was read of each server.
    inventories: HashMap<String, Inventory>,
    /// The highest transaction id found on each server; none before the registry's were read.
    transactions: Option<HashMap<String, i64>>,
    /// The mismatches for which a tenant was last reconciled, until it has none.
    requested: HashMap<TenantId, Vec<Mismatch>>,
    /// What the registry recorded of them last.
    recorded: Option<RecordedTransactions>,
}

/// The transaction ids that the registry has.
struct RecordedTransactions {
    at: Instant,
    /// Of each server.
    ids: HashMap<String, i64>,
    /// The state of the registry's rows then.
    rows: (i64, i64),
}

/// Checks until `shutdown`, and ends the check that runs then.
pub async fn run(context: SharedContext, shutdown: CancellationToken) {
    let mut memory = DriftMemory::default();
    let mut period = tokio::time::interval(context.config.drift_interval);
    if !context.stores.scopes.are_known(&shutdown).await {
        return;
    }
    let (registered, rows) = watch::channel(Vec::new());
    let checks = async {
        while shutdown.run_until_cancelled(period.tick()).await.is_some() {
            match timeout(CHECK_TIMEOUT, check(&context, &mut memory, &registered)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    context.state.registry_reads.end(Some(error.reason()));
                    warn!(%error, "could not check for drift");
                }
                Err(_) => warn!("could not check for drift: no answer in time"),
            }
        }
    };
    // Beside the checks: each of many vanished tenants waits for its own lock.
    tokio::join!(checks, shutdown.run_until_cancelled(vanished::run(rows, &context)));
    if let Err(error) = memory.record(&context).await {
        warn!(%error, "could not record how far the servers have come");
    }
}

impl DriftMemory {
    /// The transaction ids, at first as an earlier process recorded them.
    async fn transactions(
        &mut self,
        context: &Context,
    ) -> Result<&mut HashMap<String, i64>, registry::Error> {
        if self.transactions.is_none() {
            self.transactions = Some(context.registry.watermarks().await?);
        }
        Ok(self.transactions.get_or_insert_default())
    }

    /// Records the transaction ids from time to time, and at once those of a server that has none. So it does when the rows
    /// changed: a tenant was worked on, and a restore may undo that on its server.
    async fn record_in_time(&mut self, context: &Context) -> Result<(), registry::Error> {
        let read = self.transactions.iter().flatten();
        let is_due = self.recorded.as_ref().is_none_or(|recorded| {
            recorded.at.elapsed() >= WATERMARK_PERIOD
                || recorded.rows != self.rows.state()
                || read.clone().any(|(server, _)| !recorded.ids.contains_key(server))
        });
        if is_due { self.record(context).await } else { Ok(()) }
    }

    async fn record(&mut self, context: &Context) -> Result<(), registry::Error> {
        let Some(ids) = self.transactions.clone() else { return Ok(()) };
        if self.recorded.as_ref().is_none_or(|recorded| recorded.ids != ids) {
            context.registry.record_watermarks(&ids).await?;
        }
        self.recorded = Some(RecordedTransactions { at: Instant::now(), ids, rows: self.rows.state() });
        Ok(())
    }
}

async fn check(
    context: &SharedContext,
    memory: &mut DriftMemory,
    registered: &watch::Sender<Vec<Arc<TenantRecord>>>,
) -> Result<(), registry::Error> {
    context.state.registry_reads.begin();
    let (rows, retained) = read_rows(&mut memory.rows, context).await?;
    context.state.registry_reads.end(None);
    registered.send_replace(rows.clone());
    count_rows(&rows, &retained, context);
    // Also those that have no tenant any more: they may have leftovers.
    let resources = context.stores.database_servers.state();
    let names: Vec<String> = resources.iter().map(|server| server.name_any()).collect();
    let used = rows.iter().chain(&retained).map(|row| row.placement.server.as_str());
    let servers: BTreeSet<&str> = used.chain(names.iter().map(String::as_str)).collect();
    // All at once: a server that does not respond does not delay the others.
    let before = &memory.inventories;
    let read = async |server| Some((server, read(server, before.get(server), context).await?));
    let inventories: HashMap<&str, Inventory> =
        join_all(servers.into_iter().map(read)).await.into_iter().flatten().collect();
    memory.inventories =
        inventories.iter().map(|(server, read)| ((*server).to_owned(), read.clone())).collect();
    for (server, inventory) in &inventories {
        let transactions = memory.transactions(context).await?;
        let now = inventory.last_transaction();
        if transactions.get(*server).is_some_and(|before| *before > now) {
            // If this fails, the next check finds the server restored again.
            context.registry.require_verification(server, now).await?;
            restored(server, "is in an older state than before", context);
        }
        transactions.insert((*server).to_owned(), now);
        close_session_logins(server, inventory, context);
        migration_logins::close_stale(server, inventory, context);
        support_access::check(server, inventory, context).await;
        reset_group_settings(server, inventory, context);
    }
    let mut oids = Vec::new();
    let gone: HashSet<TenantId> = vanished(&rows, context).into_iter().map(|row| row.id).collect();
    for row in rows.iter().filter(|row| !gone.contains(&row.id)) {
        if let Some(inventory) = inventories.get(row.placement.server.as_str()) {
            oids.extend(check_tenant(row, inventory, &mut memory.requested, context).await?);
        }
    }
    for row in &retained {
        if let Some(inventory) = inventories.get(row.placement.server.as_str()) {
            reopened_access::retained(row, inventory, context);
        }
    }
    let accounted: HashSet<TenantId> = rows.iter().chain(&retained).map(|row| row.id).collect();
    memory.requested.retain(|id, _| accounted.contains(id));
    leftovers::check(&inventories, &accounted, context).await?;
    for id in context.registry.record_oids(&oids).await? {
        verify_restored(id, &rows, context);
    }
    memory.record_in_time(context).await
}

fn count_rows(rows: &[Arc<TenantRecord>], retained: &[Arc<TenantRecord>], context: &Context) {
    let count = |status| rows.iter().chain(retained).filter(|row| row.status == status).count();
    context
        .metrics
        .registry_tenants(RegistryStatus::ALL.into_iter().map(|status| (status.as_str(), count(status))));
}

/// Reads the rows that changed since the last check, and all if others changed too: the registry was restored.
async fn read_rows(
    known: &mut KnownRows,
    context: &Context,
) -> Result<(Vec<Arc<TenantRecord>>, Vec<Arc<TenantRecord>>), registry::Error> {
    let changed = context.registry.changed_since(known.since()).await?;
    requeue_moved(&changed.rows, context);
    if !known.update(changed) {
        let all = context.registry.changed_since(None).await?;
        requeue_moved(&all.rows, context);
        known.update(all);
    }
    Ok(known.registered_and_retained())
}

async fn read(name: &str, before: Option<&Inventory>, context: &Context) -> Option<Inventory> {
    let ServerState::Ready(server) = context.state.servers.get(name) else { return None };
    match timeout(SERVER_TIMEOUT, server.observe_changes(before)).await {
        Ok(Ok(inventory)) => return Some(inventory),
        Ok(Err(error)) => warn!(server = name, %error, "could not check this server for drift"),
        Err(_) => warn!(server = name, "could not check this server for drift: it does not respond"),
    }
    context.state.servers.request_check(name);
    None
}

/// Has a database verified that is another one than before: a copy of it was restored. The registry has recorded that.
fn verify_restored(id: TenantId, rows: &[Arc<TenantRecord>], context: &Context) {
    let Some(row) = rows.iter().find(|row| row.id == id) else { return };
    context.state.snapshot.forget(&row.resource_uid);
    requeue_tenant(&row.resource_namespace, &row.resource_name, context);
    let Some(tenant) = context.stores.scopes.tenant(&row.resource_namespace, &row.resource_name) else {
        return;
    };
    let note = format!(
        "database {} is not the one that was there before: its module versions, limits and rights are verified",
        row.placement.database
    );
    context.events.warning(tenant.object_ref(&()), "Verify", Reason::DatabaseRestored, note);
}

/// Takes the logins of sessions away where an operation could not, because the server was unreachable then.
fn close_session_logins(server: &str, inventory: &Inventory, context: &Context) {
    let logins = inventory.session_logins();
    let ServerState::Ready(handle) = context.state.servers.get(server) else { return };
    if logins.is_empty() {
        return;
    }
    let server = server.to_owned();
    // Beside the check: a session may take some time to end.
    tokio::spawn(async move {
        if timeout(SERVER_TIMEOUT, handle.close_session_logins(&logins)).await.is_err() {
            warn!(server, "could not take logins of sessions away: no answer in time");
        }
    });
}

/// Resets what a tenant stored as settings of a group. Which tenant it was is not shown.
fn reset_group_settings(server: &str, inventory: &Inventory, context: &Context) {
    let found = inventory.group_settings();
    let ServerState::Ready(handle) = context.state.servers.get(server) else { return };
    if found.is_empty() {
        return;
    }
    let server = server.to_owned();
    // Beside the check: the values may be large.
    tokio::spawn(async move {
        warn!(server, ?found, "a tenant's login stored settings of a group: they are reset");
        if let Err(error) = handle.reset_group_settings(&found).await {
            warn!(server, %error, "could not reset the settings of a group; the next check tries again");
        }
    });
}

/// Requests the reconcile of a tenant that differs. Returns the oids to record: the tenant's id, its database's and its
/// login's.
async fn check_tenant(
    row: &TenantRecord,
    inventory: &Inventory,
    requested: &mut HashMap<TenantId, Vec<Mismatch>>,
    context: &SharedContext,
) -> Result<Option<(TenantId, i64, i64)>, registry::Error> {
    if row.status == RegistryStatus::Deprovisioning {
        reopened_access::tombstone(row, inventory, context).await?;
    }
    let tenant = context.stores.scopes.tenant(&row.resource_namespace, &row.resource_name);
    let Some(tenant) = tenant.filter(|_| row.status.was_active()) else { return Ok(None) };
    let tenant = in_force(&tenant, Some(row), context);
    let tenant = tenant.as_ref();
    let facts = inventory.facts_recorded(&row.placement, RecordedOids::of(row));
    let evaluation = evaluate::access(tenant, Some(row), None, context);
    let access = evaluation.access;
    let failure = context.state.retries.failure(&ObjectRef::from_obj(tenant));
    let found = mismatches(&facts, &Expected::of(row, access, &row.rotation(tenant, context.clock.now())));
    let is_retried = failure.is_some() && requested.get(&row.id) == Some(&found);
    let check = DriftCheck {
        mismatches: &found,
        access,
        recorded_access: row.access,
        is_paused: is_paused(tenant),
        has_valid_spec: desired_tenant(tenant, context.as_ref()).is_ok()
            && context.plan(&evaluation.plan).is_some(),
        is_reported: failure.is_some_and(|reason| REPORTED.contains(&reason)),
        is_retried,
    };
    if let ServerState::Ready(server) = context.state.servers.get(&row.placement.server) {
        report_rights_between_reconciles(tenant, row, &server, context).await?;
    }
    if found.is_empty() {
        requested.remove(&row.id);
    }
    if check.needs_reconcile() {
        if check.is_access_regained() {
            context.state.waiting.access_regained(ObjectRef::from_obj(tenant));
        }
        // The startup snapshot is older than this.
        context.state.snapshot.forget(&row.resource_uid);
        requeue_tenant(&row.resource_namespace, &row.resource_name, context);
        requested.insert(row.id, found);
    }
    Ok(new_oids(row, &facts))
}

/// The oids of a tenant's own database and login, where they are not the recorded ones.
fn new_oids(row: &TenantRecord, facts: &TenantFacts) -> Option<(TenantId, i64, i64)> {
    let (database, login) = (facts.database.as_ref()?, facts.login.as_ref()?);
    let ours = database.ownership.is_ours() && login.ownership.is_ours();
    let recorded = (row.database_oid, row.login_oid) == (Some(database.oid), Some(login.oid));
    (ours && !recorded).then_some((row.id, database.oid, login.oid))
}
