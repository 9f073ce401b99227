//! The Lease's record: what is in it, whose it is, and what replaces it. Pure.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

/// The last record that was seen, and when it was seen to change.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) lease: Lease,
    since: Instant,
}

impl Observed {
    /// Takes note of what was read at `now`. The same record again is not a sign of life.
    pub(super) fn note(previous: Option<Self>, lease: Lease, now: Instant) -> Self {
        let since = match previous {
            Some(previous) if previous.lease.spec == lease.spec => previous.since,
            _ => now,
        };
        Self { lease, since }
    }

    /// Who holds it; none if it is free.
    pub(super) fn holder(&self) -> Option<&str> {
        self.lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    /// How long the holder may still be silent; zero if the lease is free or has run out. `otherwise` is for a
    /// record that does not say how long its lease is.
    pub(super) fn remaining(&self, now: Instant, otherwise: Duration) -> Duration {
        if self.holder().is_none() {
            return Duration::ZERO;
        }
        let seconds = self.lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let duration =
            seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(otherwise, Duration::from_secs);
        (self.since + duration).saturating_duration_since(now)
    }
}

/// A Lease that nobody has had yet.
pub(super) fn first(name: &str, identity: &str, lease: Duration, wall: Timestamp) -> Lease {
    Lease {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(identity.to_owned()),
            lease_duration_seconds: Some(seconds(lease)),
            acquire_time: Some(MicroTime(wall)),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(0),
            ..LeaseSpec::default()
        }),
    }
}

/// What replaces `lease` when `identity` takes or renews it. Whatever else is in it stays, its `resourceVersion`
/// above all.
pub(super) fn held_by(mut lease: Lease, identity: &str, duration: Duration, wall: Timestamp) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() != Some(identity) {
        spec.acquire_time = Some(MicroTime(wall));
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
    }
    spec.holder_identity = Some(identity.to_owned());
    spec.lease_duration_seconds = Some(seconds(duration));
    spec.renew_time = Some(MicroTime(wall));
    lease
}

/// What replaces `lease` when it is given back.
pub(super) fn released(mut lease: Lease, wall: Timestamp) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    spec.renew_time = Some(MicroTime(wall));
    spec.acquire_time = Some(MicroTime(wall));
    lease
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs().max(1)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn lease(wall: i64) -> Lease {
        first("tenantry", "a", LEASE, Timestamp::from_second(wall).unwrap())
    }

    #[test]
    fn a_lease_runs_out_by_our_clock_not_by_the_times_in_it() {
        let start = Instant::now();
        // A holder whose clock is far in the past is as alive as any.
        let seen = Observed::note(None, lease(0), start);
        assert_eq!(seen.holder(), Some("a"));
        assert_eq!(seen.remaining(start, LEASE), LEASE);
        let later = start + Duration::from_secs(10);
        let again = Observed::note(Some(seen.clone()), lease(0), later);
        assert_eq!(
            again.remaining(later, LEASE),
            Duration::from_secs(5),
            "the same record is no sign of life"
        );
        let renewed = Observed::note(Some(seen), lease(1), later);
        assert_eq!(renewed.remaining(later, LEASE), LEASE, "a changed record is");
        assert_eq!(again.remaining(start + LEASE, LEASE), Duration::ZERO);
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        let start = Instant::now();
        let seen = Observed::note(None, released(lease(0), Timestamp::UNIX_EPOCH), start);
        assert_eq!(seen.holder(), None);
        assert_eq!(seen.remaining(start, LEASE), Duration::ZERO);
    }

    #[test]
    fn a_takeover_counts_and_a_renewal_does_not() {
        let wall = Timestamp::from_second(100).unwrap();
        let mut old = lease(0);
        old.metadata.resource_version = Some("7".to_owned());
        let taken = held_by(old.clone(), "b", LEASE, wall);
        let spec = taken.spec.clone().unwrap();
        assert_eq!((spec.lease_transitions, spec.acquire_time), (Some(1), Some(MicroTime(wall))));
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("7"));
        let renewed = held_by(old.clone(), "a", LEASE, wall).spec.unwrap();
        assert_eq!(renewed.lease_transitions, Some(0));
        assert_eq!(renewed.acquire_time, old.spec.unwrap().acquire_time);
        assert_eq!(renewed.renew_time, Some(MicroTime(wall)));
    }
}
