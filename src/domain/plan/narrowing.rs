//! The plan of a tenant that lives and whose spec cannot be acted on.

use super::{ObjectFacts, Plan, Wanted};
use crate::{
    api::tenant_status::WorkflowKind,
    domain::{
        access::AccessLevel,
        observed::{DatabaseFacts, LoginFacts, Observation, Observed, RegistryStatus},
        steps::Step,
    },
};

/// Plans for a Tenant that lives, with a spec that cannot be acted on: access that it must not have is taken all the
/// same, and nothing else is done.
pub fn plan_narrowing(object: ObjectFacts, wanted: Wanted<'_>, observed: &Observed) -> Plan {
    let (Observation::Known(row), Observation::Known(server)) = (&observed.registry, &observed.server) else {
        return Plan::Nothing;
    };
    let ours = match server.login {
        LoginFacts::Ours { access_current, .. } if server.database == DatabaseFacts::Ours => {
            Some(access_current)
        }
        _ => None,
    };
    // Nothing is given: the wanted level, or one that was recorded and is not in force any more.
    let full = wanted.access == AccessLevel::ReadWrite;
    let narrows = ours.is_some_and(|access_current| match row.recorded_access {
        None => !full,
        Some(recorded) => wanted.access < recorded || wanted.access == recorded && !full && !access_current,
    });
    let alive = !matches!(row.status, RegistryStatus::Deprovisioning | RegistryStatus::Deprovisioned);
    let narrows = narrows && alive;
    let asked = [
        (Step::ClaimFinalizer, !object.has_finalizer),
        (Step::EnforceAccess, narrows),
        (Step::RecordState, narrows && row.status.was_active()),
    ];
    let steps: Vec<Step> = asked.into_iter().filter(|(_, asked)| *asked).map(|(step, _)| step).collect();
    if steps.is_empty() || object.paused {
        return Plan::Nothing;
    }
    let kind = if narrows { WorkflowKind::Suspend } else { WorkflowKind::Repair };
    Plan::Run { kind, steps, again: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::fixtures::*;

    #[test]
    fn access_that_it_must_not_have_is_taken_all_the_same_and_none_is_given() {
        let taken = vec![Step::EnforceAccess, Step::RecordState];
        let suspend = Plan::Run { kind: WorkflowKind::Suspend, steps: taken, again: false };
        let invalid = |wanted| plan_narrowing(OBJECT, wanted, &judged_anew(RegistryStatus::Active));
        assert_eq!(invalid(BLOCKED), suspend);
        // What was recorded and is not in force any more is taken too, and what a provisioning had given.
        let mut restored = judged_anew(RegistryStatus::Suspended);
        let Observation::Known(row) = &mut restored.registry else { unreachable!() };
        row.recorded_access = Some(AccessLevel::Blocked);
        assert_eq!(plan_narrowing(OBJECT, BLOCKED, &restored), suspend);
        let making = judged_anew(RegistryStatus::Provisioning);
        assert_eq!(steps(plan_narrowing(OBJECT, BLOCKED, &making)), [Step::EnforceAccess]);
        assert_eq!(invalid(WANTED), Plan::Nothing);
        // Nor does it keep a finalizer that was taken away from being put back.
        let object = ObjectFacts { has_finalizer: false, ..OBJECT };
        let claimed = plan_narrowing(object, WANTED, &judged_anew(RegistryStatus::Active));
        assert_eq!(steps(claimed), [Step::ClaimFinalizer]);
    }
}
