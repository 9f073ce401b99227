//! How far a tenant is up to its limits, and what follows: a ladder with hysteresis, so that a tenant that is at the edge
//! of a rung does not go up and down with every sample.

use std::collections::BTreeSet;

use super::limits::{Amounts, CONNECTIONS, Limits, Maximum, STORAGE_BYTES};

/// From this share of a limit on, in percent, there is a warning …
const NEAR: i128 = 80;
/// … until it is below this one.
const NEAR_NO_MORE: i128 = 75;
/// A tenant that had filled its storage has full access again below this share of it, in percent.
const ROOM_AGAIN: i64 = 90;

/// What the size of a database changes by for no reason that anybody would care for.
const MEBIBYTE: u64 = 1 << 20;

/// How far up to a limit a tenant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// There is room.
    Fine,
    /// It comes near.
    Near,
    /// Nothing is left, and not more than that is used.
    Reached,
    /// More is used than there may be: the limit was lowered, or it is one that is only sampled.
    Over,
}

/// Which rung this is. `warned`: there is a warning already, which stays for a while.
pub fn rung(used: i64, maximum: Maximum, warned: bool) -> Rung {
    let Some(maximum) = maximum else { return Rung::Fine };
    let near = if warned { NEAR_NO_MORE } else { NEAR };
    match used.cmp(&maximum) {
        std::cmp::Ordering::Greater => Rung::Over,
        std::cmp::Ordering::Equal => Rung::Reached,
        std::cmp::Ordering::Less if i128::from(used) * 100 >= i128::from(maximum) * near => Rung::Near,
        std::cmp::Ordering::Less => Rung::Fine,
    }
}

/// The limits that somebody was warned of, by name.
pub type Warned = BTreeSet<String>;

/// As [`rung`], for a limit by name. Of sessions, who come and go with every moment, only too many are worth a word: those
/// from before the limit was lowered.
pub fn rung_of(name: &str, used: i64, limits: &Limits, warned: &Warned) -> Rung {
    match rung(used, limits.get(name).copied().flatten(), warned.contains(name)) {
        Rung::Near | Rung::Reached if name == CONNECTIONS => Rung::Fine,
        rung => rung,
    }
}

/// Whether a limit is worth a word, and how it stands: the highest rungs first, then by name.
pub fn rungs<'a>(limits: &'a Limits, usage: &Amounts, warned: &Warned) -> Vec<(Rung, &'a str, i64, i64)> {
    let mut found: Vec<_> = limits
        .iter()
        .filter_map(|(name, maximum)| {
            let used = *usage.get(name)?;
            Some((rung_of(name, used, limits, warned), name.as_str(), used, (*maximum)?))
        })
        .filter(|(rung, ..)| *rung > Rung::Fine)
        .collect();
    found.sort_by(|(a, a_name, ..), (b, b_name, ..)| (b, a_name).cmp(&(a, b_name)));
    found
}

/// What is to become of the operator's own hold on a tenant that has filled its storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it is, put or not.
    Keep,
    /// It is put, or put anew.
    Place {
        /// The limit that is reached, in bytes.
        maximum: i64,
        /// What the hold says.
        reason: String,
    },
    /// It is lifted.
    Lift,
}

/// Judges the storage of a tenant, which is `held` since it had reached this limit, or not. Who gets a larger one has room
/// at once. What was not measured changes nothing, but that a limit that is gone holds nobody.
pub fn verdict(held: Option<i64>, limits: &Limits, usage: &Amounts) -> Verdict {
    let maximum = limits.get(STORAGE_BYTES).copied().flatten();
    let Some(maximum) = maximum else { return if held.is_some() { Verdict::Lift } else { Verdict::Keep } };
    let Some(used) = usage.get(STORAGE_BYTES).copied() else { return Verdict::Keep };
    let reached = used >= maximum;
    match held {
        Some(before) if !reached && (maximum > before || used < room_again(maximum)) => Verdict::Lift,
        Some(before) if maximum == before => Verdict::Keep,
        None if !reached => Verdict::Keep,
        Some(_) | None => Verdict::Place {
            maximum,
            reason: format!(
                "the limit {STORAGE_BYTES} was used up: rows can be read and deleted, and full access comes back by itself below {ROOM_AGAIN} % of its {maximum} bytes"
            ),
        },
    }
}

/// How many bytes a tenant that had filled its storage may use to have full access again: fewer than this.
pub fn room_again(maximum: i64) -> i64 {
    i64::try_from(i128::from(maximum) * i128::from(ROOM_AGAIN) / 100).unwrap_or(maximum)
}

/// What is shown of the usage: what was shown before, where the new amount differs by less than 5 % and is on the same
/// rung, or by less than a mebibyte of storage. Steady state writes nothing. Sessions, who come and go with every moment,
/// are shown while they are too many.
pub fn shown(before: &Amounts, now: &Amounts, limits: &Limits, warned: &Warned) -> Amounts {
    let on = |name: &str, used| rung_of(name, used, limits, warned);
    let amount = |(name, now): (&String, &i64)| {
        let kept = before.get(name).filter(|before| {
            let differs = i128::from(**before).abs_diff(i128::from(*now)) * 20;
            let unseen = name == STORAGE_BYTES && before.abs_diff(*now) < MEBIBYTE;
            let small = unseen || differs < u128::from(before.unsigned_abs());
            small && on(name, **before) == on(name, *now) || *before == now
        });
        (name.clone(), *kept.unwrap_or(now))
    };
    let is_shown = |(name, now): &(&String, &i64)| *name != CONNECTIONS || on(name, **now) > Rung::Fine;
    now.iter().filter(is_shown).map(amount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(storage: Maximum) -> Limits {
        [("users".to_owned(), Some(5)), (STORAGE_BYTES.to_owned(), storage)].into()
    }

    fn nobody() -> Warned {
        Warned::new()
    }

    fn used(amounts: &[(&str, i64)]) -> Amounts {
        amounts.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
    }

    #[test]
    fn the_ladder_goes_up_at_80_and_down_at_75() {
        let on = |used, warned| rung(used, Some(100), warned);
        assert_eq!([on(79, false), on(80, false), on(99, false)], [Rung::Fine, Rung::Near, Rung::Near]);
        assert_eq!([on(100, false), on(101, false)], [Rung::Reached, Rung::Over]);
        assert_eq!([on(79, true), on(75, true), on(74, true)], [Rung::Near, Rung::Near, Rung::Fine]);
        assert_eq!(rung(i64::MAX, None, false), Rung::Fine);
        assert_eq!(rung(i64::MAX - 1, Some(i64::MAX), false), Rung::Near);
        assert_eq!([rung(0, Some(0), false), rung(1, Some(0), false)], [Rung::Reached, Rung::Over]);
    }

    #[test]
    fn storage_that_is_full_is_held_until_there_is_room_again() {
        let judge = |held, bytes, maximum| verdict(held, &plan(maximum), &used(&[(STORAGE_BYTES, bytes)]));
        let is_placed = |verdict: Verdict, limit: i64| {
            matches!(verdict, Verdict::Place { maximum, reason }
                if maximum == limit && reason.contains(&format!("{limit} bytes")))
        };
        let held = Some(1000);
        assert_eq!(judge(None, 999, Some(1000)), Verdict::Keep);
        assert!(is_placed(judge(None, 1000, Some(1000)), 1000));
        assert_eq!(judge(held, 1000, Some(1000)), Verdict::Keep);
        assert_eq!(judge(held, 900, Some(1000)), Verdict::Keep);
        assert_eq!(judge(held, 899, Some(1000)), Verdict::Lift);
        // A larger plan lifts it at once, however little larger, and so does one without the limit.
        assert_eq!(judge(held, 1000, Some(2000)), Verdict::Lift);
        assert_eq!(judge(held, 1000, Some(1001)), Verdict::Lift);
        assert_eq!(judge(held, 1000, None), Verdict::Lift);
        assert_eq!(judge(None, 1000, None), Verdict::Keep);
        // Another one that gives no room is told, and counts from then on.
        assert!(is_placed(judge(held, 1500, Some(1500)), 1500));
        assert!(is_placed(judge(held, 1000, Some(500)), 500));
        assert!(is_placed(judge(held, 480, Some(500)), 500));
        assert_eq!(judge(held, 449, Some(500)), Verdict::Lift);
        assert_eq!(judge(Some(500), 480, Some(501)), Verdict::Lift);
        assert_eq!(verdict(held, &plan(Some(10)), &Amounts::new()), Verdict::Keep);
        assert_eq!(verdict(None, &plan(Some(10)), &Amounts::new()), Verdict::Keep);
    }

    #[test]
    fn what_is_worth_a_word_is_the_worst_first() {
        let (plan, usage) = (plan(Some(100)), used(&[("users", 6), (STORAGE_BYTES, 80), ("seats", 9)]));
        assert_eq!(
            rungs(&plan, &usage, &nobody()),
            [(Rung::Over, "users", 6, 5), (Rung::Near, STORAGE_BYTES, 80, 100)]
        );
        assert_eq!(rungs(&plan, &used(&[("users", 3)]), &nobody()), []);
    }

    #[test]
    fn sessions_are_worth_a_word_only_when_there_are_too_many() {
        let plan = Limits::from([(CONNECTIONS.to_owned(), Some(10))]);
        let rungs = |sessions| rungs(&plan, &used(&[(CONNECTIONS, sessions)]), &nobody()).len();
        assert_eq!([rungs(9), rungs(10), rungs(11)], [0, 0, 1]);
        let show = |before, now| {
            let (before, now) = (used(&[(CONNECTIONS, before)]), used(&[(CONNECTIONS, now)]));
            shown(&before, &now, &plan, &nobody()).get(CONNECTIONS).copied()
        };
        assert_eq!([show(1, 10), show(10, 11), show(12, 3)], [None, Some(11), None]);
    }

    #[test]
    fn a_small_change_is_not_shown_unless_it_crosses_a_rung() {
        let show = |before, now| {
            let plan = Limits::from([("users".to_owned(), Some(10_000))]);
            shown(&used(&[("users", before)]), &used(&[("users", now)]), &plan, &nobody())["users"]
        };
        assert_eq!(show(1000, 1049), 1000);
        assert_eq!(show(1000, 1050), 1050);
        assert_eq!(show(1000, 950), 950);
        assert_eq!(show(7999, 8000), 8000);
        assert_eq!(show(9999, 10_000), 10_000);
        assert_eq!(show(0, 1), 1);
        assert_eq!(show(0, 0), 0);
        // Of storage, at least a mebibyte.
        let store = |before, now| {
            let maximum = Some(100 << 20);
            let (before, now) = (used(&[(STORAGE_BYTES, before)]), used(&[(STORAGE_BYTES, now)]));
            shown(&before, &now, &plan(maximum), &nobody())[STORAGE_BYTES]
        };
        assert_eq!(store(0, (1 << 20) - 1), 0);
        assert_eq!(store(0, 1 << 20), 1 << 20);
        assert_eq!(store((80 << 20) - 1, 80 << 20), 80 << 20);
        assert_eq!(
            shown(&Amounts::new(), &used(&[("users", 3)]), &plan(None), &nobody()),
            used(&[("users", 3)])
        );
    }
}
