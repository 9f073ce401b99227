//! The registry's rows as they were last read, so that only those that changed since are read.

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{identity::TenantId, observed::RegistryStatus, record::TenantRecord};

/// A row is stamped when its transaction begins, and can be read when it is committed: longer than any transaction of the
/// registry takes.
const OVERLAP: SignedDuration = SignedDuration::from_secs(120);

/// Times are added up modulo this number, so that the sum of any number of rows fits.
pub const CHECKSUM_MODULUS: i64 = 1_000_003;

/// What was read of the registry at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangedRows {
    /// The moment, by the registry's clock.
    pub at: Timestamp,
    /// The number of rows that are not closed, or whose database is retained.
    pub count: i64,
    /// The sum of their `updated_at`, each in microseconds modulo `CHECKSUM_MODULUS`.
    pub checksum: i64,
    /// The rows that may have changed since the time that was asked for.
    pub rows: Vec<TenantRecord>,
}

/// The rows that are not closed, and closed ones whose database is retained; without their settings, which may be large.
#[derive(Debug, Default)]
pub struct KnownRows {
    by_id: HashMap<TenantId, Arc<TenantRecord>>,
    read_at: Option<Timestamp>,
}

impl KnownRows {
    /// The time since which changes have to be read; none: everything.
    pub fn since(&self) -> Option<Timestamp> {
        self.read_at?.checked_sub(OVERLAP).ok()
    }

    /// Takes over what was read. Returns whether the rows are those of the registry; if not, it was restored to an older
    /// state, and everything has to be read.
    pub fn update(&mut self, read: ChangedRows) -> bool {
        if self.read_at.is_none() {
            self.by_id.clear();
        }
        for mut row in read.rows {
            row.settings.clear();
            if row.status == RegistryStatus::Deprovisioned && !row.database_exists {
                self.by_id.remove(&row.id);
            } else {
                self.by_id.insert(row.id, Arc::new(row));
            }
        }
        let is_same = self.state() == (read.count, read.checksum);
        self.read_at = is_same.then_some(read.at);
        is_same
    }

    /// The number and the checksum of the rows: others, if any row changed.
    pub fn state(&self) -> (i64, i64) {
        let checksum = self.by_id.values().map(|row| checksum(row)).sum();
        (i64::try_from(self.by_id.len()).unwrap_or(i64::MAX), checksum)
    }

    /// The rows that are not closed, and the closed ones whose database is retained.
    pub fn registered_and_retained(&self) -> (Vec<Arc<TenantRecord>>, Vec<Arc<TenantRecord>>) {
        self.by_id.values().cloned().partition(|row| row.status != RegistryStatus::Deprovisioned)
    }
}

fn checksum(row: &TenantRecord) -> i64 {
    row.updated_at.as_microsecond() % CHECKSUM_MODULUS
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn row(id: u128, updated: i64, status: RegistryStatus) -> TenantRecord {
        let settings = [("theme".to_owned(), "dark".into())].into();
        let (id, updated_at) = (TenantId(Uuid::from_u128(id)), at(updated));
        TenantRecord { id, updated_at, settings, ..TenantRecord::example(status) }
    }

    /// What a registry with the rows `all` returns, if `changed` are asked for.
    fn read(now: i64, all: &[TenantRecord], changed: &[TenantRecord]) -> ChangedRows {
        let (count, checksum) = (all.len() as i64, all.iter().map(checksum).sum());
        ChangedRows { at: at(now), count, checksum, rows: changed.to_vec() }
    }

    #[test]
    fn changes_are_merged() {
        let active = RegistryStatus::Active;
        let mut known = KnownRows::default();
        assert_eq!(known.since(), None);
        let before = [row(1, 5, active), row(2, 6, active)];
        assert!(known.update(read(1000, &before, &before)));
        assert_eq!(known.since(), Some(at(1000 - 120)));

        let changed = [row(2, 1001, RegistryStatus::Deprovisioned), row(3, 1002, active)];
        let after = [before[0].clone(), changed[0].clone(), changed[1].clone()];
        assert!(known.update(read(1030, &after, &changed)));
        let (registered, retained) = known.registered_and_retained();
        assert_eq!((registered.len(), retained.len()), (2, 1));
        assert!(registered.iter().all(|row| row.settings.is_empty()));

        // Its database is dropped now.
        let closed = TenantRecord { database_exists: false, ..row(2, 1040, RegistryStatus::Deprovisioned) };
        let open = [after[0].clone(), after[2].clone()];
        assert!(known.update(read(1060, &open, &[closed])));
        assert_eq!(known.registered_and_retained().1, []);
    }

    #[test]
    fn restored_registry_is_read_again() {
        let active = RegistryStatus::Active;
        let mut known = KnownRows::default();
        let now = [row(1, 5, active), row(2, 900, active)];
        assert!(known.update(read(1000, &now, &now)));
        for restored in [&now[..1], &[row(1, 5, active), row(2, 6, active)]] {
            let mut known = KnownRows { by_id: known.by_id.clone(), read_at: known.read_at };
            assert!(!known.update(read(1030, restored, &[])));
            assert_eq!(known.since(), None);
            assert!(known.update(read(1030, restored, restored)));
            assert_eq!(known.registered_and_retained().0.len(), restored.len());
        }
    }
}
