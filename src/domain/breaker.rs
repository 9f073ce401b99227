//! The breaker of mass deletions: what a script, a prune or a lost definition deletes by the dozen is kept until a person
//! has looked at it.

use jiff::{SignedDuration, Timestamp};

/// Departures count together for this long.
pub const WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// A purge without grace waits this long, so that those which arrive with it are counted first.
pub const COUNT_FIRST: SignedDuration = SignedDuration::from_secs(5);

/// From how many departures on it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many never open it.
    pub minimum: u32,
    /// Nor does this share of all tenants, in percent. The larger of the two counts.
    pub percent: u32,
}

/// The time, and what the breaker says at it.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time.
    pub now: Timestamp,
    /// Whether purges may begin.
    pub purges: Purges,
}

impl From<Timestamp> for Moment {
    /// Where there is no breaker.
    fn from(now: Timestamp) -> Self {
        Self { now, purges: Purges::Free }
    }
}

/// Whether purges may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purges {
    /// There is no breaker.
    Free,
    /// It is closed: what has just begun to go away is counted first.
    Counted,
    /// It is not known yet whether it is open: nothing is dropped, and nothing is let go.
    Unknown,
    /// It is open.
    Frozen,
}
