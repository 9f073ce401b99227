//! Storage reclaims: of a tenant that filled its storage and then deleted data, the deleted rows are vacuumed, where their
//! room keeps it from full access. One tenant at a time per server, beside everything else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use tracing::{info, warn};

use crate::{
    api::tenant::Tenant,
    controller::{context::SharedContext, tenant::failure::StepError, watch::requeue::requeue_tenant},
    domain::{
        identity::TenantId,
        placement::Placement,
        spec::is_paused,
        status::usage::{in_force, is_held},
        usage::{
            entitlements::{Amounts, STORAGE_BYTES},
            thresholds::quota_release_bytes,
        },
    },
    keyed_lock::KeyedLock,
    modules::ModuleSet,
    postgres::{server::Server, tenant::vacuum::RowSizes},
};

/// How long a tenant waits after a failure.
const AFTER_FAILURE: SignedDuration = SignedDuration::from_hours(1);

/// The last reclaim of a tenant.
#[derive(Default)]
struct LastReclaim {
    /// What it found in the tables.
    row_sizes: RowSizes,
    /// How many rows had been deleted then.
    deleted: Option<i64>,
    /// The limit that the tenant exceeded then.
    limit: Option<i64>,
    /// It was blocked, and is worth another try.
    again: bool,
    /// It failed: not again before this, since rewriting a table takes room itself.
    not_before: Option<Timestamp>,
    /// It is running.
    running: bool,
}

/// The reclaims of all tenants. Cheap to clone.
#[derive(Clone, Default)]
pub struct StorageReclaims {
    by_tenant: Arc<Mutex<HashMap<TenantId, LastReclaim>>>,
    /// One tenant at a time, by server.
    locks: Arc<KeyedLock<String>>,
}

/// A tenant that exceeds its storage limit.
pub struct FullTenant {
    /// Its object.
    pub tenant: Arc<Tenant>,
    /// Where its data is.
    pub placement: Placement,
    /// What an empty tenant's database has.
    pub modules: Arc<ModuleSet>,
    /// How many rows were ever deleted from it.
    pub deleted: Option<i64>,
    /// The limit that it exceeds.
    pub limit: Option<i64>,
}

impl StorageReclaims {
    /// Forgets the tenants that do not exceed their storage limit any more.
    pub fn retain(&self, held: impl Fn(&TenantId) -> bool) {
        self.lock().retain(|id, last| last.running || held(id));
    }

    /// Starts the reclaim of a tenant that has deleted rows since its last one, or has another limit now.
    pub fn request(&self, context: &SharedContext, name: &str, server: &Server, full: FullTenant) {
        let mut row_sizes = {
            let mut by_tenant = self.lock();
            let last = by_tenant.entry(full.placement.tenant).or_default();
            let wait = last.not_before.is_some_and(|at| context.clock.now() < at);
            let same = (last.deleted, last.limit) == (full.deleted, full.limit);
            if last.running || wait || same && !last.again {
                return;
            }
            last.running = true;
            std::mem::take(&mut last.row_sizes)
        };
        let (context, server, reclaims) = (context.clone(), server.clone(), self.clone());
        let name = name.to_owned();
        tokio::spawn(async move {
            let _lock = reclaims.locks.take(name).await;
            let done = reclaim(&context, &server, &full, &mut row_sizes).await;
            if let Err(error) = &done {
                warn!(tenant = full.tenant.name_any(), %error, "could not reclaim storage of a tenant whose storage is full");
            }
            let not_before = done.is_err().then(|| context.clock.now() + AFTER_FAILURE);
            let again = done.unwrap_or(true);
            let FullTenant { deleted, limit, .. } = full;
            let last = LastReclaim { row_sizes, deleted, limit, again, not_before, running: false };
            reclaims.lock().insert(full.placement.tenant, last);
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, LastReclaim>> {
        self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether another try is worthwhile although no more rows are deleted.
async fn reclaim(
    context: &SharedContext,
    server: &Server,
    full: &FullTenant,
    row_sizes: &mut RowSizes,
) -> Result<bool, StepError> {
    if !context.leader.leadership.is_current() {
        return Err(StepError::NotLeader);
    }
    // The wait for the lock and a single table may take long: a tenant that has full access again by now must not find its
    // tables locked.
    let limit = || {
        let tenant = context
            .stores
            .scopes
            .tenant(&full.tenant.namespace().unwrap_or_default(), &full.tenant.name_any())?;
        let status = context.state.latest_status.newest(&tenant);
        let skipped = is_paused(&tenant) || tenant.metadata.deletion_timestamp.is_some();
        let maximum = in_force(&status).get(STORAGE_BYTES).copied().flatten();
        maximum.filter(|_| is_held(&status) && !skipped)
    };
    // A paused tenant is tried again; one that is not held any more is forgotten.
    let Some(maximum) = limit() else { return Ok(true) };
    // Below this, the tenant has full access again.
    let target = (quota_release_bytes(maximum) - 1).max(0);
    let is_wanted = || context.leader.leadership.is_current() && limit() == Some(maximum);
    let done = server.reclaim(&full.placement, &full.modules, target, row_sizes, &is_wanted).await?;
    if done.vacuumed.is_empty() && done.rewritten.is_empty() && done.bytes_after >= done.bytes_before {
        return Ok(done.again);
    }
    info!(
        tenant = full.tenant.name_any(),
        before = done.bytes_before,
        after = done.bytes_after,
        vacuumed = done.vacuumed.join(", "),
        rewritten = done.rewritten.join(", "),
        locked = done.skipped_locked.join(", "),
        failed = done.failed.join(", "),
        "reclaimed the storage of deleted rows"
    );
    let amounts = Amounts::from([(STORAGE_BYTES.to_owned(), done.bytes_after)]);
    context.registry.record_usage(&[(full.placement.tenant, amounts)], context.clock.now()).await?;
    context.state.usage_recorded.add(full.placement.tenant);
    if done.bytes_after <= target {
        context.state.snapshot.forget(&full.tenant.uid().unwrap_or_default());
        requeue_tenant(&full.tenant.namespace().unwrap_or_default(), &full.tenant.name_any(), context);
    }
    Ok(done.again)
}
