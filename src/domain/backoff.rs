//! How long to wait before the next attempt.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::reason::Reason;

/// The longest wait after a temporary failure.
pub const MAX_TEMPORARY: Duration = Duration::from_secs(60);

/// The wait after a permanent failure: long, because a watch or a spec change usually comes first.
pub const PERMANENT: Duration = Duration::from_secs(300);

/// The wait after `attempt` failed attempts (from 1): doubling from one second, and spread by `jitter` (0 to 1) over
/// the upper half, so that tenants that failed together are not retried together.
pub fn temporary(attempt: u32, jitter: f64) -> Duration {
    let exponent = attempt.saturating_sub(1).min(16);
    let full = Duration::from_secs(1 << exponent).min(MAX_TEMPORARY);
    full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

/// When the next attempt is: after the wait, or at a time before that at which something else may be done. A time that has passed
/// brings nothing forward: whatever fails after it waits as any other.
pub fn next_attempt(now: Timestamp, wait: Duration, not_after: Option<Timestamp>) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::ZERO);
    let next = now.checked_add(wait).unwrap_or(Timestamp::MAX);
    not_after.filter(|at| *at > now).map_or(next, |at| next.min(at))
}

/// Whether a failure for this reason can end because the tenant's server changed. The others wait for their next attempt.
pub fn ends_with_server(failure: Reason) -> bool {
    matches!(
        failure,
        Reason::AuthenticationFailed
            | Reason::CollationMismatch
            | Reason::Conflict
            | Reason::DatabaseMissing
            | Reason::DatabaseTimeout
            | Reason::DatabaseUnreachable
            | Reason::DiskFull
            | Reason::EncodingMismatch
            | Reason::LoginMissing
            | Reason::MissingRight
            | Reason::NamespaceNotAllowed
            | Reason::OutOfMemory
            | Reason::ReadOnlyServer
            | Reason::ServerNotFound
            | Reason::ServerNotReady
            | Reason::ServerReplaced
            | Reason::SessionEnded
            | Reason::StartingUp
            | Reason::TemplateBroken
            | Reason::TlsFailed
            | Reason::TooManyConnections
            | Reason::UnexpectedAnswer
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_doubles_up_to_maximum() {
        let seconds: Vec<_> = (1..=9).map(|attempt| temporary(attempt, 1.0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(temporary(u32::MAX, 1.0), MAX_TEMPORARY);
    }

    /// The times of the attempts in an hour, each of which fails, in seconds.
    fn attempts(not_after: Option<i64>, wait: impl Fn(u32) -> Duration) -> Vec<i64> {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (mut now, mut times) = (at(0), vec![]);
        while now < at(3600) {
            times.push(now.as_second());
            now = next_attempt(now, wait(u32::try_from(times.len()).unwrap()), not_after.map(at));
        }
        times
    }

    #[test]
    fn time_that_has_passed_brings_no_attempt_forward() {
        let temporary = |attempt| temporary(attempt, 1.0);
        let expected = attempts(None, temporary);
        assert_eq!(expected.len(), 65);
        for passed in [-60, 0] {
            assert_eq!(attempts(Some(passed), temporary), expected);
            assert_eq!(attempts(Some(passed), |_| PERMANENT).len(), 12);
        }
        // One that comes brings exactly one forward.
        let times = attempts(Some(40), temporary);
        assert_eq!(times[..8], [0, 1, 3, 7, 15, 31, 40, 100]);
        assert_eq!(attempts(Some(60), |_| PERMANENT)[..3], [0, 60, 360]);
    }

    #[test]
    fn server_ends_only_failures_of_its_own() {
        assert!(ends_with_server(Reason::ServerNotReady) && ends_with_server(Reason::DatabaseUnreachable));
        for other in [Reason::MigrationFailed, Reason::SecretConflict, Reason::PlanNotFound] {
            assert!(!ends_with_server(other), "{other}");
        }
    }

    #[test]
    fn jitter_stays_in_the_upper_half() {
        assert_eq!(temporary(3, 0.0), Duration::from_secs(2));
        assert_eq!(temporary(3, 7.0), Duration::from_secs(4));
    }
}
