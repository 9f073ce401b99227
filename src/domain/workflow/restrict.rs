//! Plans for an active Tenant whose spec is not valid.

use super::{
    BlockedReason, NextAction, ProvisionTarget, TenantObject,
    step::{Step, select},
};
use crate::{
    api::tenant_status::WorkflowKind,
    domain::{
        access::AccessLevel,
        observed::{DatabaseFacts, LoginFacts, Observation, ObservedFacts, RegistryFacts, RegistryStatus},
        rotation::PreviousState,
    },
};

/// Plans for a Tenant that is not being deprovisioned and whose spec is not valid: access that it must not have is
/// revoked nevertheless, and nothing else is done.
pub fn plan_restriction(
    object: TenantObject,
    target: ProvisionTarget<'_>,
    observed: &ObservedFacts,
) -> NextAction {
    if object.is_elsewhere && observed.registry == Observation::Absent {
        return NextAction::Blocked(BlockedReason::Elsewhere);
    }
    let (Observation::Known(row), Observation::Known(server)) = (&observed.registry, &observed.server) else {
        return NextAction::Done;
    };
    let restricts = match server.login {
        LoginFacts::Ours { access_current, .. } if server.database == DatabaseFacts::Ours => {
            must_restrict(row, target.access, access_current)
        }
        LoginFacts::Renamed if server.database == DatabaseFacts::Ours => {
            must_restrict(row, target.access, false)
        }
        // A rotation of the credentials was interrupted.
        LoginFacts::Absent if server.database == DatabaseFacts::Ours && server.has_login() => {
            must_restrict(row, target.access, server.are_others_current())
        }
        LoginFacts::Ours { .. } | LoginFacts::Renamed | LoginFacts::Absent | LoginFacts::Foreign => false,
    };
    let steps = select([
        (Step::ClaimFinalizer, !object.has_finalizer),
        (Step::CreateRoles, restricts && server.login == LoginFacts::Absent),
        (Step::EnforceAccess, restricts),
        (Step::RecordState, restricts && row.status.was_active()),
        (Step::RetireLogin, row.status.was_active() && row.previous == PreviousState::Over),
        (
            Step::RemoveReader,
            row.status.was_active() && observed.reader.is_recorded && !observed.reader.is_wanted,
        ),
    ]);
    if object.paused {
        return NextAction::Done;
    }
    NextAction::run(if restricts { WorkflowKind::Suspend } else { WorkflowKind::Repair }, steps)
}

/// Whether the level is narrower than the recorded one, or is recorded and not in force any more. Access is never
/// granted here.
fn must_restrict(row: &RegistryFacts, level: AccessLevel, in_force: bool) -> bool {
    let is_full = level == AccessLevel::ReadWrite;
    match (row.status, row.recorded_access) {
        (RegistryStatus::Deprovisioning | RegistryStatus::Deprovisioned, _) => false,
        (_, None) => !is_full,
        (_, Some(recorded)) => level < recorded || level == recorded && !is_full && !in_force,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::workflow::fixtures::*;

    #[test]
    fn invalid_spec_restricts_access_and_never_grants_it() {
        let revoked = vec![Step::EnforceAccess, Step::RecordState];
        let suspend = NextAction::Run { kind: WorkflowKind::Suspend, steps: revoked, again: false };
        let invalid = |wanted| plan_restriction(OBJECT, wanted, &access_reevaluated(RegistryStatus::Active));
        assert_eq!(invalid(BLOCKED), suspend);
        // A recorded level that is not in force any more is enforced too, also during provisioning.
        let mut restored = access_reevaluated(RegistryStatus::Suspended);
        let Observation::Known(row) = &mut restored.registry else { unreachable!() };
        row.recorded_access = Some(AccessLevel::Blocked);
        assert_eq!(plan_restriction(OBJECT, BLOCKED, &restored), suspend);
        let making = access_reevaluated(RegistryStatus::Provisioning);
        assert_eq!(steps(plan_restriction(OBJECT, BLOCKED, &making)), [Step::EnforceAccess]);
        assert_eq!(invalid(WANTED), NextAction::Done);
        // A removed finalizer is added again.
        let object = TenantObject { has_finalizer: false, ..OBJECT };
        let claimed = plan_restriction(object, WANTED, &access_reevaluated(RegistryStatus::Active));
        assert_eq!(steps(claimed), [Step::ClaimFinalizer]);
    }
}
