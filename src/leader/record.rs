//! The record of a Lease: its content, its holder, and its next content. Pure.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

use super::{Election, Timing};

/// Annotation of the Lease: its holder, a space, and the uid of the holder's pod. With the holder, because a client that does
/// not know the annotation leaves it there when it takes the Lease.
const HOLDER_POD: &str = "tenantry.dev/holder-pod";

/// The last record that was read, and when a change of it was first read.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) lease: Lease,
    since: Instant,
}

impl Observed {
    /// Records what was read at `now`. An unchanged record is not a renewal.
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

    /// Whether the holder runs, or ran, in this pod.
    fn is_of_pod(&self, pod: Option<&str>) -> bool {
        let (Some(holder), Some(pod)) = (self.holder(), pod) else { return false };
        let recorded = self.lease.metadata.annotations.as_ref().and_then(|all| all.get(HOLDER_POD));
        recorded.is_some_and(|recorded| *recorded == holder_pod(holder, pod))
    }

    /// How long until the lease expires; zero if it is free or has expired. A holder in the candidate's own pod should have
    /// ended: its lease expires after two tries.
    pub(super) fn remaining(&self, now: Instant, pod: Option<&str>, timing: &Timing) -> Duration {
        if self.holder().is_none() {
            return Duration::ZERO;
        }
        let seconds = self.lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let duration =
            seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(timing.lease, Duration::from_secs);
        let validity = if self.is_of_pod(pod) { duration.min(2 * timing.retry) } else { duration };
        (self.since + validity).saturating_duration_since(now)
    }
}

/// The first record of a Lease.
pub(super) fn first(election: &Election, wall: Timestamp) -> Lease {
    let unheld = Lease {
        metadata: ObjectMeta { name: Some(election.name.clone()), ..ObjectMeta::default() },
        // The first holder is no transition.
        spec: Some(LeaseSpec { lease_transitions: Some(-1), ..LeaseSpec::default() }),
    };
    held_by(unheld, election, wall)
}

/// The next record when `lease` is taken or renewed. Everything else in it stays, above all its `resourceVersion`.
pub(super) fn held_by(mut lease: Lease, election: &Election, wall: Timestamp) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() != Some(&election.identity) {
        spec.acquire_time = Some(MicroTime(wall));
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
    }
    spec.holder_identity = Some(election.identity.clone());
    spec.lease_duration_seconds = Some(seconds(election.timing.lease));
    spec.renew_time = Some(MicroTime(wall));
    // The former holder's pod is not this holder's.
    let annotations = lease.metadata.annotations.get_or_insert_default();
    annotations.remove(HOLDER_POD);
    if let Some(pod) = &election.pod {
        annotations.insert(HOLDER_POD.to_owned(), holder_pod(&election.identity, pod));
    }
    lease
}

fn holder_pod(identity: &str, pod: &str) -> String {
    format!("{identity} {pod}")
}

/// The next record when `lease` is released.
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
    const TIMING: Timing =
        Timing { lease: LEASE, renew_deadline: Duration::from_secs(10), retry: Duration::from_secs(2) };

    fn election(identity: &str, pod: Option<&str>) -> Election {
        Election {
            namespace: "default".to_owned(),
            name: "tenantry".to_owned(),
            identity: identity.to_owned(),
            pod: pod.map(str::to_owned),
            timing: TIMING,
        }
    }

    fn lease(wall: i64) -> Lease {
        first(&election("a", None), Timestamp::from_second(wall).unwrap())
    }

    #[test]
    fn first_holder_is_no_transition() {
        let spec = lease(7).spec.unwrap();
        assert_eq!((spec.lease_transitions, spec.lease_duration_seconds), (Some(0), Some(15)));
        assert_eq!(spec.acquire_time, spec.renew_time);
    }

    #[test]
    fn lease_of_own_pod_expires_after_two_tries() {
        let (start, pod) = (Instant::now(), Some("pod-1"));
        let held = held_by(lease(0), &election("b", pod), Timestamp::UNIX_EPOCH);
        let observed = Observed::note(None, held.clone(), start);
        let own = Duration::from_secs(4);
        assert_eq!(observed.remaining(start, pod, &TIMING), own);
        assert_eq!(observed.remaining(start, Some("pod-2"), &TIMING), LEASE);
        assert_eq!(observed.remaining(start, None, &TIMING), LEASE);
        // Two pods with the same uid: the holder keeps the lease.
        let later = start + Duration::from_secs(2);
        let renewed = held_by(held, &election("b", pod), Timestamp::from_second(2).unwrap());
        let observed = Observed::note(Some(observed), renewed.clone(), later);
        assert_eq!(observed.remaining(later, pod, &TIMING), own);
        // A holder without the annotation is in no pod.
        let mut others = renewed.clone();
        others.spec.as_mut().unwrap().holder_identity = Some("of-before".to_owned());
        assert_eq!(Observed::note(None, others, start).remaining(start, pod, &TIMING), LEASE);
        let without_pod = held_by(renewed, &election("c", None), Timestamp::UNIX_EPOCH);
        assert_eq!(Observed::note(None, without_pod, start).remaining(start, pod, &TIMING), LEASE);
    }

    #[test]
    fn lease_expires_by_own_clock_not_by_its_times() {
        let start = Instant::now();
        // The clock of the holder does not matter.
        let observed = Observed::note(None, lease(0), start);
        assert_eq!(observed.holder(), Some("a"));
        assert_eq!(observed.remaining(start, None, &TIMING), LEASE);
        let later = start + Duration::from_secs(10);
        let again = Observed::note(Some(observed.clone()), lease(0), later);
        assert_eq!(
            again.remaining(later, None, &TIMING),
            Duration::from_secs(5),
            "an unchanged record is no renewal"
        );
        let renewed = Observed::note(Some(observed), lease(1), later);
        assert_eq!(renewed.remaining(later, None, &TIMING), LEASE, "a changed record is");
        assert_eq!(again.remaining(start + LEASE, None, &TIMING), Duration::ZERO);
    }

    #[test]
    fn released_lease_is_free_at_once() {
        let start = Instant::now();
        let observed = Observed::note(None, released(lease(0), Timestamp::UNIX_EPOCH), start);
        assert_eq!(observed.holder(), None);
        assert_eq!(observed.remaining(start, None, &TIMING), Duration::ZERO);
    }

    #[test]
    fn transitions_count_takeovers_not_renewals() {
        let wall = Timestamp::from_second(100).unwrap();
        let mut old = lease(0);
        old.metadata.resource_version = Some("7".to_owned());
        let taken = held_by(old.clone(), &election("b", None), wall);
        let spec = taken.spec.clone().unwrap();
        assert_eq!((spec.lease_transitions, spec.acquire_time), (Some(1), Some(MicroTime(wall))));
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("7"));
        let renewed = held_by(old.clone(), &election("a", None), wall).spec.unwrap();
        assert_eq!(renewed.lease_transitions, Some(0));
        assert_eq!(renewed.acquire_time, old.spec.unwrap().acquire_time);
        assert_eq!(renewed.renew_time, Some(MicroTime(wall)));
    }
}
