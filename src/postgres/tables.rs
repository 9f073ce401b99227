//! The tables in a tenant's database: what they take on disk, and what they would take if they were written anew.
//!
//! How much of a table is free cannot be asked for without an extension that only a superuser installs. It is estimated
//! from the rows that were removed since PostgreSQL's statistics began; once a table was written anew, it is known what
//! one of its rows takes, and nothing has to be estimated any more.

use std::collections::HashMap;

use serde::Deserialize;
use sqlx::{PgConnection, types::Json};

use super::{
    connect::{ANSWER_LIMIT, within},
    error::Result,
};

/// Less than this is not worth a rewrite: also an empty table takes some pages.
const LEAST_GAIN: i64 = 64 * 1024;
/// Nor is less than this part of the table, however close the target: so the bytes that are written again stay in
/// proportion to those that were deleted.
const LEAST_PART: i64 = 100;
/// When the target is out of reach, what takes this part of all is worth it all the same.
const LARGE_PART: i64 = 10;

/// A table, with its indexes and what belongs to it out of line.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Table {
    pub oid: i64,
    pub schema: String,
    pub name: String,
    /// Somebody keeps everybody else out of it: then its size cannot be asked for either.
    pub locked: bool,
    heap: Part,
    /// Has rows of its own: the pieces of long values.
    toast: Part,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Part {
    bytes: i64,
    /// Rows that are there.
    live: i64,
    /// Rows that nobody sees any more, or only those who began before, and whose room was not made free yet.
    dead: i64,
    /// Rows that were deleted, or replaced by an update, since the statistics began.
    removed: i64,
}

/// What one row takes in each table where nothing is free between the rows: what is to be remembered from one pass to
/// the next, for as long as a tenant is over its limit.
#[derive(Clone, Debug, Default)]
pub struct Packing {
    rows: HashMap<i64, RowSize>,
}

/// Nothing, where nothing is known.
#[derive(Clone, Copy, Debug, Default)]
struct RowSize {
    heap: Option<f64>,
    toast: Option<f64>,
}

/// A table that one has to itself, or waits to have, is not asked for its size, for the question would wait.
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

/// Looks at every table of the modules' in a database, or at the one that is asked for. The session is
/// `tenantry_migrator`'s.
pub(super) async fn look(session: &mut PgConnection, only: Option<i64>) -> Result<Vec<Table>> {
    let query = sqlx::query_scalar::<_, Json<Vec<Table>>>(QUERY).bind(only).fetch_one(session);
    let Json(tables) = within(ANSWER_LIMIT, "look at the tenant's tables", query).await?;
    Ok(tables)
}

impl Table {
    /// How it is called in what people read.
    pub(super) fn label(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// What it takes.
    pub(super) fn bytes(&self) -> i64 {
        self.heap.bytes + self.toast.bytes
    }

    /// Whether it has rows whose room a VACUUM may make free.
    pub(super) fn has_dead_rows(&self) -> bool {
        self.heap.dead + self.toast.dead > 0
    }
}

impl Part {
    /// What a row takes, if all that were removed left their room behind.
    fn row_of(&self, bytes: i64) -> Option<f64> {
        size_of_one(bytes, self.live + self.removed.max(self.dead))
    }

    /// What a rewrite gives back. It keeps what is dead, if that is still there after a plain VACUUM.
    fn gain(&self, row: Option<f64>, keeps_dead: bool) -> i64 {
        let kept = self.live + if keeps_dead { self.dead } else { 0 };
        row.map_or(0, |row| (self.bytes - whole(row * kept as f64)).max(0))
    }
}

impl Packing {
    fn row(&self, table: &Table) -> RowSize {
        let known = self.rows.get(&table.oid).copied().unwrap_or_default();
        RowSize {
            heap: known.heap.or_else(|| table.heap.row_of(table.heap.bytes)),
            toast: known.toast.or_else(|| table.toast.row_of(table.toast.bytes)),
        }
    }

    /// What a rewrite would give back when nobody needs the dead rows any more.
    pub(super) fn hope(&self, table: &Table) -> i64 {
        let row = self.row(table);
        table.heap.gain(row.heap, false) + table.toast.gain(row.toast, false)
    }

    /// Whether enough is there for a pass to be worth it.
    pub(super) fn is_worth_a_look(&self, table: &Table) -> bool {
        self.hope(table) >= LEAST_GAIN
    }

    /// What a rewrite would give back now, after a plain VACUUM.
    fn gain(&self, table: &Table) -> i64 {
        let row = self.row(table);
        table.heap.gain(row.heap, true) + table.toast.gain(row.toast, true)
    }

    /// Whether dead rows that a plain VACUUM had to leave take room that is worth coming back for.
    pub(super) fn is_held_back(&self, table: &Table) -> bool {
        self.hope(table) - self.gain(table) >= LEAST_GAIN
    }

    /// Remembers what a row takes in a table of which nothing was known: by what the table took before a pass, and what
    /// the statistics said after a plain VACUUM, which put them right.
    pub(super) fn estimate(&mut self, before: &Table, after: &Table) {
        if !before.locked {
            let known = self.rows.entry(after.oid).or_default();
            known.heap = known.heap.or_else(|| after.heap.row_of(before.heap.bytes));
            known.toast = known.toast.or_else(|| after.toast.row_of(before.toast.bytes));
        }
    }

    /// Remembers what a row takes in a table that was just written anew, or cannot be: then too, only what is deleted
    /// from now on counts. The statistics are those from before.
    pub(super) fn measure(&mut self, before: &Table, now: &Table) {
        let row = |before: &Part, now: &Part| size_of_one(now.bytes, before.live + before.dead);
        let size = RowSize { heap: row(&before.heap, &now.heap), toast: row(&before.toast, &now.toast) };
        self.rows.insert(before.oid, size);
    }

    /// The tables that are worth a rewrite, those that give most first. `used` is what the database takes, `target` what
    /// it is to take at most.
    pub(super) fn worth_a_rewrite<'a>(
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

/// Bytes are far from where this would lose any.
fn whole(bytes: f64) -> i64 {
    bytes as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: i64 = 1 << 20;

    fn table(oid: i64, bytes: i64, live: i64, dead: i64, removed: i64) -> Table {
        let heap = Part { bytes, live, dead, removed };
        let name = format!("t{oid}");
        Table { oid, schema: "public".into(), name, locked: false, heap, toast: Part::default() }
    }

    fn chosen(packing: &Packing, tables: &[Table], used: i64, target: i64) -> Vec<i64> {
        packing.worth_a_rewrite(tables.iter(), used, target).iter().map(|table| table.oid).collect()
    }

    #[test]
    fn a_rewrite_is_for_what_reaches_the_target_or_gives_much() {
        let none = Packing::default();
        let (half, tenth, one_row) = (
            table(1, 100 * MB, 500, 0, 500),
            table(2, 10 * MB, 900, 0, 100),
            table(3, 900 * MB, 900_000, 0, 1),
        );
        let all = [one_row.clone(), tenth, half];
        // 50 and 1 MB are to be had of 1010.
        assert_eq!(chosen(&none, &all, 1010 * MB, 960 * MB), [1, 2]);
        assert_eq!(chosen(&none, &all, 1010 * MB, 900 * MB), [0; 0]);
        assert_eq!(chosen(&none, &all, 300 * MB, 200 * MB), [1]);
        // However close the target.
        assert_eq!(chosen(&none, &[one_row], 900 * MB + 1, 900 * MB), [0; 0]);
    }

    #[test]
    fn what_somebody_may_still_look_at_is_no_gain() {
        let packing = Packing::default();
        let held = table(1, 100 * MB, 500, 500, 500);
        assert_eq!((packing.hope(&held), packing.gain(&held)), (50 * MB, 0));
        assert!(packing.is_held_back(&held));
        assert_eq!(chosen(&packing, &[held], 100 * MB, 60 * MB), [0; 0]);
    }

    #[test]
    fn statistics_that_were_reset_say_nothing_until_more_is_deleted() {
        let mut packing = Packing::default();
        let reset = table(1, 100 * MB, 0, 0, 0);
        assert_eq!(packing.hope(&reset), 0);
        packing.estimate(&reset, &reset);
        let (before, after) = (table(1, 100 * MB, 0, 500, 500), table(1, 100 * MB, 500, 0, 500));
        assert!(packing.hope(&before) > 0);
        packing.estimate(&before, &after);
        assert_eq!(packing.gain(&after), 50 * MB);
    }

    #[test]
    fn a_table_written_anew_gives_nothing_more_until_more_is_deleted() {
        let mut packing = Packing::default();
        let before = table(1, 100 * MB, 500, 0, 5000);
        assert!(packing.gain(&before) > 90 * MB);
        packing.measure(&before, &table(1, 80 * MB, 0, 0, 0));
        assert_eq!(packing.gain(&table(1, 80 * MB, 500, 0, 5000)), 0);
        assert_eq!(packing.gain(&table(1, 80 * MB, 250, 0, 5250)), 40 * MB);
    }

    #[test]
    fn what_was_free_at_the_end_is_not_expected_twice() {
        let mut packing = Packing::default();
        let (before, after) = (table(1, 100 * MB, 500, 500, 500), table(1, 50 * MB, 500, 0, 500));
        assert_eq!(packing.hope(&before), 50 * MB);
        packing.estimate(&before, &after);
        assert_eq!(packing.gain(&after), 0);
    }
}
