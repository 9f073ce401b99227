//! The drift check: manual changes on the servers are found within a minute. One query for the registry, which returns
//! the rows that changed since the last check, and one per server, which returns its content if that changed; a tenant
//! without a difference costs nothing else.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use kube::runtime::reflector::ObjectRef;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    reopened_access::{self, Databases},
    vanished::{is_vanished, write_tombstone},
};
use crate::{
    controller::{
        context::{Context, SharedContext},
        state::servers::ServerState,
        tenant::{evaluate, rights::report_rights},
        watch::requeue::{requeue_tenant, requeue_tenants_on},
    },
    domain::{
        drift::{DriftCheck, Expected, REPORTED, mismatches},
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

/// What is remembered from one check to the next.
#[derive(Default)]
struct DriftMemory {
    /// The registry's rows.
    rows: KnownRows,
    /// What was read of each server.
    inventories: HashMap<String, Inventory>,
    /// The highest transaction id found on each server.
    transactions: HashMap<String, i64>,
    /// Databases that should not exist, and were reported.
    leftovers: Databases,
}

/// Checks until `shutdown`, and ends the check that runs then.
pub async fn run(context: SharedContext, shutdown: CancellationToken) {
    let mut memory = DriftMemory::default();
    let mut period = tokio::time::interval(context.config.drift_interval);
    if !context.stores.scopes.are_known(&shutdown).await {
        return;
    }
    while shutdown.run_until_cancelled(period.tick()).await.is_some() {
        match timeout(CHECK_TIMEOUT, check(&context, &mut memory)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "could not check for drift"),
            Err(_) => warn!("could not check for drift: no answer in time"),
        }
    }
}

async fn check(context: &SharedContext, memory: &mut DriftMemory) -> Result<(), registry::Error> {
    let (rows, retained) = read_rows(&mut memory.rows, context).await?;
    let servers: BTreeSet<&str> =
        rows.iter().chain(&retained).map(|row| row.placement.server.as_str()).collect();
    // All at once: a server that does not respond does not delay the others.
    let before = &memory.inventories;
    let read = async |server| Some((server, read(server, before.get(server), context).await?));
    let inventories: HashMap<&str, Inventory> =
        join_all(servers.into_iter().map(read)).await.into_iter().flatten().collect();
    memory.inventories =
        inventories.iter().map(|(server, read)| ((*server).to_owned(), read.clone())).collect();
    for (server, inventory) in &inventories {
        if memory.transactions.get(*server).is_some_and(|before| *before > inventory.last_transaction()) {
            verify_restored(server, &rows, context).await?;
        }
        memory.transactions.insert((*server).to_owned(), inventory.last_transaction());
        revoke_migrator(server, inventory, context);
    }
    let mut oids = Vec::new();
    for row in &rows {
        if is_vanished(row, context) {
            write_tombstone(row, context).await;
        } else if let Some(inventory) = inventories.get(row.placement.server.as_str()) {
            oids.extend(check_tenant(row, inventory, context).await?);
        }
    }
    for row in &retained {
        if let Some(inventory) = inventories.get(row.placement.server.as_str()) {
            reopened_access::retained(row, inventory, context);
        }
    }
    let accounted: HashSet<TenantId> = rows.iter().chain(&retained).map(|row| row.id).collect();
    reopened_access::leftovers(&inventories, &accounted, &mut memory.leftovers, context).await?;
    context.registry.record_oids(&oids).await
}

/// Reads the rows that changed since the last check, and all if others changed too: the registry was restored.
async fn read_rows(
    known: &mut KnownRows,
    context: &Context,
) -> Result<(Vec<Arc<TenantRecord>>, Vec<Arc<TenantRecord>>), registry::Error> {
    let changed = context.registry.changed_since(known.since()).await?;
    if !known.update(changed) {
        known.update(context.registry.changed_since(None).await?);
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

/// Has all databases of a server verified: its transaction ids went back, so it was restored to an older state.
async fn verify_restored(
    server: &str,
    rows: &[Arc<TenantRecord>],
    context: &SharedContext,
) -> Result<(), registry::Error> {
    warn!(server, "the server is in an older state than before: it was restored");
    // If this fails, the next check finds the server restored again.
    context.registry.require_verification(server).await?;
    for row in rows.iter().filter(|row| row.placement.server == server) {
        context.state.snapshot.forget(&row.resource_uid);
    }
    requeue_tenants_on(server, context);
    Ok(())
}

/// Revokes CONNECT from the migrator where a reconcile could not, because the server was unreachable then. A reconcile that
/// runs right now does not need what is revoked.
fn revoke_migrator(server: &str, inventory: &Inventory, context: &Context) {
    let grants = inventory.migrator_grants();
    let ServerState::Ready(handle) = context.state.servers.get(server) else { return };
    if grants.is_empty() {
        return;
    }
    let server = server.to_owned();
    // Beside the check: another session may hold a tenant's lock for long.
    tokio::spawn(async move {
        if timeout(SERVER_TIMEOUT, handle.revoke_migrator_grants(&grants)).await.is_err() {
            warn!(server, "could not revoke CONNECT from the migrator: no answer in time");
        }
    });
}

/// Requests the reconcile of a tenant that differs. Returns the oids to record: the tenant's id, its database's and its
/// login's.
async fn check_tenant(
    row: &TenantRecord,
    inventory: &Inventory,
    context: &SharedContext,
) -> Result<Option<(TenantId, i64, i64)>, registry::Error> {
    if row.status == RegistryStatus::Deprovisioning {
        reopened_access::tombstone(row, inventory, context).await?;
    }
    let tenant = context.stores.scopes.tenant(&row.resource_namespace, &row.resource_name);
    let Some(tenant) = tenant.filter(|_| row.status.was_active()) else { return Ok(None) };
    let facts = inventory.facts_recorded(&row.placement, RecordedOids::of(row));
    let evaluation = evaluate::access(&tenant, Some(row), None, context);
    let access = evaluation.access;
    let failure = context.state.retries.failure(&ObjectRef::from_obj(tenant.as_ref()));
    let check = DriftCheck {
        mismatches: &mismatches(&facts, &Expected::of(row, access)),
        access,
        recorded_access: row.access,
        is_paused: is_paused(&tenant),
        has_valid_spec: desired_tenant(&tenant, context.as_ref()).is_ok()
            && context.plan(&evaluation.plan).is_some(),
        is_reported: failure.is_some_and(|reason| REPORTED.contains(&reason)),
    };
    if let ServerState::Ready(server) = context.state.servers.get(&row.placement.server) {
        report_rights(&tenant, row, &server, context).await?;
    }
    if check.needs_reconcile() {
        if check.is_access_regained() {
            context.state.waiting.access_regained(ObjectRef::from_obj(tenant.as_ref()));
        }
        // The startup snapshot is older than this.
        context.state.snapshot.forget(&row.resource_uid);
        requeue_tenant(&row.resource_namespace, &row.resource_name, context);
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
