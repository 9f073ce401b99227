//! What follows when a tenant is not used: first a warning, then a hold.

use jiff::{SignedDuration, Timestamp};

use crate::api::plan::Inactivity;

/// What to do about a tenant that is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InactivityAction {
    /// Nothing, yet.
    Nothing,
    /// Publish a warning. The hold follows at this time, if the plan has one.
    Warn(Option<Timestamp>),
    /// Place the hold.
    Hold,
}

/// Decides for a tenant that was last used at `used_at`, and about which a warning was published at `warned_at`, if at
/// all.
pub fn inactivity_action(
    policy: &Inactivity,
    used_at: Timestamp,
    warned_at: Option<Timestamp>,
    now: Timestamp,
) -> InactivityAction {
    let after = |days: Option<i32>| {
        let length = SignedDuration::from_hours(24 * i64::from(days?));
        Some(used_at.checked_add(length).unwrap_or(Timestamp::MAX))
    };
    let holds_at = after(policy.hold_days);
    let Some(warns_at) = after(policy.warn_days) else {
        return if holds_at.is_some_and(|at| at <= now) {
            InactivityAction::Hold
        } else {
            InactivityAction::Nothing
        };
    };
    // A late warning leaves the same time until the hold as one in time.
    let notice = holds_at.map(|at| at.duration_since(warns_at));
    let held_from = |warned: Timestamp| Some(warned.checked_add(notice?).unwrap_or(Timestamp::MAX));
    match warned_at.filter(|at| used_at <= *at) {
        None if warns_at <= now => InactivityAction::Warn(held_from(now)),
        Some(warned) if held_from(warned).max(holds_at).is_some_and(|at| at <= now) => InactivityAction::Hold,
        None | Some(_) => InactivityAction::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(n: i64) -> Timestamp {
        Timestamp::from_second(1_000_000_000 + n * 86_400).unwrap()
    }

    #[test]
    fn warning_is_published_once_before_the_hold() {
        let policy = Inactivity { warn_days: Some(60), hold_days: Some(90) };
        let action = |warned, now| inactivity_action(&policy, day(0), warned, day(now));
        assert_eq!(action(None, 59), InactivityAction::Nothing);
        assert_eq!(action(None, 60), InactivityAction::Warn(Some(day(90))));
        assert_eq!(action(Some(day(60)), 89), InactivityAction::Nothing);
        assert_eq!(action(Some(day(60)), 90), InactivityAction::Hold);
        // A warning from before the last use does not count.
        assert_eq!(action(Some(day(-1)), 60), InactivityAction::Warn(Some(day(90))));
        // No tenant is held without a warning, nor at once after a late one.
        assert_eq!(action(None, 500), InactivityAction::Warn(Some(day(530))));
        assert_eq!(action(Some(day(500)), 529), InactivityAction::Nothing);
        assert_eq!(action(Some(day(500)), 530), InactivityAction::Hold);
    }

    #[test]
    fn warning_and_hold_are_each_optional() {
        let warn = Inactivity { warn_days: Some(1), hold_days: None };
        assert_eq!(inactivity_action(&warn, day(0), None, day(500)), InactivityAction::Warn(None));
        let hold = Inactivity { warn_days: None, hold_days: Some(1) };
        assert_eq!(inactivity_action(&hold, day(0), None, day(0)), InactivityAction::Nothing);
        assert_eq!(inactivity_action(&hold, day(0), None, day(1)), InactivityAction::Hold);
    }
}
