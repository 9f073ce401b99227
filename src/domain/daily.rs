//! When a tenant's daily check is due: at a time of the day that its id determines.

use jiff::Timestamp;

use super::identity::TenantId;

/// The seconds of a period.
pub const PERIOD: i64 = 24 * 3600;

/// Whether a tenant's time of the day is after `last`, and not after `now`.
pub fn is_due(id: TenantId, last: Timestamp, now: Timestamp) -> bool {
    let offset = i64::try_from(id.0.as_u128() % u128::from(PERIOD.unsigned_abs())).unwrap_or_default();
    let day = |at: Timestamp| (at.as_second() - offset).div_euclid(PERIOD);
    day(now) > day(last)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn every_tenant_is_due_once_a_day() {
        for id in [0, 1, 86_399, u128::MAX] {
            let id = TenantId(Uuid::from_u128(id));
            let at = |minute: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
            for first in [-7, 0, 1_439] {
                let times =
                    (0..3 * 1_440).filter(|minute| is_due(id, at(first + minute), at(first + minute + 1)));
                assert_eq!(times.count(), 3, "{id}");
            }
            assert!(is_due(id, at(0), at(5 * 1_440)) && !is_due(id, at(3), at(3)));
        }
    }
}
