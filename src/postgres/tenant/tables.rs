//! The tables in a tenant's database: their size on disk, and their size after a rewrite.
//!
//! The free space in a table cannot be read without an extension that only a superuser can install. It is estimated from
//! the rows that were removed since PostgreSQL's statistics began. After a rewrite, the size of a row is known and the
//! estimate is no longer needed.

use std::collections::HashMap;

use serde::Deserialize;
use sqlx::{PgConnection, types::Json};

use crate::postgres::{
    error::Result,
    session::connect::{ANSWER_LIMIT, with_timeout},
};

/// The minimum gain of a rewrite: even an empty table takes some pages.
const LEAST_GAIN: i64 = 64 * 1024;
/// The minimum gain as a fraction of the table, even if the target is close: the bytes that are rewritten stay in
/// proportion to those that were deleted.
const LEAST_PART: i64 = 100;
/// If the target is out of reach, a gain over this fraction of the database is still worth a rewrite.
const LARGE_PART: i64 = 10;

/// A table, with its indexes and its TOAST table.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Table {
    pub oid: i64,
    pub schema: String,
    pub name: String,
    /// A session holds or waits for an ACCESS EXCLUSIVE lock: reading its size would wait.
    pub locked: bool,
    heap: RelationStats,
    /// Its rows are the pieces of long values.
    toast: RelationStats,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RelationStats {
    bytes: i64,
    /// The live rows.
    live: i64,
    /// The dead rows whose space is not free yet.
    dead: i64,
    /// The rows deleted, or replaced by an update, since the statistics began.
    removed: i64,
}

/// The size of a row in each table without free space between the rows. It is kept from one pass to the next, for as
/// long as a tenant is over its limit.
#[derive(Clone, Debug, Default)]
pub struct RowSizes {
    rows: HashMap<i64, RowSize>,
}

/// The size of a row in bytes, where it is known.
#[derive(Clone, Copy, Debug, Default)]
struct RowSize {
    heap: Option<f64>,
    toast: Option<f64>,
}

/// The size of a locked table is not read, since that would wait for the lock.
const QUERY: &str = "\
WITH locked AS MATERIALIZED (
    SELECT l.relation FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.mode = 'AccessExclusiveLock'
), tables AS (
    SELECT c.oid, c.relname, n.nspname, c.reltoastrelid AS toast, c.oid IN (SELECT relation FROM locked) AS locked
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.relowner = 'tenantry_owner'::regrole
      AND ($1::bigint IS NULL OR c.oid = $1::bigint::oid)
), sizes AS (
    SELECT t.*,
           CASE WHEN t.locked THEN 0 ELSE coalesce(pg_total_relation_size(t.oid), 0) END AS bytes,
           CASE WHEN t.locked THEN 0 ELSE coalesce(pg_total_relation_size(nullif(t.toast, 0)), 0) END AS toast_bytes
    FROM tables AS t
)
SELECT coalesce(jsonb_agg(jsonb_build_object(
    'oid', s.oid::bigint, 'schema', s.nspname, 'name', s.relname, 'locked', s.locked,
    'heap', jsonb_build_object(
        'bytes', s.bytes - s.toast_bytes,
        'live', pg_stat_get_live_tuples(s.oid), 'dead', pg_stat_get_dead_tuples(s.oid),
        'removed', pg_stat_get_tuples_deleted(s.oid) + pg_stat_get_tuples_updated(s.oid)),
    'toast', jsonb_build_object(
        'bytes', s.toast_bytes,
        'live', pg_stat_get_live_tuples(s.toast), 'dead', pg_stat_get_dead_tuples(s.toast),
        'removed', pg_stat_get_tuples_deleted(s.toast) + pg_stat_get_tuples_updated(s.toast)))), '[]')
FROM sizes AS s";

/// Reads every table of the modules in a database, or one. The session is `tenantry_migrator`'s.
pub(super) async fn read_tables(session: &mut PgConnection, only: Option<i64>) -> Result<Vec<Table>> {
    let query = sqlx::query_scalar::<_, Json<Vec<Table>>>(QUERY).bind(only).fetch_one(session);
    let Json(tables) = with_timeout(ANSWER_LIMIT, "read the tenant's tables", query).await?;
    Ok(tables)
}

impl Table {
    /// The name in messages.
    pub(super) fn label(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The size in bytes.
    pub(super) fn bytes(&self) -> i64 {
        self.heap.bytes + self.toast.bytes
    }

    /// Whether a VACUUM may free the space of rows.
    pub(super) fn has_dead_rows(&self) -> bool {
        self.heap.dead + self.toast.dead > 0
    }
}

impl RelationStats {
    /// The size of a row, if the space of all removed rows is still there.
    fn row_size(&self, bytes: i64) -> Option<f64> {
        size_of_one(bytes, self.live + self.removed.max(self.dead))
    }

    /// The bytes that a rewrite frees. It keeps the rows that are still dead after a plain VACUUM.
    fn gain(&self, row: Option<f64>, keeps_dead: bool) -> i64 {
        let kept = self.live + if keeps_dead { self.dead } else { 0 };
        row.map_or(0, |row| (self.bytes - whole(row * kept as f64)).max(0))
    }
}

impl RowSizes {
    fn row(&self, table: &Table) -> RowSize {
        let known = self.rows.get(&table.oid).copied().unwrap_or_default();
        RowSize {
            heap: known.heap.or_else(|| table.heap.row_size(table.heap.bytes)),
            toast: known.toast.or_else(|| table.toast.row_size(table.toast.bytes)),
        }
    }

    /// The bytes that a rewrite would free once no transaction needs the dead rows.
    pub(super) fn potential_gain(&self, table: &Table) -> i64 {
        let row = self.row(table);
        table.heap.gain(row.heap, false) + table.toast.gain(row.toast, false)
    }

    /// Whether the potential gain is worth a pass.
    pub(super) fn is_worth_vacuum(&self, table: &Table) -> bool {
        self.potential_gain(table) >= LEAST_GAIN
    }

    /// The bytes that a rewrite would free now, after a plain VACUUM.
    fn gain(&self, table: &Table) -> i64 {
        let row = self.row(table);
        table.heap.gain(row.heap, true) + table.toast.gain(row.toast, true)
    }

    /// Whether dead rows that a plain VACUUM had to keep take enough space for another pass.
    pub(super) fn is_held_back(&self, table: &Table) -> bool {
        self.potential_gain(table) - self.gain(table) >= LEAST_GAIN
    }

    /// Estimates the size of a row in a table for which it is not known, from the size before a pass and the statistics
    /// after a plain VACUUM, which corrects them.
    pub(super) fn estimate(&mut self, before: &Table, after: &Table) {
        if !before.locked {
            let known = self.rows.entry(after.oid).or_default();
            known.heap = known.heap.or_else(|| after.heap.row_size(before.heap.bytes));
            known.toast = known.toast.or_else(|| after.toast.row_size(before.toast.bytes));
        }
    }

    /// Records the size of a row in a table that was just rewritten, or cannot be: in both cases only later deletions
    /// count. The statistics are those from before.
    pub(super) fn measure(&mut self, before: &Table, now: &Table) {
        let row =
            |before: &RelationStats, now: &RelationStats| size_of_one(now.bytes, before.live + before.dead);
        let size = RowSize { heap: row(&before.heap, &now.heap), toast: row(&before.toast, &now.toast) };
        self.rows.insert(before.oid, size);
    }

    /// The tables that are worth a rewrite, those that give most first. `used` is what the database takes, `target` what
    /// it is to take at most.
    pub(super) fn rewrite_candidates<'a>(
        &self,
        tables: impl Iterator<Item = &'a Table>,
        used: i64,
        target: i64,
    ) -> Vec<&'a Table> {
        let mut gains: Vec<(i64, &Table)> = tables
            .filter(|table| !table.locked)
            .map(|table| (self.gain(table), table))
            .filter(|(gain, table)| *gain >= LEAST_GAIN.max(table.bytes() / LEAST_PART))
            .collect();
        let is_in_reach = used - gains.iter().map(|(gain, _)| gain).sum::<i64>() <= target;
        gains.retain(|(gain, _)| is_in_reach || *gain > used / LARGE_PART);
        gains.sort_by_key(|(gain, _)| std::cmp::Reverse(*gain));
        gains.into_iter().map(|(_, table)| table).collect()
    }
}

fn size_of_one(bytes: i64, rows: i64) -> Option<f64> {
    (rows > 0).then(|| bytes as f64 / rows as f64)
}

/// Sizes are far below the integers that an f64 cannot represent.
fn whole(bytes: f64) -> i64 {
    bytes as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: i64 = 1 << 20;

    fn table(oid: i64, bytes: i64, live: i64, dead: i64, removed: i64) -> Table {
        let heap = RelationStats { bytes, live, dead, removed };
        let name = format!("t{oid}");
        Table { oid, schema: "public".into(), name, locked: false, heap, toast: RelationStats::default() }
    }

    fn chosen(row_sizes: &RowSizes, tables: &[Table], used: i64, target: i64) -> Vec<i64> {
        row_sizes.rewrite_candidates(tables.iter(), used, target).iter().map(|table| table.oid).collect()
    }

    #[test]
    fn rewrite_needs_reachable_target_or_large_gain() {
        let none = RowSizes::default();
        let (half, tenth, one_row) = (
            table(1, 100 * MB, 500, 0, 500),
            table(2, 10 * MB, 900, 0, 100),
            table(3, 900 * MB, 900_000, 0, 1),
        );
        let all = [one_row.clone(), tenth, half];
        // 50 and 1 of 1010 MB can be freed.
        assert_eq!(chosen(&none, &all, 1010 * MB, 960 * MB), [1, 2]);
        assert_eq!(chosen(&none, &all, 1010 * MB, 900 * MB), [0; 0]);
        assert_eq!(chosen(&none, &all, 300 * MB, 200 * MB), [1]);
        // Even if the target is close.
        assert_eq!(chosen(&none, &[one_row], 900 * MB + 1, 900 * MB), [0; 0]);
    }

    #[test]
    fn rows_needed_by_a_transaction_are_no_gain() {
        let row_sizes = RowSizes::default();
        let held = table(1, 100 * MB, 500, 500, 500);
        assert_eq!((row_sizes.potential_gain(&held), row_sizes.gain(&held)), (50 * MB, 0));
        assert!(row_sizes.is_held_back(&held));
        assert_eq!(chosen(&row_sizes, &[held], 100 * MB, 60 * MB), [0; 0]);
    }

    #[test]
    fn reset_statistics_promise_no_gain() {
        let mut row_sizes = RowSizes::default();
        let reset = table(1, 100 * MB, 0, 0, 0);
        assert_eq!(row_sizes.potential_gain(&reset), 0);
        row_sizes.estimate(&reset, &reset);
        let (before, after) = (table(1, 100 * MB, 0, 500, 500), table(1, 100 * MB, 500, 0, 500));
        assert!(row_sizes.potential_gain(&before) > 0);
        row_sizes.estimate(&before, &after);
        assert_eq!(row_sizes.gain(&after), 50 * MB);
    }

    #[test]
    fn rewritten_table_has_no_gain_until_more_is_deleted() {
        let mut row_sizes = RowSizes::default();
        let before = table(1, 100 * MB, 500, 0, 5000);
        assert!(row_sizes.gain(&before) > 90 * MB);
        row_sizes.measure(&before, &table(1, 80 * MB, 0, 0, 0));
        assert_eq!(row_sizes.gain(&table(1, 80 * MB, 500, 0, 5000)), 0);
        assert_eq!(row_sizes.gain(&table(1, 80 * MB, 250, 0, 5250)), 40 * MB);
    }

    #[test]
    fn truncated_space_is_not_expected_twice() {
        let mut row_sizes = RowSizes::default();
        let (before, after) = (table(1, 100 * MB, 500, 500, 500), table(1, 50 * MB, 500, 0, 500));
        assert_eq!(row_sizes.potential_gain(&before), 50 * MB);
        row_sizes.estimate(&before, &after);
        assert_eq!(row_sizes.gain(&after), 0);
    }
}
