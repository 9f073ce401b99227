//! What the status shows of limits and usage, and the condition `WithinLimits`.

use super::{Outcome, condition_update::ConditionUpdate, whole_seconds};
use crate::{
    api::{
        conditions::{
            ConditionStatus::{False, True, Unknown},
            WITHIN_LIMITS,
        },
        limit::LimitValue,
        reason::Reason,
        tenant_status::{TenantStatus, Usage},
    },
    domain::{
        access::holds::QUOTA,
        record::TenantRecord,
        usage::{
            entitlements::{Amounts, Entitlements, Limits, STORAGE_BYTES},
            thresholds::{self, QuotaHoldChange, UsageLevel, WarnedLimits},
        },
    },
};

/// The limits in force, and the amounts that the status shows of them.
struct Shown<'a> {
    record: &'a TenantRecord,
    entitlements: &'a Entitlements,
    amounts: Amounts,
}

impl<'a> Shown<'a> {
    fn of(record: &'a TenantRecord, previous: &TenantStatus) -> Option<Self> {
        let entitlements = record.entitlements.as_ref()?;
        let before = previous.usage.as_ref().map(|usage| &usage.amounts);
        let measured = limited(&record.usage, &entitlements.limits);
        let amounts = thresholds::usage_to_show(
            before.unwrap_or(&Amounts::new()),
            &measured,
            &entitlements.limits,
            &record.warned_limits,
        );
        Some(Self { record, entitlements, amounts })
    }

    fn levels(&self) -> Vec<(UsageLevel, &str, i64, i64)> {
        thresholds::levels_to_report(&self.entitlements.limits, &self.amounts, &self.record.warned_limits)
    }
}

/// Those amounts that have a limit.
fn limited(amounts: &Amounts, limits: &Limits) -> Amounts {
    let limited = amounts.iter().filter(|(name, _)| limits.contains_key(*name));
    limited.map(|(name, amount)| (name.clone(), *amount)).collect()
}

/// The usage to show. What was shown before stays unless the amounts changed enough; the time is that of the amounts.
pub(super) fn shown(outcome: &Outcome<'_>, before: Option<Usage>) -> Option<Usage> {
    let record = outcome.subject.record.as_ref();
    let shown = record.and_then(|record| Shown::of(record, &outcome.subject.previous));
    let Some(Shown { record, amounts, .. }) = shown.filter(|shown| !shown.amounts.is_empty()) else {
        return before;
    };
    if before.as_ref().is_some_and(|before| before.amounts == amounts) {
        return before;
    }
    Some(Usage { measured_at: record.measured_at.map(whole_seconds), amounts })
}

/// Whether the tenant is within its limits; absent while none are in force.
pub(super) fn within_limits(outcome: &Outcome<'_>) -> Option<ConditionUpdate> {
    let subject = outcome.subject;
    let shown = Shown::of(subject.record.as_ref()?, &subject.previous)?;
    let levels = shown.levels();
    let held = shown.record.holds.iter().any(|hold| hold.quota().is_some());
    let numbers: Vec<String> = levels.iter().map(describe).collect();
    let numbers = numbers.join("; ");
    let consequence = |text: &str| {
        if numbers.is_empty() { text.to_owned() } else { format!("{numbers}; {text}") }
    };
    let (status, reason, mut message) = match levels.first().map(|(level, ..)| *level) {
        _ if held => (
            False,
            Reason::LimitExceeded,
            consequence("storage is full: rows can be read and deleted until there is room again"),
        ),
        Some(UsageLevel::Exceeded) => (
            False,
            Reason::LimitExceeded,
            consequence("existing data can be read, changed and deleted; additions are refused"),
        ),
        Some(_) => (True, Reason::NearLimit, numbers),
        None if shown.amounts.is_empty() => {
            (Unknown, Reason::NotMeasured, "no limited usage was measured yet".to_owned())
        }
        None => (True, Reason::WithinLimits, "less than 80 % of every limit is in use".to_owned()),
    };
    let without_effect = subject.evaluation.as_ref().map(|evaluation| &evaluation.limits_without_effect);
    if let Some(names) = without_effect.filter(|names| !names.is_empty()) {
        message.push_str(&format!(
            "; spec.limits has no effect on {}: plan {} does not leave it to the tenant",
            names.join(", "),
            shown.entitlements.plan
        ));
    }
    Some(ConditionUpdate { type_: WITHIN_LIMITS, status, reason, message })
}

fn describe((level, name, used, maximum): &(UsageLevel, &str, i64, i64)) -> String {
    let percent = if *maximum > 0 { i128::from(*used) * 100 / i128::from(*maximum) } else { 100 };
    match level {
        UsageLevel::Exceeded => format!("{name}: {used} in use, {maximum} allowed"),
        UsageLevel::Reached => format!("{name}: all {maximum} in use"),
        UsageLevel::Near | UsageLevel::Normal => format!("{name}: {used} of {maximum} in use ({percent} %)"),
    }
}

/// What an Event reports about limits after a reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitNotice {
    /// Usage came near a limit that was not reported before.
    Near,
    /// Usage exceeds a limit, which was not reported before.
    Exceeded,
    /// No limit is near any more.
    Cleared,
}

/// What changed about limits, from the amounts shown before to those shown now.
pub struct LimitChange {
    /// The Event to publish, if any.
    pub notice: Option<LimitNotice>,
    /// The limits that are reported as near or exceeded from now on.
    pub warned: WarnedLimits,
}

/// Compares the usage that the status showed before with what it shows now. `None` while no limits are in force.
pub fn change(record: &TenantRecord, before: &TenantStatus) -> Option<LimitChange> {
    let shown = Shown::of(record, before)?;
    let warned_before = &record.warned_limits;
    let limits_before = in_force(before);
    let level_before = |name: &str| {
        let used = before.usage.as_ref().and_then(|usage| usage.amounts.get(name)).copied();
        let level = used.map_or(UsageLevel::Normal, |used| {
            thresholds::usage_level_of(name, used, &limits_before, warned_before)
        });
        // A limit that was not reported yet is reported, whatever the status showed.
        if warned_before.contains(name) { level.max(UsageLevel::Near) } else { UsageLevel::Normal }
    };
    let levels = shown.levels();
    let held = record.holds.iter().any(|hold| hold.quota().is_some());
    let over = |level: UsageLevel| level == UsageLevel::Exceeded;
    let exceeded = held || levels.iter().any(|(level, ..)| over(*level));
    let exceeded_before = is_held(before) || limits_before.keys().any(|name| over(level_before(name)));
    let rises = |level: UsageLevel, name| significant(level) > significant(level_before(name));
    let worse = levels.iter().any(|(level, name, ..)| rises(*level, name));
    let notice = if worse || (exceeded && !exceeded_before) {
        Some(if exceeded { LimitNotice::Exceeded } else { LimitNotice::Near })
    } else if levels.is_empty() && !held && !warned_before.is_empty() {
        Some(LimitNotice::Cleared)
    } else {
        None
    };
    let warned = levels.iter().map(|(_, name, ..)| (*name).to_owned()).collect();
    Some(LimitChange { notice, warned })
}

/// A tenant that fills and frees the last slot of a limit again and again is reported once.
fn significant(level: UsageLevel) -> UsageLevel {
    if level == UsageLevel::Reached { UsageLevel::Near } else { level }
}

/// The limits that the status shows as in force.
pub fn in_force(status: &TenantStatus) -> Limits {
    let maximum = |value: &LimitValue| match value {
        LimitValue::Number(number) => Some(*number),
        LimitValue::Quantity(quantity) => Some(quantity.number()),
        LimitValue::Word(_) => None,
    };
    status.limits.iter().map(|(name, value)| (name.clone(), maximum(value))).collect()
}

/// Whether the status shows the hold for full storage.
pub fn is_held(status: &TenantStatus) -> bool {
    status.holds.iter().any(|hold| hold.name == QUOTA)
}

/// Whether amounts that were just measured require a reconcile: the status would show them, or the hold for full storage
/// has to be placed or lifted.
pub fn requires_reconcile(status: &TenantStatus, measured: &Amounts, warned: &WarnedLimits) -> bool {
    let limits = in_force(status);
    let before = status.usage.as_ref().map(|usage| usage.amounts.clone()).unwrap_or_default();
    let now = before.clone().into_iter().chain(limited(measured, &limits)).collect();
    // A changed limit requeues the tenant by itself.
    let held = is_held(status).then(|| limits.get(STORAGE_BYTES).copied().flatten().unwrap_or(i64::MAX));
    thresholds::usage_to_show(&before, &now, &limits, warned) != before
        || thresholds::quota_hold_change(held, &limits, measured) != QuotaHoldChange::Keep
}

/// The share in use of each limit that is near or exceeded, by name.
pub fn near(status: &TenantStatus, measured: &Amounts, warned: &WarnedLimits) -> Vec<(String, f64)> {
    let limits = in_force(status);
    let ratio = |(_, name, used, maximum): (UsageLevel, &str, i64, i64)| {
        #[expect(clippy::cast_precision_loss, reason = "the share is approximate")]
        let ratio = used as f64 / maximum.max(1) as f64;
        (name.to_owned(), ratio)
    };
    thresholds::levels_to_report(&limits, measured, warned).into_iter().map(ratio).collect()
}
