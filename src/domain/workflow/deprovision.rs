//! Plans the deprovisioning of a tenant.

use jiff::{SignedDuration, Timestamp};

use super::{
    BlockedReason, NextAction, ObjectState, TenantObject,
    activation::is_forgotten,
    gives_back, has_own_database,
    step::{Step, select},
};
use crate::{
    api::tenant_status::WorkflowKind,
    domain::{
        breaker::{BreakerState, COUNT_FIRST, PurgeContext},
        observed::{
            BuildingFacts, DatabaseFacts, LoginFacts, Observation, ObservedFacts, RegistryFacts,
            RegistryStatus, ServerFacts,
        },
        offboarding::PurgeTerms,
    },
};

/// How long the finalizer is kept while revocation of access cannot be verified. After that the object is released, and
/// the operator continues from the registry.
pub const RELEASE_UNVERIFIED_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// Plans for a tenant that is being deprovisioned: its object is being deleted or does not exist, or its spec asks for
/// it. It needs no valid spec: only the registry row, with its recorded names, and the terms.
///
/// The finalizer guards one thing: that the registry knows of the deletion. With grace left, or where the database is
/// retained or the tenant has a legal hold, it is released once the tombstone is written and revocation of access is
/// verified, or after [`RELEASE_UNVERIFIED_AFTER`]. With no grace left, it is kept until the tenant is deprovisioned.
pub fn plan_deprovision(
    object: TenantObject,
    terms: PurgeTerms,
    observed: &ObservedFacts,
    context: impl Into<PurgeContext>,
) -> NextAction {
    let context = context.into();
    if matches!(object.state, ObjectState::Deleting(_)) && !object.has_finalizer {
        return NextAction::Done;
    }
    let row = match &observed.registry {
        Observation::Unknown(why) => {
            return NextAction::Blocked(BlockedReason::RegistryUnknown(why.clone()));
        }
        Observation::Absent => return without_row(object),
        Observation::Known(row) => row,
    };
    if row.status == RegistryStatus::Deprovisioned {
        let deleting = is_deleting(object);
        return run(select([(Step::RemoveSecrets, deleting), (Step::ReleaseFinalizer, deleting)]));
    }
    if object.state == ObjectState::Present && object.paused && row.tombstone.is_none() {
        return NextAction::Blocked(BlockedReason::Paused);
    }
    if is_forgotten(row, object, observed) {
        return NextAction::Run {
            kind: WorkflowKind::Deprovision,
            steps: vec![Step::RestoreActivation],
            again: true,
        };
    }
    let terms = terms_in_force(row, terms);
    let purge = purge_decision(row, terms, context);
    let tombstone_current = row.tombstone == Some(terms);
    let release_overdue = tombstone_current && is_release_overdue(object, purge, context.now);
    let server = match &observed.server {
        Observation::Known(server) => server,
        Observation::Unknown(_) | Observation::Absent if !tombstone_current => {
            return NextAction::Run {
                kind: WorkflowKind::Deprovision,
                steps: vec![Step::Tombstone],
                again: true,
            };
        }
        Observation::Unknown(_) | Observation::Absent if release_overdue => {
            return run(vec![Step::ReleaseFinalizer]);
        }
        Observation::Unknown(why) => return NextAction::Blocked(BlockedReason::ServerUnknown(why.clone())),
        Observation::Absent => return NextAction::Blocked(BlockedReason::server_not_asked()),
    };
    let access_revoked = is_access_revoked(row, server);
    if release_overdue && !access_revoked {
        // CutAccess was tried already, and is retried from the registry.
        return run(vec![Step::ReleaseFinalizer]);
    }
    if purge == PurgeDecision::Drop && is_database_replaced(row, server) {
        let steps = select([(Step::CutAccess, !access_revoked), (Step::Tombstone, !tombstone_current)]);
        return if steps.is_empty() {
            NextAction::Blocked(BlockedReason::ForeignDatabase)
        } else {
            run(steps)
        };
    }
    let closes = purge.closes();
    // Nothing of a database that is given back is retained.
    let returns = gives_back(row) && closes;
    let drops = purge == PurgeDecision::Drop || returns;
    run(select([
        (Step::ClaimFinalizer, object.state == ObjectState::Present && !object.has_finalizer),
        (Step::CutAccess, !access_revoked),
        (Step::Tombstone, !tombstone_current),
        // A recorded database that does not exist was dropped by an interrupted run, or by hand: the step records it.
        (Step::GiveBack, returns && row.database_recorded),
        (Step::DropDatabase, drops && !returns && (has_own_database(server) || row.database_recorded)),
        (Step::DropRoles, drops && server.has_login()),
        (Step::RemoveSecrets, closes),
        (Step::Close, closes),
        (Step::ReleaseFinalizer, is_deleting(object) && purge != PurgeDecision::Postponed),
    ]))
}

/// What this run may do about the end of the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PurgeDecision {
    /// Nothing: the grace period has not ended, the purge is held, the tenant has a legal hold, the breaker of mass
    /// deletions is open, or the terms of a retained database are recorded first. The object is released.
    NotDue,
    /// The database will be dropped, but not in this run: its terms are recorded first, or the breaker has not counted
    /// this deprovisioning yet. The object is kept until the tenant is deprovisioned.
    Postponed,
    /// The database is retained; the row is closed.
    Close,
    /// Database and login are dropped, and the row is closed.
    Drop,
}

impl PurgeDecision {
    fn closes(self) -> bool {
        matches!(self, Self::Close | Self::Drop)
    }
}

/// Decides from the terms, the breaker and the time. A run that records changed terms never acts on them: the next one
/// does, if they are still the same.
fn purge_decision(row: &RegistryFacts, terms: PurgeTerms, context: PurgeContext) -> PurgeDecision {
    // The breaker protects databases that were in use; it does not stop a purge that has begun.
    let guarded = row.activated && !row.purging && !terms.retain;
    let frozen = guarded && context.breaker == BreakerState::Open;
    // It stops every purge that has not begun, also that of a tenant that was never active, and the close of a retained
    // one: it would end with the row.
    let preserved = row.preserved && !row.purging;
    if terms.held || preserved || frozen || context.now < terms.purge_after {
        return PurgeDecision::NotDue;
    }
    let changed = row.tombstone.is_some_and(|recorded| recorded != terms);
    match (terms.retain, changed) {
        (true, true) => PurgeDecision::NotDue,
        (true, false) => PurgeDecision::Close,
        (false, false) if !guarded || is_counted(row, context) => PurgeDecision::Drop,
        (false, _) => PurgeDecision::Postponed,
    }
}

/// Whether the breaker has counted this deprovisioning, together with those that began, or whose grace was made shorter, at
/// about the same time.
fn is_counted(row: &RegistryFacts, context: PurgeContext) -> bool {
    match context.breaker {
        BreakerState::Disabled | BreakerState::Open => true,
        BreakerState::Unknown => false,
        BreakerState::Closed => {
            let changed_at = row.departed_at.max(row.hastened_at);
            changed_at.is_some_and(|at| context.now.duration_since(at) >= COUNT_FIRST)
        }
    }
}

/// A purge that has begun is finished on the terms on which it began.
fn terms_in_force(row: &RegistryFacts, terms: PurgeTerms) -> PurgeTerms {
    row.tombstone.filter(|_| row.purging).unwrap_or(terms)
}

/// Plans for a tenant that the registry does not know.
fn without_row(object: TenantObject) -> NextAction {
    match object.state {
        _ if object.was_registered && object.adopts_row => {
            NextAction::Run { kind: WorkflowKind::Deprovision, steps: vec![Step::AdoptRow], again: true }
        }
        // The row accounts for what the tenant has.
        ObjectState::Deleting(_) if object.is_elsewhere => run(vec![Step::ReleaseFinalizer]),
        _ if object.is_elsewhere => NextAction::Blocked(BlockedReason::Elsewhere),
        // The registry was lost or restored: the tenant may have a database that only the row accounts for.
        _ if object.was_registered => NextAction::Blocked(BlockedReason::RowMissing),
        // Never registered, or refused because its slug is taken: nothing outside of the object belongs to it.
        ObjectState::Deleting(_) => run(vec![Step::ReleaseFinalizer]),
        ObjectState::Deleted => NextAction::Done,
        ObjectState::Present if object.paused => NextAction::Blocked(BlockedReason::Paused),
        // It may be the Tenant of a tombstone, which registering finds.
        ObjectState::Present => NextAction::Run {
            kind: WorkflowKind::Deprovision,
            steps: vec![Step::ClaimFinalizer, Step::Register],
            again: true,
        },
    }
}

fn is_deleting(object: TenantObject) -> bool {
    matches!(object.state, ObjectState::Deleting(_))
}

/// Whether the object has waited long enough for revocation of access to be verified.
fn is_release_overdue(object: TenantObject, purge: PurgeDecision, now: Timestamp) -> bool {
    match (object.state, purge) {
        (ObjectState::Deleting(at), PurgeDecision::NotDue | PurgeDecision::Close) => {
            now.duration_since(at) >= RELEASE_UNVERIFIED_AFTER
        }
        (ObjectState::Deleting(_), PurgeDecision::Postponed | PurgeDecision::Drop) => false,
        (ObjectState::Present | ObjectState::Deleted, _) => false,
    }
}

fn is_access_revoked(row: &RegistryFacts, server: &ServerFacts) -> bool {
    match server.login {
        LoginFacts::Ours { access_current, .. } => access_current && row.access_recorded,
        LoginFacts::Absent => row.access_recorded && server.are_others_current(),
        LoginFacts::Renamed => false,
        // Another owner's role does not show what the tenant's login had. A tenant that was never active had no access.
        LoginFacts::Foreign => row.access_recorded || !row.activated,
    }
}

/// Whether another database has the name of the tenant's, which was in use. Where the tenant's database is now is not
/// known, so that nothing is closed.
fn is_database_replaced(row: &RegistryFacts, server: &ServerFacts) -> bool {
    server.database == DatabaseFacts::Foreign
        && server.building == BuildingFacts::Absent
        && row.activated
        && row.database_recorded
}

fn run(steps: Vec<Step>) -> NextAction {
    NextAction::run(WorkflowKind::Deprovision, steps)
}

#[cfg(test)]
mod tests;
