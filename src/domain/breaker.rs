//! The breaker of mass deletions: when a script, a prune or a lost manifest deletes many tenants at once, when many purges
//! come due at once, or when many objects vanished, nothing is dropped until an operator acknowledges it.

use jiff::{SignedDuration, Timestamp};

/// Deprovisionings that begin within this time are counted together.
pub const WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// A purge without grace, or one whose grace was made shorter, waits this long, so that those that change with it are
/// counted first.
pub const COUNT_FIRST: SignedDuration = SignedDuration::from_secs(5);

/// How many deprovisionings open the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerThresholds {
    /// This many never open it.
    pub minimum: u32,
    /// Nor does this share of all tenants, in percent. The larger of the two applies.
    pub percent: u32,
}

impl BreakerThresholds {
    /// Whether so many of so many tenants are tolerated.
    pub fn tolerate(self, count: usize, of: usize) -> bool {
        count <= (self.minimum as usize).max(of.saturating_mul(self.percent as usize) / 100)
    }

    /// Whether so many tenants without an object are tolerated: their access may be revoked. `recent` vanished within
    /// [`WINDOW`] and are being deprovisioned already. An empty cluster is not tolerated, however few were registered: the
    /// operator may have been started where its Tenants are not.
    pub fn tolerate_vanished(self, vanished: usize, recent: usize, registered: usize) -> bool {
        let is_all = vanished > 1 && vanished == registered;
        !is_all && self.tolerate(vanished + recent, registered + recent)
    }
}

/// What the breaker has to do with a tenant whose object does not exist, but was not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vanished {
    /// Many objects vanished: the tenant keeps its access until an operator acknowledges that.
    Held,
    /// It is acknowledged: the tenant is deprovisioned, and is not counted.
    Acknowledged,
}

impl Vanished {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Held, Self::Acknowledged];

    /// The text in the registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "Held",
            Self::Acknowledged => "Acknowledged",
        }
    }
}

/// The time, and the state of the breaker, for the planning of a purge.
#[derive(Clone, Copy, Debug)]
pub struct PurgeContext {
    /// The time.
    pub now: Timestamp,
    /// The state of the breaker.
    pub breaker: BreakerState,
}

impl From<Timestamp> for PurgeContext {
    /// Without a breaker.
    fn from(now: Timestamp) -> Self {
        Self { now, breaker: BreakerState::Disabled }
    }
}

/// Whether purges may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// There is no breaker.
    Disabled,
    /// Purges may begin once they are counted.
    Closed,
    /// The state is not read yet: nothing is dropped, and no object is released.
    Unknown,
    /// Too many tenants are being deprovisioned: nothing is dropped.
    Open,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BreakerThresholds = BreakerThresholds { minimum: 10, percent: 5 };

    #[test]
    fn larger_threshold_applies() {
        assert!(LIMITS.tolerate(10, 20) && !LIMITS.tolerate(11, 20));
        assert!(LIMITS.tolerate(50, 1000) && !LIMITS.tolerate(51, 1000));
    }

    #[test]
    fn few_vanished_tenants_are_tolerated_and_an_empty_cluster_is_not() {
        assert!(LIMITS.tolerate_vanished(1, 0, 1), "a single one");
        assert!(LIMITS.tolerate_vanished(3, 0, 4));
        assert!(!LIMITS.tolerate_vanished(3, 0, 3), "all of them");
        assert!(!LIMITS.tolerate_vanished(11, 0, 100));
        // Those that vanished one by one within the last minutes count with them.
        assert!(LIMITS.tolerate_vanished(1, 9, 91) && !LIMITS.tolerate_vanished(1, 10, 90));
    }
}
