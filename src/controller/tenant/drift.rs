//! Drift: what was changed by hand is seen within a minute. One query for the registry and one per server, from memory
//! the rest: a tenant on which nothing differs costs nothing.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use futures::future::join_all;
use kube::runtime::reflector::ObjectRef;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    cuts::{self, Databases},
    observe::{connections, known},
    presence::{look_up, stands_for},
};
use crate::{
    api::{
        conditions::{READY, find_condition, reason},
        tenant::OffboardingTrigger,
    },
    controller::{
        context::{Context, SharedContext},
        servers::Standing,
    },
    domain::{
        departure::{Terms, purge_after, vanished_grace},
        desired::{desired, is_paused},
        observed::RegistryStatus,
    },
    postgres::{inventory::Inventory, mark::Mark},
    registry::{TenantRow, Tombstone},
};

/// How often it is looked. Twice as often as it has to be seen.
const PERIOD: Duration = Duration::from_secs(30);

/// How long a server is waited for: the others are looked at after that.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long one look may take. A server that does not answer has its own, shorter limits.
const LIMIT: Duration = Duration::from_secs(300);

/// What is remembered from one look to the next.
#[derive(Default)]
struct Memory {
    /// The highest transaction id seen on each server.
    transactions: HashMap<String, i64>,
    /// Databases that should be gone, and were told of.
    leftovers: Databases,
}

/// Looks until `shutdown`.
pub async fn run(context: SharedContext, shutdown: CancellationToken) {
    let mut memory = Memory::default();
    let mut period = tokio::time::interval(PERIOD);
    if !context.scopes.are_known(&shutdown).await {
        return;
    }
    while shutdown.run_until_cancelled(period.tick()).await.is_some() {
        match timeout(LIMIT, look(&context, &mut memory)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "drift was not looked for"),
            Err(_) => warn!("drift was not looked for: no answer in time"),
        }
    }
}

async fn look(context: &SharedContext, memory: &mut Memory) -> Result<(), crate::registry::Error> {
    let rows = context.registry.all_living().await?;
    let kept = context.registry.all_retained().await?;
    let servers: BTreeSet<&str> = rows.iter().chain(&kept).map(|row| row.server.as_str()).collect();
    // All at once: one that hangs does not hold up the others.
    let read = async |server| Some((server, read(server, context).await?));
    let inventories: HashMap<&str, Inventory> =
        join_all(servers.into_iter().map(read)).await.into_iter().flatten().collect();
    let mut restored = Vec::new();
    for (server, inventory) in &inventories {
        let last = inventory.last_transaction();
        let before = memory.transactions.insert((*server).to_owned(), last);
        if before.is_some_and(|before| before > last) {
            warn!(server, "the server is in an older state than before: it was restored");
            restored.push((*server).to_owned());
        }
        shut(server, inventory, context);
    }
    let mut seen = Vec::new();
    for row in &rows {
        if vanished(row, context) {
            tombstone_of_vanished(row, context).await;
            continue;
        }
        let Some(inventory) = inventories.get(row.server.as_str()) else { continue };
        if row.status == RegistryStatus::Deprovisioning {
            cuts::tombstone(row, inventory, context).await?;
        }
        if !row.status.was_active() {
            continue;
        }
        let facts = inventory.facts(row.id, &row.database_name, &row.login_name);
        let Some(tenant) = context.scopes.tenant(&row.resource_namespace, &row.resource_name) else {
            continue;
        };
        let mut wanted = context.standing(&tenant, Some(row), None).access;
        if desired(&tenant, context.as_ref()).is_err() {
            // Nothing is given to a tenant whose spec cannot be acted on.
            wanted = row.access.map_or(wanted, |recorded| wanted.min(recorded));
        }
        let differs =
            !is_paused(&tenant) && !facts.differences(wanted, known(row), connections(row)).is_empty();
        if differs != is_told(row, context) {
            // What was read at start-up is older than this.
            context.bulk.forget(&row.resource_uid);
            context.wake(&row.resource_namespace, &row.resource_name);
        }
        if let (Some(database), Some(login)) = (&facts.database, &facts.login)
            && database.mark == Mark::Ours
            && login.mark == Mark::Ours
            && (row.database_oid, row.login_oid) != (Some(database.oid), Some(login.oid))
        {
            seen.push((row.id, database.oid, login.oid));
        }
    }
    for server in restored {
        context.attempts.verify_all(context.scopes.tenants().iter().filter(|tenant| {
            tenant.status.as_ref().and_then(|status| status.server.as_deref()) == Some(server.as_str())
        }));
        context.server_changed(&server);
    }
    for row in &kept {
        if let Some(inventory) = inventories.get(row.server.as_str()) {
            cuts::retained(row, inventory, context);
        }
    }
    let accounted = rows.iter().chain(&kept).map(|row| row.id).collect();
    cuts::leftovers(&inventories, &accounted, &mut memory.leftovers, context).await?;
    context.registry.record_oids(&seen).await
}

async fn read(name: &str, context: &Context) -> Option<Inventory> {
    let Standing::Ready(server) = context.servers.get(name) else { return None };
    match timeout(PATIENCE, server.observe_all()).await {
        Ok(Ok(inventory)) => return Some(inventory),
        Ok(Err(error)) => warn!(server = name, %error, "drift was not looked for on this server"),
        Err(_) => warn!(server = name, "drift was not looked for on this server: it does not answer"),
    }
    context.servers.suspect(name);
    None
}

/// Databases stay open to the migrator when the server went away during a visit. One that is visited right now is among them
/// as well: that takes nothing from the visit.
fn shut(server: &str, inventory: &Inventory, context: &Context) {
    let open = inventory.open_to_the_migrator();
    let Standing::Ready(handle) = context.servers.get(server) else { return };
    if open.is_empty() {
        return;
    }
    let server = server.to_owned();
    // Beside the search: a tenant's turn may be somebody else's for long.
    tokio::spawn(async move {
        if timeout(PATIENCE, handle.shut_left_open(&open)).await.is_err() {
            warn!(server, "a database is left open to the migrator: no answer in time");
        }
    });
}

/// Whether the status already tells of a difference that nobody but a person can put right.
fn is_told(row: &TenantRow, context: &Context) -> bool {
    let reference = ObjectRef::new(&row.resource_name).within(&row.resource_namespace);
    let tenant = context.scopes.0.iter().find_map(|scope| scope.tenants.get(&reference));
    let ready = tenant.as_ref().and_then(|tenant| tenant.status.as_ref());
    let ready = ready.and_then(|status| find_condition(&status.conditions, READY));
    let hopeless = [reason::DATABASE_MISSING, reason::CONFLICT, reason::MISSING_RIGHT];
    ready.is_some_and(|ready| hopeless.contains(&ready.reason.as_str()))
}

/// Whether a tenant that is not going away has no object any more, in a namespace that is watched.
fn vanished(row: &TenantRow, context: &Context) -> bool {
    let watched = |scope: &&super::watch::Scope| {
        scope.namespace.as_ref().is_none_or(|namespace| *namespace == row.resource_namespace)
    };
    context.scopes.0.iter().any(|scope| watched(&scope))
        && row.status != RegistryStatus::Deprovisioning
        && !context.scopes.has(&row.resource_namespace, &row.resource_name, &row.resource_uid, &row.slug)
}

/// A tenant that nobody asked to take down is cut off like one that was, and kept for a day at least.
async fn tombstone_of_vanished(row: &TenantRow, context: &SharedContext) {
    let _turn = context.turns.take((row.resource_namespace.clone(), row.resource_name.clone())).await;
    // The store may be behind, and a list that the API server cannot give says nothing.
    match look_up(&context.client, &row.resource_namespace, &row.resource_name).await {
        Ok(Some(found)) if stands_for(&found, &row.resource_uid, &row.slug) => return,
        Ok(_) => {}
        Err(error) => {
            warn!(%error, tenant = row.resource_name, "a Tenant seems to be gone, and cannot be looked for");
            return;
        }
    }
    let grace = context.with_plan_grace(&row.plan, vanished_grace);
    let at = context.clock.now();
    let tombstone = Tombstone {
        reason: Some("the Tenant vanished without its finalizer".into()),
        trigger: OffboardingTrigger::CustomerRequest.as_str().to_owned(),
        at,
        terms: Terms { purge_after: purge_after(at, grace), retain: row.retain, held: false },
        actor: "tenantry".into(),
    };
    let written = async {
        context.registry.begin_deprovisioning(row.id, &tombstone, None).await?;
        context.breaker.departed();
        context.registry.set_access(row.id, None).await?;
        context.registry.by_id(row.id).await
    };
    match written.await {
        Ok(Some(row)) => {
            warn!(
                namespace = row.resource_namespace,
                tenant = row.resource_name,
                purge_after = ?row.purge_after,
                "a Tenant vanished without its finalizer: its access is cut, and its data kept until then"
            );
            context.tombstones.see(&row, None);
        }
        Ok(None) => {}
        Err(error) => info!(%error, "the tombstone of a vanished Tenant is not written yet"),
    }
}
