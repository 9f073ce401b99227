//! What follows when nobody uses a tenant: first a warning, then a hold.

use jiff::{SignedDuration, Timestamp};

use crate::api::plan::Inactivity;

/// What is to be done about a tenant that nobody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing, yet.
    Nothing,
    /// Somebody is to be told; the hold, if one follows, comes at this time.
    Warn(Option<Timestamp>),
    /// It is to be held.
    Hold,
}

/// Judges a tenant that was last used at `used_at`, and about which somebody was warned at `warned_at`, if at all.
pub fn verdict(
    policy: &Inactivity,
    used_at: Timestamp,
    warned_at: Option<Timestamp>,
    now: Timestamp,
) -> Verdict {
    let after = |days: Option<i32>| {
        let length = SignedDuration::from_hours(24 * i64::from(days?));
        Some(used_at.checked_add(length).unwrap_or(Timestamp::MAX))
    };
    let holds_at = after(policy.hold_days);
    let Some(warns_at) = after(policy.warn_days) else {
        return if holds_at.is_some_and(|at| at <= now) { Verdict::Hold } else { Verdict::Nothing };
    };
    // Whoever is warned late has as much time as others have.
    let notice = holds_at.map(|at| at.duration_since(warns_at));
    let held_from = |warned: Timestamp| Some(warned.checked_add(notice?).unwrap_or(Timestamp::MAX));
    match warned_at.filter(|at| used_at <= *at) {
        None if warns_at <= now => Verdict::Warn(held_from(now)),
        Some(warned) if held_from(warned).max(holds_at).is_some_and(|at| at <= now) => Verdict::Hold,
        None | Some(_) => Verdict::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(n: i64) -> Timestamp {
        Timestamp::from_second(1_000_000_000 + n * 86_400).unwrap()
    }

    #[test]
    fn a_warning_comes_once_and_then_the_hold() {
        let policy = Inactivity { warn_days: Some(60), hold_days: Some(90) };
        let judge = |warned, now| verdict(&policy, day(0), warned, day(now));
        assert_eq!(judge(None, 59), Verdict::Nothing);
        assert_eq!(judge(None, 60), Verdict::Warn(Some(day(90))));
        assert_eq!(judge(Some(day(60)), 89), Verdict::Nothing);
        assert_eq!(judge(Some(day(60)), 90), Verdict::Hold);
        // A warning from before it was used again does not count.
        assert_eq!(judge(Some(day(-1)), 60), Verdict::Warn(Some(day(90))));
        // Nobody is held without a warning, nor at once after one that came late.
        assert_eq!(judge(None, 500), Verdict::Warn(Some(day(530))));
        assert_eq!(judge(Some(day(500)), 529), Verdict::Nothing);
        assert_eq!(judge(Some(day(500)), 530), Verdict::Hold);
    }

    #[test]
    fn either_can_be_left_out() {
        let warn = Inactivity { warn_days: Some(1), hold_days: None };
        assert_eq!(verdict(&warn, day(0), None, day(500)), Verdict::Warn(None));
        let hold = Inactivity { warn_days: None, hold_days: Some(1) };
        assert_eq!(verdict(&hold, day(0), None, day(0)), Verdict::Nothing);
        assert_eq!(verdict(&hold, day(0), None, day(1)), Verdict::Hold);
    }
}
