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
    if holds_at.is_some_and(|at| at <= now) {
        return Verdict::Hold;
    }
    let warned = warned_at.is_some_and(|at| used_at <= at);
    if !warned && after(policy.warn_days).is_some_and(|at| at <= now) {
        return Verdict::Warn(holds_at);
    }
    Verdict::Nothing
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
