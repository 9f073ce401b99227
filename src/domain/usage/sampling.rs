//! What the usage sampler remembers of a tenant from one period to the next, and what it therefore has to read.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp, civil::Date};

use crate::{
    api::tenant_status::TenantStatus,
    domain::{
        status::usage::in_force,
        usage::{
            entitlements::{Amounts, CONNECTIONS, STORAGE_BYTES},
            thresholds::{UsageLevel, WarnedLimits, usage_level_of},
        },
    },
};

/// How often the size of an idle tenant is read: it also shrinks, and statistics may lag.
const IDLE: SignedDuration = SignedDuration::from_hours(1);

/// What the sampler remembers of a tenant.
#[derive(Default)]
pub struct Sampled {
    /// When it was sampled last.
    pub sampled_at: Option<Timestamp>,
    /// How many rows had been written then.
    pub written: Option<i64>,
    /// How many rows had been deleted then.
    pub deleted: Option<i64>,
    /// When its size was read last.
    pub sized_at: Option<Timestamp>,
    /// When this process read its counters last, or tried to.
    pub counted_at: Option<Timestamp>,
    /// What was found then, by this process or an earlier one.
    pub counted: Option<Counted>,
    /// The latest amount of each measure.
    pub amounts: Amounts,
    /// Which of them are in the registry, and for which day, unless a reconcile has written there since.
    pub recorded: BTreeMap<String, (i64, Date)>,
}

/// The state of a tenant's database when its counters were read.
#[derive(Clone, Copy)]
pub struct Counted {
    /// How many rows had been written.
    pub written: i64,
    /// How many sessions of other clients had begun; unknown for what another process found.
    pub others: Option<i64>,
}

impl Sampled {
    /// A tenant that this process has not sampled yet, from its status and from what the registry recorded of its counters.
    pub fn new(status: Option<&TenantStatus>, written: Option<&i64>) -> Self {
        let counted = written.map(|written| Counted { written: *written, others: None });
        let usage = status.and_then(|status| status.usage.as_ref());
        let amounts = usage.map(|usage| usage.amounts.clone()).unwrap_or_default();
        Self { counted, amounts, ..Self::default() }
    }

    /// Whether its counters may have changed since they were read. If only the operator ever connected, they are current as
    /// of creation. Writes without a session come from autovacuum or from late statistics: they are checked an hour later.
    pub fn may_have_changed(&self, found: Counted, is_used: bool, now: Timestamp) -> bool {
        let Some(before) = self.counted else { return self.is_long_ago(now) || is_used };
        let is_used = is_used || before.others.is_some() && before.others != found.others;
        before.written != found.written && (is_used || self.is_long_ago(now))
    }

    fn is_long_ago(&self, now: Timestamp) -> bool {
        self.counted_at.is_none_or(|at| now.duration_since(at) >= IDLE)
    }

    /// Whether its size is read although no writes were seen: writes of an open transaction are not counted, nor is space that
    /// VACUUM frees.
    pub fn is_due(&self, status: Option<&TenantStatus>, now: Timestamp) -> bool {
        let limits = status.map(in_force).unwrap_or_default();
        let level = |used: &i64| usage_level_of(STORAGE_BYTES, *used, &limits, &WarnedLimits::new());
        self.amounts.get(CONNECTIONS).is_some_and(|sessions| *sessions > 0)
            || self.amounts.get(STORAGE_BYTES).is_some_and(|used| level(used) > UsageLevel::Normal)
            || self.sized_at.is_none_or(|at| now.duration_since(at) >= IDLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn later(minutes: i64) -> Timestamp {
        NOW + SignedDuration::from_mins(minutes)
    }

    fn found(written: i64, others: i64) -> Counted {
        Counted { written, others: Some(others) }
    }

    #[test]
    fn counters_are_read_after_a_session_that_wrote() {
        let sampled = Sampled { counted: Some(found(7, 2)), counted_at: Some(NOW), ..Sampled::default() };
        assert!(!sampled.may_have_changed(found(7, 2), false, later(1)));
        // A session that read; a session that wrote; a session that is open.
        assert!(!sampled.may_have_changed(found(7, 3), true, later(1)));
        assert!(sampled.may_have_changed(found(8, 3), false, later(1)));
        assert!(sampled.may_have_changed(found(8, 2), true, later(1)));
        // No session: it waits for an hour. Fewer writes than before: statistics were reset.
        assert!(!sampled.may_have_changed(found(8, 2), false, later(59)));
        assert!(sampled.may_have_changed(found(8, 2), false, later(60)));
        assert!(sampled.may_have_changed(found(0, 1), false, later(1)));
    }

    #[test]
    fn counters_of_an_earlier_process_are_reused() {
        let known = Sampled::new(None, Some(&7));
        assert!(!known.may_have_changed(found(7, 9), false, NOW));
        assert!(known.may_have_changed(found(8, 9), false, NOW));
        let unknown = Sampled::new(None, None);
        assert!(unknown.may_have_changed(found(7, 9), false, NOW));
        // A failed read is not repeated at once.
        let failed = Sampled { counted_at: Some(NOW), ..Sampled::new(None, None) };
        assert!(!failed.may_have_changed(found(7, 9), false, later(1)));
    }

    #[test]
    fn size_is_read_hourly_and_while_sessions_exist() {
        let idle = Sampled { sized_at: Some(NOW), ..Sampled::default() };
        assert!(!idle.is_due(None, later(59)) && idle.is_due(None, later(60)));
        let used = Sampled { amounts: [(CONNECTIONS.to_owned(), 1)].into(), ..idle };
        assert!(used.is_due(None, later(1)));
    }
}
