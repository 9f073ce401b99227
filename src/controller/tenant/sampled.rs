//! What the sampler of usage remembers of a tenant from one period to the next, and what is to be looked at therefore.
//! Pure.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp, civil::Date};

use super::limits::in_force;
use crate::{
    api::tenant_status::TenantStatus,
    domain::{
        limits::{Amounts, CONNECTIONS, STORAGE_BYTES},
        quota::{Rung, Warned, rung_of},
    },
};

/// How often a size is looked at although nobody wrote: it also shrinks, and statistics may lag.
const IDLE: SignedDuration = SignedDuration::from_hours(1);

/// What is known of a tenant from one period to the next.
#[derive(Default)]
pub struct Sampled {
    /// When it was looked at last.
    pub looked_at: Option<Timestamp>,
    /// How much had been written then.
    pub written: Option<i64>,
    /// How much had been deleted then.
    pub deleted: Option<i64>,
    /// When its size was looked at last.
    pub sized_at: Option<Timestamp>,
    /// When its counters were read last by this process, or could not be.
    pub counted_at: Option<Timestamp>,
    /// How it was found then, by this process or by one before it.
    pub counted: Option<Counted>,
    /// What it was found to use, each at its time.
    pub amounts: Amounts,
    /// What of that is in the registry, and for which day, unless somebody else wrote there since.
    pub recorded: BTreeMap<String, (i64, Date)>,
}

/// How a tenant was found when its counters were read.
#[derive(Clone, Copy)]
pub struct Counted {
    /// How much had been written.
    pub written: i64,
    /// How many sessions of others had begun; not known of what another process found.
    pub others: Option<i64>,
}

impl Sampled {
    /// One that this process has not looked at yet: as its status shows it, and as the registry says that it was counted.
    pub fn new(status: Option<&TenantStatus>, written: Option<&i64>) -> Self {
        let counted = written.map(|written| Counted { written: *written, others: None });
        let usage = status.and_then(|status| status.usage.as_ref());
        let amounts = usage.map(|usage| usage.amounts.clone()).unwrap_or_default();
        Self { counted, amounts, ..Self::default() }
    }

    /// Whether its counters may not be what was read last. Of a tenant in whose database nobody but this process ever was,
    /// that was when it was made. Without anybody there, it was autovacuum that wrote, or statistics are late, which an
    /// hour later they are not.
    pub fn may_have_changed(&self, found: Counted, is_used: bool, now: Timestamp) -> bool {
        let Some(before) = self.counted else { return self.is_long_ago(now) || is_used };
        let is_used = is_used || before.others.is_some() && before.others != found.others;
        before.written != found.written && (is_used || self.is_long_ago(now))
    }

    fn is_long_ago(&self, now: Timestamp) -> bool {
        self.counted_at.is_none_or(|at| now.duration_since(at) >= IDLE)
    }

    /// Whether its size is looked at although nobody seems to have written: a transaction that is open does not show, nor
    /// does what vacuum gives back.
    pub fn is_due(&self, status: Option<&TenantStatus>, now: Timestamp) -> bool {
        let limits = status.map(in_force).unwrap_or_default();
        let rung = |used: &i64| rung_of(STORAGE_BYTES, *used, &limits, &Warned::new());
        self.amounts.get(CONNECTIONS).is_some_and(|sessions| *sessions > 0)
            || self.amounts.get(STORAGE_BYTES).is_some_and(|used| rung(used) > Rung::Fine)
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
    fn counters_are_read_where_somebody_was_and_wrote() {
        let seen = Sampled { counted: Some(found(7, 2)), counted_at: Some(NOW), ..Sampled::default() };
        assert!(!seen.may_have_changed(found(7, 2), false, later(1)));
        // Somebody read; somebody wrote; somebody is there.
        assert!(!seen.may_have_changed(found(7, 3), true, later(1)));
        assert!(seen.may_have_changed(found(8, 3), false, later(1)));
        assert!(seen.may_have_changed(found(8, 2), true, later(1)));
        // Nobody was there: it waits for an hour. Less than before is another count.
        assert!(!seen.may_have_changed(found(8, 2), false, later(59)));
        assert!(seen.may_have_changed(found(8, 2), false, later(60)));
        assert!(seen.may_have_changed(found(0, 1), false, later(1)));
    }

    #[test]
    fn what_another_process_counted_is_counted() {
        let known = Sampled::new(None, Some(&7));
        assert!(!known.may_have_changed(found(7, 9), false, NOW));
        assert!(known.may_have_changed(found(8, 9), false, NOW));
        let unknown = Sampled::new(None, None);
        assert!(unknown.may_have_changed(found(7, 9), false, NOW));
        // One that could not be read has time.
        let failed = Sampled { counted_at: Some(NOW), ..Sampled::new(None, None) };
        assert!(!failed.may_have_changed(found(7, 9), false, later(1)));
    }

    #[test]
    fn a_size_is_looked_at_once_an_hour_and_while_somebody_is_there() {
        let idle = Sampled { sized_at: Some(NOW), ..Sampled::default() };
        assert!(!idle.is_due(None, later(59)) && idle.is_due(None, later(60)));
        let used = Sampled { amounts: [(CONNECTIONS.to_owned(), 1)].into(), ..idle };
        assert!(used.is_due(None, later(1)));
    }
}
