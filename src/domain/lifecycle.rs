//! The life of a tenant: one table of (from, event, guard) → to. `docs/lifecycle.md` and the registry's own guard are
//! held to it by tests; what is not in it does not happen.

use super::observed::RegistryStatus;

/// Where a tenant is in its life: the registry's status.
pub type State = RegistryStatus;

use RegistryStatus::{Active, Deprovisioned, Deprovisioning, Failed, Provisioning, Suspended, Trial};

/// What happens to a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The last step of the first provisioning is done.
    HandedOut,
    /// The first provisioning met an error that does not pass by itself.
    ProvisioningFailed,
    /// A failed first provisioning is tried again.
    Retried,
    /// What it may do was judged anew, and put in force.
    Judged,
    /// Its object was deleted or vanished, or its spec says Deprovisioned.
    Departed,
    /// It was applied again, or its spec was set back, in time.
    CameBack,
    /// The grace is over, and everything that goes is gone.
    Purged,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::HandedOut,
        Self::ProvisioningFailed,
        Self::Retried,
        Self::Judged,
        Self::Departed,
        Self::CameBack,
        Self::Purged,
    ];
}

/// What must be so, beyond the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// Nothing.
    Always,
    /// Nothing narrows its access, and it is in a trial.
    InTrial,
    /// Nothing narrows its access, and it is in none.
    Free,
    /// Something narrows its access: the strictest of state, holds, trial, validity.
    Narrowed,
    /// It was handed out before it departed: back, cut off still, until its access is judged.
    WasHandedOut,
    /// It was never handed out: nothing of it is lost.
    NeverHandedOut,
    /// Every database of it is dropped, or its policy is Retain.
    NothingLeft,
}

impl Guard {
    /// In the words of the documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "",
            Self::InTrial => "nothing narrows access, in a trial",
            Self::Free => "nothing narrows access",
            Self::Narrowed => "something narrows access",
            Self::WasHandedOut => "was handed out",
            Self::NeverHandedOut => "was never handed out",
            Self::NothingLeft => "no database left, or Retain",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// From where.
    pub from: State,
    /// By what.
    pub event: Event,
    /// If what.
    pub guard: Guard,
    /// To where.
    pub to: State,
}

const fn row(from: State, event: Event, guard: Guard, to: State) -> Transition {
    Transition { from, event, guard, to }
}

/// The table.
pub const TRANSITIONS: [Transition; 22] = [
    row(Provisioning, Event::HandedOut, Guard::InTrial, Trial),
    row(Provisioning, Event::HandedOut, Guard::Free, Active),
    row(Provisioning, Event::HandedOut, Guard::Narrowed, Suspended),
    row(Provisioning, Event::ProvisioningFailed, Guard::Always, Failed),
    row(Failed, Event::Retried, Guard::Always, Provisioning),
    row(Trial, Event::Judged, Guard::Free, Active),
    row(Trial, Event::Judged, Guard::Narrowed, Suspended),
    row(Active, Event::Judged, Guard::InTrial, Trial),
    row(Active, Event::Judged, Guard::Narrowed, Suspended),
    row(Suspended, Event::Judged, Guard::InTrial, Trial),
    row(Suspended, Event::Judged, Guard::Free, Active),
    row(Provisioning, Event::Departed, Guard::Always, Deprovisioning),
    row(Failed, Event::Departed, Guard::Always, Deprovisioning),
    row(Trial, Event::Departed, Guard::Always, Deprovisioning),
    row(Active, Event::Departed, Guard::Always, Deprovisioning),
    row(Suspended, Event::Departed, Guard::Always, Deprovisioning),
    row(Deprovisioning, Event::CameBack, Guard::WasHandedOut, Suspended),
    row(Deprovisioning, Event::CameBack, Guard::NeverHandedOut, Provisioning),
    row(Deprovisioning, Event::Purged, Guard::NothingLeft, Deprovisioned),
    // Judged to be what it is: no transition, and no error.
    row(Trial, Event::Judged, Guard::InTrial, Trial),
    row(Active, Event::Judged, Guard::Free, Active),
    row(Suspended, Event::Judged, Guard::Narrowed, Suspended),
];

/// Where an event leads, if the tenant's life has it.
pub fn next(from: State, event: Event, holds: impl Fn(Guard) -> bool) -> Option<State> {
    TRANSITIONS
        .iter()
        .find(|row| {
            row.from == from && row.event == event && (row.guard == Guard::Always || holds(row.guard))
        })
        .map(|row| row.to)
}

/// Whether a tenant ever goes from one state to the other, by whatever event.
pub fn leads(from: State, to: State) -> bool {
    TRANSITIONS.iter().any(|row| row.from == from && row.to == to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUARDS: [Guard; 6] = [
        Guard::InTrial,
        Guard::Free,
        Guard::Narrowed,
        Guard::WasHandedOut,
        Guard::NeverHandedOut,
        Guard::NothingLeft,
    ];

    #[test]
    fn there_is_one_way_to_the_end_and_none_from_there() {
        for row in TRANSITIONS {
            assert!(
                row.to != Deprovisioned || row.from == Deprovisioning && row.event == Event::Purged,
                "{row:?}"
            );
            assert_ne!(row.from, Deprovisioned, "{row:?}");
        }
    }

    #[test]
    fn everything_that_is_not_gone_can_depart_and_nothing_departs_twice() {
        for state in RegistryStatus::ALL {
            let leaves = next(state, Event::Departed, |_| false);
            let expected = (!matches!(state, Deprovisioning | Deprovisioned)).then_some(Deprovisioning);
            assert_eq!(leaves, expected, "{state:?}");
        }
    }

    #[test]
    fn every_state_event_and_guard_has_one_outcome_or_none() {
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
                    assert_eq!(next(from, event, |asked| asked == guard), outcomes.first().copied());
                }
            }
        }
    }

    #[test]
    fn what_was_handed_out_is_judged_whatever_the_verdict() {
        for state in RegistryStatus::ALL {
            for guard in [Guard::InTrial, Guard::Free, Guard::Narrowed] {
                let judged = next(state, Event::Judged, |asked| asked == guard);
                assert_eq!(judged.is_some(), state.was_active(), "{state:?} {guard:?}");
            }
        }
    }

    #[test]
    fn what_comes_back_is_cut_off_until_it_is_judged() {
        for row in TRANSITIONS.iter().filter(|row| row.event == Event::CameBack) {
            assert!(matches!(row.to, Suspended | Provisioning), "{row:?}");
        }
    }

    #[test]
    fn every_state_is_reached_from_the_first_one() {
        let mut reached = vec![Provisioning];
        while let Some(more) =
            TRANSITIONS.iter().find(|row| reached.contains(&row.from) && !reached.contains(&row.to))
        {
            reached.push(more.to);
        }
        assert_eq!(reached.len(), RegistryStatus::ALL.len());
    }
}
