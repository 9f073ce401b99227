//! The breaker of mass deletions: when a script, a prune or a lost manifest deletes many tenants at once, nothing is
//! dropped until an operator acknowledges it.

use jiff::{SignedDuration, Timestamp};

/// Deprovisionings that begin within this time are counted together.
pub const WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// A purge without grace waits this long, so that those that begin with it are counted first.
pub const COUNT_FIRST: SignedDuration = SignedDuration::from_secs(5);

/// How many deprovisionings open the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerThresholds {
    /// This many never open it.
    pub minimum: u32,
    /// Nor does this share of all tenants, in percent. The larger of the two applies.
    pub percent: u32,
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
