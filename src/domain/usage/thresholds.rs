//! How close a tenant is to its limits, and what follows. Levels have a hysteresis, so that a tenant at the edge of a
//! level does not alternate with every sample.

use std::collections::BTreeSet;

use super::entitlements::{Amounts, CONNECTIONS, Limits, Maximum, STORAGE_BYTES};

/// A warning begins at this share of a limit, in percent.
const NEAR: i128 = 80;
/// A warning ends below this share of the limit, in percent.
const NEAR_NO_MORE: i128 = 75;
/// A tenant that had reached its storage limit has full access again below this share of it, in percent.
const ROOM_AGAIN: i64 = 90;

/// Changes of a database's size below this are not shown.
const MEBIBYTE: u64 = 1 << 20;

/// How close a tenant is to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsageLevel {
    /// Well below the limit.
    Normal,
    /// Near the limit.
    Near,
    /// Exactly at the limit.
    Reached,
    /// Above the limit: it was lowered, or it is only sampled.
    Exceeded,
}

/// The level of a usage. `warned`: a warning exists already, and ends later than it begins.
pub fn usage_level(used: i64, maximum: Maximum, warned: bool) -> UsageLevel {
    let Some(maximum) = maximum else { return UsageLevel::Normal };
    let near = if warned { NEAR_NO_MORE } else { NEAR };
    match used.cmp(&maximum) {
        std::cmp::Ordering::Greater => UsageLevel::Exceeded,
        std::cmp::Ordering::Equal => UsageLevel::Reached,
        std::cmp::Ordering::Less if i128::from(used) * 100 >= i128::from(maximum) * near => UsageLevel::Near,
        std::cmp::Ordering::Less => UsageLevel::Normal,
    }
}

/// The limits that a warning exists for, by name.
pub type WarnedLimits = BTreeSet<String>;

/// As [`usage_level`], for a limit by name. Sessions come and go all the time, so that only too many of them are
/// reported: those from before the limit was lowered.
pub fn usage_level_of(name: &str, used: i64, limits: &Limits, warned: &WarnedLimits) -> UsageLevel {
    match usage_level(used, limits.get(name).copied().flatten(), warned.contains(name)) {
        UsageLevel::Near | UsageLevel::Reached if name == CONNECTIONS => UsageLevel::Normal,
        level => level,
    }
}

/// The limits that are not at the normal level, with usage and maximum: the highest levels first, then by name.
pub fn levels_to_report<'a>(
    limits: &'a Limits,
    usage: &Amounts,
    warned: &WarnedLimits,
) -> Vec<(UsageLevel, &'a str, i64, i64)> {
    let mut found: Vec<_> = limits
        .iter()
        .filter_map(|(name, maximum)| {
            let used = *usage.get(name)?;
            Some((usage_level_of(name, used, limits, warned), name.as_str(), used, (*maximum)?))
        })
        .filter(|(level, ..)| *level > UsageLevel::Normal)
        .collect();
    found.sort_by(|(a, a_name, ..), (b, b_name, ..)| (b, a_name).cmp(&(a, b_name)));
    found
}

/// What to do about the operator's own hold on a tenant that has reached its storage limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuotaHoldChange {
    /// Nothing, with or without a hold.
    Keep,
    /// Place the hold, or replace it.
    Place {
        /// The limit that is reached, in bytes.
        maximum: i64,
        /// The reason of the hold.
        reason: String,
    },
    /// Lift the hold.
    Lift,
}

/// Decides on the hold of a tenant, which is `held` since it had reached this limit, or not. A larger limit lifts the
/// hold at once, and so does none. Without a measurement nothing else changes.
pub fn quota_hold_change(held: Option<i64>, limits: &Limits, usage: &Amounts) -> QuotaHoldChange {
    let maximum = limits.get(STORAGE_BYTES).copied().flatten();
    let Some(maximum) = maximum else {
        return if held.is_some() { QuotaHoldChange::Lift } else { QuotaHoldChange::Keep };
    };
    let Some(used) = usage.get(STORAGE_BYTES).copied() else { return QuotaHoldChange::Keep };
    let reached = used >= maximum;
    match held {
        Some(before) if !reached && (maximum > before || used < quota_release_bytes(maximum)) => {
            QuotaHoldChange::Lift
        }
        Some(before) if maximum == before => QuotaHoldChange::Keep,
        None if !reached => QuotaHoldChange::Keep,
        Some(_) | None => QuotaHoldChange::Place {
            maximum,
            reason: format!(
                "the limit {STORAGE_BYTES} was reached: rows can be read and deleted, and full access returns automatically below {ROOM_AGAIN} % of its {maximum} bytes"
            ),
        },
    }
}

/// Below this usage, in bytes, a tenant that had reached its storage limit has full access again.
pub fn quota_release_bytes(maximum: i64) -> i64 {
    i64::try_from(i128::from(maximum) * i128::from(ROOM_AGAIN) / 100).unwrap_or(maximum)
}

/// The usage in the status: what is shown already, where the new amount differs by less than 5 % and is at the same
/// level, or by less than a mebibyte of storage, so that steady state writes nothing. Sessions are shown while there
/// are too many.
pub fn usage_to_show(before: &Amounts, now: &Amounts, limits: &Limits, warned: &WarnedLimits) -> Amounts {
    let level = |name: &str, used| usage_level_of(name, used, limits, warned);
    let amount = |(name, now): (&String, &i64)| {
        let kept = before.get(name).filter(|before| {
            let differs = i128::from(**before).abs_diff(i128::from(*now)) * 20;
            let negligible = name == STORAGE_BYTES && before.abs_diff(*now) < MEBIBYTE;
            let small = negligible || differs < u128::from(before.unsigned_abs());
            small && level(name, **before) == level(name, *now) || *before == now
        });
        (name.clone(), *kept.unwrap_or(now))
    };
    let is_shown =
        |(name, now): &(&String, &i64)| *name != CONNECTIONS || level(name, **now) > UsageLevel::Normal;
    now.iter().filter(is_shown).map(amount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(storage: Maximum) -> Limits {
        [("users".to_owned(), Some(5)), (STORAGE_BYTES.to_owned(), storage)].into()
    }

    fn not_warned() -> WarnedLimits {
        WarnedLimits::new()
    }

    fn used(amounts: &[(&str, i64)]) -> Amounts {
        amounts.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
    }

    #[test]
    fn warning_begins_at_80_and_ends_below_75_percent() {
        let level = |used, warned| usage_level(used, Some(100), warned);
        assert_eq!(
            [level(79, false), level(80, false), level(99, false)],
            [UsageLevel::Normal, UsageLevel::Near, UsageLevel::Near]
        );
        assert_eq!([level(100, false), level(101, false)], [UsageLevel::Reached, UsageLevel::Exceeded]);
        assert_eq!(
            [level(79, true), level(75, true), level(74, true)],
            [UsageLevel::Near, UsageLevel::Near, UsageLevel::Normal]
        );
        assert_eq!(usage_level(i64::MAX, None, false), UsageLevel::Normal);
        assert_eq!(usage_level(i64::MAX - 1, Some(i64::MAX), false), UsageLevel::Near);
        assert_eq!(
            [usage_level(0, Some(0), false), usage_level(1, Some(0), false)],
            [UsageLevel::Reached, UsageLevel::Exceeded]
        );
    }

    #[test]
    fn full_storage_is_held_until_there_is_room_again() {
        let change =
            |held, bytes, maximum| quota_hold_change(held, &plan(maximum), &used(&[(STORAGE_BYTES, bytes)]));
        let is_placed = |change: QuotaHoldChange, limit: i64| {
            matches!(change, QuotaHoldChange::Place { maximum, reason }
                if maximum == limit && reason.contains(&format!("{limit} bytes")))
        };
        let held = Some(1000);
        assert_eq!(change(None, 999, Some(1000)), QuotaHoldChange::Keep);
        assert!(is_placed(change(None, 1000, Some(1000)), 1000));
        assert_eq!(change(held, 1000, Some(1000)), QuotaHoldChange::Keep);
        assert_eq!(change(held, 900, Some(1000)), QuotaHoldChange::Keep);
        assert_eq!(change(held, 899, Some(1000)), QuotaHoldChange::Lift);
        // A larger limit lifts the hold at once, however little larger, and so does none.
        assert_eq!(change(held, 1000, Some(2000)), QuotaHoldChange::Lift);
        assert_eq!(change(held, 1000, Some(1001)), QuotaHoldChange::Lift);
        assert_eq!(change(held, 1000, None), QuotaHoldChange::Lift);
        assert_eq!(change(None, 1000, None), QuotaHoldChange::Keep);
        // Another limit without room replaces the hold, and applies from then on.
        assert!(is_placed(change(held, 1500, Some(1500)), 1500));
        assert!(is_placed(change(held, 1000, Some(500)), 500));
        assert!(is_placed(change(held, 480, Some(500)), 500));
        assert_eq!(change(held, 449, Some(500)), QuotaHoldChange::Lift);
        assert_eq!(change(Some(500), 480, Some(501)), QuotaHoldChange::Lift);
        assert_eq!(quota_hold_change(held, &plan(Some(10)), &Amounts::new()), QuotaHoldChange::Keep);
        assert_eq!(quota_hold_change(None, &plan(Some(10)), &Amounts::new()), QuotaHoldChange::Keep);
    }

    #[test]
    fn reported_levels_are_sorted_worst_first() {
        let (plan, usage) = (plan(Some(100)), used(&[("users", 6), (STORAGE_BYTES, 80), ("seats", 9)]));
        assert_eq!(
            levels_to_report(&plan, &usage, &not_warned()),
            [(UsageLevel::Exceeded, "users", 6, 5), (UsageLevel::Near, STORAGE_BYTES, 80, 100)]
        );
        assert_eq!(levels_to_report(&plan, &used(&[("users", 3)]), &not_warned()), []);
    }

    #[test]
    fn sessions_are_reported_only_above_their_limit() {
        let plan = Limits::from([(CONNECTIONS.to_owned(), Some(10))]);
        let reported =
            |sessions| levels_to_report(&plan, &used(&[(CONNECTIONS, sessions)]), &not_warned()).len();
        assert_eq!([reported(9), reported(10), reported(11)], [0, 0, 1]);
        let show = |before, now| {
            let (before, now) = (used(&[(CONNECTIONS, before)]), used(&[(CONNECTIONS, now)]));
            usage_to_show(&before, &now, &plan, &not_warned()).get(CONNECTIONS).copied()
        };
        assert_eq!([show(1, 10), show(10, 11), show(12, 3)], [None, Some(11), None]);
    }

    #[test]
    fn small_change_is_not_shown_unless_level_changes() {
        let show = |before, now| {
            let plan = Limits::from([("users".to_owned(), Some(10_000))]);
            usage_to_show(&used(&[("users", before)]), &used(&[("users", now)]), &plan, &not_warned())["users"]
        };
        assert_eq!(show(1000, 1049), 1000);
        assert_eq!(show(1000, 1050), 1050);
        assert_eq!(show(1000, 950), 950);
        assert_eq!(show(7999, 8000), 8000);
        assert_eq!(show(9999, 10_000), 10_000);
        assert_eq!(show(0, 1), 1);
        assert_eq!(show(0, 0), 0);
        // Changes of storage are at least a mebibyte.
        let store = |before, now| {
            let maximum = Some(100 << 20);
            let (before, now) = (used(&[(STORAGE_BYTES, before)]), used(&[(STORAGE_BYTES, now)]));
            usage_to_show(&before, &now, &plan(maximum), &not_warned())[STORAGE_BYTES]
        };
        assert_eq!(store(0, (1 << 20) - 1), 0);
        assert_eq!(store(0, 1 << 20), 1 << 20);
        assert_eq!(store((80 << 20) - 1, 80 << 20), 80 << 20);
        assert_eq!(
            usage_to_show(&Amounts::new(), &used(&[("users", 3)]), &plan(None), &not_warned()),
            used(&[("users", 3)])
        );
    }
}
