//! The lifecycle of a tenant: one table of (from, event, guard) → to. Tests compare `docs/lifecycle.md` and the
//! registry's own guard with it; a transition that is not in it does not happen.

use super::observed::RegistryStatus;

use RegistryStatus::{Active, Deprovisioned, Deprovisioning, Failed, Provisioning, Suspended, Trial};

/// What happens to a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The last step of the first provisioning succeeded.
    Activated,
    /// The first provisioning met a permanent error.
    ProvisioningFailed,
    /// A failed first provisioning is retried.
    Retried,
    /// Access was evaluated, and the result is in force.
    AccessEvaluated,
    /// The Tenant was deleted or vanished, or its spec asks for Deprovisioned.
    DeprovisioningBegun,
    /// The Tenant was applied again, or its state was changed back, before the grace period ended.
    Reinstated,
    /// The grace period ended, and what is not retained was removed.
    Purged,
}

impl Event {
    /// All events.
    pub const ALL: [Self; 7] = [
        Self::Activated,
        Self::ProvisioningFailed,
        Self::Retried,
        Self::AccessEvaluated,
        Self::DeprovisioningBegun,
        Self::Reinstated,
        Self::Purged,
    ];
}

/// The condition of a transition, beyond its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// No condition.
    Always,
    /// Access is not restricted, and the tenant is in a trial.
    InTrial,
    /// Access is not restricted, and the tenant is not in a trial.
    Unrestricted,
    /// Access is restricted by the state, holds, gates, the trial or the validity.
    Restricted,
    /// The tenant was active before. It is restored without access until that is evaluated.
    WasActivated,
    /// The tenant was never active: there is nothing to restore.
    NeverActivated,
    /// The tenant's databases are dropped, or its deletion policy is Retain.
    DatabaseDroppedOrRetained,
}

impl Guard {
    /// The text in the documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "",
            Self::InTrial => "access is not restricted, in a trial",
            Self::Unrestricted => "access is not restricted",
            Self::Restricted => "access is restricted",
            Self::WasActivated => "was activated",
            Self::NeverActivated => "was never activated",
            Self::DatabaseDroppedOrRetained => "no database left, or Retain",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: RegistryStatus,
    /// The event.
    pub event: Event,
    /// The condition.
    pub guard: Guard,
    /// The state after.
    pub to: RegistryStatus,
}

const fn row(from: RegistryStatus, event: Event, guard: Guard, to: RegistryStatus) -> Transition {
    Transition { from, event, guard, to }
}

/// The table.
pub const TRANSITIONS: [Transition; 22] = [
    row(Provisioning, Event::Activated, Guard::InTrial, Trial),
    row(Provisioning, Event::Activated, Guard::Unrestricted, Active),
    row(Provisioning, Event::Activated, Guard::Restricted, Suspended),
    row(Provisioning, Event::ProvisioningFailed, Guard::Always, Failed),
    row(Failed, Event::Retried, Guard::Always, Provisioning),
    row(Trial, Event::AccessEvaluated, Guard::Unrestricted, Active),
    row(Trial, Event::AccessEvaluated, Guard::Restricted, Suspended),
    row(Active, Event::AccessEvaluated, Guard::InTrial, Trial),
    row(Active, Event::AccessEvaluated, Guard::Restricted, Suspended),
    row(Suspended, Event::AccessEvaluated, Guard::InTrial, Trial),
    row(Suspended, Event::AccessEvaluated, Guard::Unrestricted, Active),
    row(Provisioning, Event::DeprovisioningBegun, Guard::Always, Deprovisioning),
    row(Failed, Event::DeprovisioningBegun, Guard::Always, Deprovisioning),
    row(Trial, Event::DeprovisioningBegun, Guard::Always, Deprovisioning),
    row(Active, Event::DeprovisioningBegun, Guard::Always, Deprovisioning),
    row(Suspended, Event::DeprovisioningBegun, Guard::Always, Deprovisioning),
    row(Deprovisioning, Event::Reinstated, Guard::WasActivated, Suspended),
    row(Deprovisioning, Event::Reinstated, Guard::NeverActivated, Provisioning),
    row(Deprovisioning, Event::Purged, Guard::DatabaseDroppedOrRetained, Deprovisioned),
    // The evaluation confirms the state: no transition, and no error.
    row(Trial, Event::AccessEvaluated, Guard::InTrial, Trial),
    row(Active, Event::AccessEvaluated, Guard::Unrestricted, Active),
    row(Suspended, Event::AccessEvaluated, Guard::Restricted, Suspended),
];

/// The state after an event; none if the table has no such transition.
pub fn state_after(
    from: RegistryStatus,
    event: Event,
    is_satisfied: impl Fn(Guard) -> bool,
) -> Option<RegistryStatus> {
    TRANSITIONS
        .iter()
        .find(|row| {
            row.from == from && row.event == event && (row.guard == Guard::Always || is_satisfied(row.guard))
        })
        .map(|row| row.to)
}

/// Whether the table has a transition between two states, by any event.
pub fn is_possible(from: RegistryStatus, to: RegistryStatus) -> bool {
    TRANSITIONS.iter().any(|row| row.from == from && row.to == to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUARDS: [Guard; 6] = [
        Guard::InTrial,
        Guard::Unrestricted,
        Guard::Restricted,
        Guard::WasActivated,
        Guard::NeverActivated,
        Guard::DatabaseDroppedOrRetained,
    ];

    #[test]
    fn deprovisioned_is_reached_by_purge_only_and_is_final() {
        for row in TRANSITIONS {
            assert!(
                row.to != Deprovisioned || row.from == Deprovisioning && row.event == Event::Purged,
                "{row:?}"
            );
            assert_ne!(row.from, Deprovisioned, "{row:?}");
        }
    }

    #[test]
    fn every_other_state_can_begin_deprovisioning_once() {
        for state in RegistryStatus::ALL {
            let after = state_after(state, Event::DeprovisioningBegun, |_| false);
            let expected = (!matches!(state, Deprovisioning | Deprovisioned)).then_some(Deprovisioning);
            assert_eq!(after, expected, "{state:?}");
        }
    }

    #[test]
    fn every_state_event_and_guard_has_at_most_one_outcome() {
        for from in RegistryStatus::ALL {
            for event in Event::ALL {
                for guard in GUARDS {
                    let rows = TRANSITIONS.iter().filter(|row| {
                        row.from == from
                            && row.event == event
                            && (row.guard == guard || row.guard == Guard::Always)
                    });
                    let outcomes: Vec<_> = rows.map(|row| row.to).collect();
                    assert!(outcomes.len() <= 1, "{from:?} {event:?} {guard:?}: {outcomes:?}");
                    assert_eq!(state_after(from, event, |asked| asked == guard), outcomes.first().copied());
                }
            }
        }
    }

    #[test]
    fn activated_states_accept_every_access_evaluation() {
        for state in RegistryStatus::ALL {
            for guard in [Guard::InTrial, Guard::Unrestricted, Guard::Restricted] {
                let after = state_after(state, Event::AccessEvaluated, |asked| asked == guard);
                assert_eq!(after.is_some(), state.was_active(), "{state:?} {guard:?}");
            }
        }
    }

    #[test]
    fn reinstated_tenant_has_no_access_before_evaluation() {
        for row in TRANSITIONS.iter().filter(|row| row.event == Event::Reinstated) {
            assert!(matches!(row.to, Suspended | Provisioning), "{row:?}");
        }
    }

    #[test]
    fn every_state_is_reachable_from_provisioning() {
        let mut reached = vec![Provisioning];
        while let Some(more) =
            TRANSITIONS.iter().find(|row| reached.contains(&row.from) && !reached.contains(&row.to))
        {
            reached.push(more.to);
        }
        assert_eq!(reached.len(), RegistryStatus::ALL.len());
    }
}
