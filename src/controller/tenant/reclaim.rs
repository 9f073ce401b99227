//! Room for a tenant that had filled its storage and deletes: what it deleted is given back to the disk, where that is
//! what keeps it from full access. One tenant at a time per server, beside everything else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use tracing::{info, warn};

use super::{
    failure::StepError,
    limits::{in_force, is_held},
};
use crate::{
    api::tenant::Tenant,
    controller::context::SharedContext,
    domain::{
        desired::is_paused,
        identity::TenantId,
        limits::{Amounts, STORAGE_BYTES},
        quota::room_again,
    },
    postgres::{modules::ModuleSet, server::Server, vacuum::Packing},
    turns::Turns,
};

/// How long a tenant is left alone after a failure.
const AFTER_FAILURE: SignedDuration = SignedDuration::from_hours(1);

/// What is known of a tenant that is over its storage.
#[derive(Default)]
struct Known {
    /// What was learned of its tables.
    packing: Packing,
    /// How much had been deleted when room was made last.
    deleted: Option<i64>,
    /// The limit that it was over then.
    limit: Option<i64>,
    /// Something was in the way then.
    again: bool,
    /// It failed then: what failed is left alone for a while, since writing a table anew takes room itself.
    not_before: Option<Timestamp>,
    /// Room is being made.
    busy: bool,
}

/// The tenants for which room is made. Cheap to clone.
#[derive(Clone, Default)]
pub struct Reclaims {
    known: Arc<Mutex<HashMap<TenantId, Known>>>,
    /// One tenant at a time, by server.
    turns: Arc<Turns<String>>,
}

/// A tenant that is over its storage.
pub struct Full {
    /// Its object.
    pub tenant: Arc<Tenant>,
    /// Its id.
    pub id: TenantId,
    /// Its database.
    pub database: String,
    /// What an empty tenant's database has.
    pub modules: Arc<ModuleSet>,
    /// How much was ever deleted from it.
    pub deleted: Option<i64>,
    /// The limit that it is over.
    pub limit: Option<i64>,
}

impl Reclaims {
    /// Forgets those who are not over their storage any more.
    pub fn retain(&self, held: impl Fn(&TenantId) -> bool) {
        self.lock().retain(|id, known| known.busy || held(id));
    }

    /// Makes room for a tenant that is over its storage and has deleted something since that was done last, or has another
    /// limit by now.
    pub fn want(&self, context: &SharedContext, name: &str, server: &Server, full: Full) {
        let mut packing = {
            let mut known = self.lock();
            let known = known.entry(full.id).or_default();
            let wait = known.not_before.is_some_and(|at| context.clock.now() < at);
            let same = (known.deleted, known.limit) == (full.deleted, full.limit);
            if known.busy || wait || same && !known.again {
                return;
            }
            known.busy = true;
            std::mem::take(&mut known.packing)
        };
        let (context, server, reclaims) = (context.clone(), server.clone(), self.clone());
        let name = name.to_owned();
        tokio::spawn(async move {
            let _turn = reclaims.turns.take(name).await;
            let done = make_room(&context, &server, &full, &mut packing).await;
            if let Err(error) = &done {
                warn!(tenant = full.tenant.name_any(), %error, "no room was made for a tenant whose storage is full");
            }
            let not_before = done.is_err().then(|| context.clock.now() + AFTER_FAILURE);
            let again = done.unwrap_or(true);
            let Full { deleted, limit, .. } = full;
            let known = Known { packing, deleted, limit, again, not_before, busy: false };
            reclaims.lock().insert(full.id, known);
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether it is worth trying again although nothing more is deleted.
async fn make_room(
    context: &SharedContext,
    server: &Server,
    full: &Full,
    packing: &mut Packing,
) -> Result<bool, StepError> {
    if !context.leadership.is_current() {
        return Err(StepError::NotLeader);
    }
    // The turn may have been long in coming, and a table may take long: who has full access again by now must not find
    // its tables locked.
    let limit = || {
        let tenant =
            context.scopes.tenant(&full.tenant.namespace().unwrap_or_default(), &full.tenant.name_any())?;
        let status = context.written.newest(&tenant);
        let left_alone = is_paused(&tenant) || tenant.metadata.deletion_timestamp.is_some();
        let maximum = in_force(&status).get(STORAGE_BYTES).copied().flatten();
        maximum.filter(|_| is_held(&status) && !left_alone)
    };
    // Of one that is paused, it is asked again; who is not held any more is forgotten.
    let Some(maximum) = limit() else { return Ok(true) };
    // Fewer than that give full access back.
    let target = (room_again(maximum) - 1).max(0);
    let is_wanted = || context.leadership.is_current() && limit() == Some(maximum);
    let done = server.reclaim(full.id, &full.database, &full.modules, target, packing, &is_wanted).await?;
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
        "gave back the room of what a tenant deleted"
    );
    let amounts = Amounts::from([(STORAGE_BYTES.to_owned(), done.bytes_after)]);
    context.registry.record_usage(&[(full.id, amounts)], context.clock.now()).await?;
    context.usage_recorded.add(full.id);
    if done.bytes_after <= target {
        context.bulk.forget(&full.tenant.uid().unwrap_or_default());
        context.wake(&full.tenant.namespace().unwrap_or_default(), &full.tenant.name_any());
    }
    Ok(done.again)
}
