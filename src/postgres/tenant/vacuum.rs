//! Reclaims the disk space of deleted rows, which PostgreSQL otherwise keeps for later writes.
//!
//! A plain VACUUM blocks no session, but returns only the free space at the end of a table. VACUUM FULL rewrites the
//! table: it cannot be read meanwhile, and both copies take space until it is done. So VACUUM FULL runs only for what the
//! plain VACUUM did not free, and only for a large gain: a tenant that deletes a row a minute must not have a gigabyte
//! rewritten every minute.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    domain::placement::Placement,
    modules::ModuleSet,
    postgres::{
        error::{Error, Result},
        identifier::{Ident, Keyword, Script},
        server::{Server, run_on},
        session::{connect::with_timeout, pool::Session},
    },
};

use super::tables::{Table, read_tables};

pub use super::tables::RowSizes;

/// While VACUUM FULL waits for a table, other sessions queue behind it. (Autovacuum releases a table that another session
/// waits for after one second.)
const LOCK_TIMEOUT: Keyword = Keyword("2s");
/// The time limit for one table. The server cancels the statement before the client's limit.
const TABLE_TIMEOUT: Keyword = Keyword("30min");
const TABLE_LIMIT: Duration = Duration::from_secs(31 * 60);
/// After this time no further table is begun: other tenants are waiting.
const PASS_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The SQLSTATE of a lock timeout.
const LOCK_NOT_AVAILABLE: &str = "55P03";

const PLAIN: &str = "VACUUM (TRUNCATE) {}.{}";
const FULL: &str = "VACUUM (FULL) {}.{}";

/// The result of a pass over a tenant's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// The bytes beyond an empty database's, before the pass.
    pub bytes_before: i64,
    /// The same, after the pass.
    pub bytes_after: i64,
    /// The tables that were vacuumed in place.
    pub vacuumed: Vec<String>,
    /// The tables that were rewritten.
    pub rewritten: Vec<String>,
    /// The tables that were skipped because other sessions held locks on them.
    pub skipped_locked: Vec<String>,
    /// The tables that failed, with the error.
    pub failed: Vec<String>,
    /// Whether another pass can free more although nothing more is deleted: a lock, a transaction that still needs deleted
    /// rows, or other waiting tenants prevented it.
    pub again: bool,
}

impl Server {
    /// Reclaims the space of deleted rows in a tenant's database, until it takes at most `target` bytes beyond an empty
    /// one, as [`Self::sample`] counts them. One tenant, and one table, at a time.
    ///
    /// The tenant is expected to write nothing meanwhile. What is learned about its tables is stored in `row_sizes`, which
    /// is kept for as long as the tenant is over its limit; without it, a table may be rewritten once for nothing. If
    /// [`Reclaimed::again`], another pass a minute later is useful; otherwise one after
    /// [`Sample::deleted`](super::storage::Sample::deleted) has grown. A pass may delay sessions that read a locked table
    /// by two seconds. `is_wanted` is called before each table: a tenant that has full access again must not find its
    /// tables locked.
    ///
    /// When it is cancelled, the server finishes the current table.
    ///
    /// # Errors
    /// A failure of the whole server, such as a full disk (`DiskFull`): a rewrite needs space first. The failure of one
    /// table is not an error.
    pub async fn reclaim(
        &self,
        placement: &Placement,
        modules: &ModuleSet,
        target: i64,
        row_sizes: &mut RowSizes,
        is_wanted: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<Reclaimed> {
        let _one = self.inner.reclaim_lock.lock().await;
        let bytes = self.bytes(placement, modules).await?;
        let mut done = Reclaimed { bytes_before: bytes, bytes_after: bytes, ..Reclaimed::default() };
        if bytes <= target {
            return Ok(done);
        }
        let mut migrator = self.open_migrator_session(placement, "connect to vacuum").await?;
        let result = vacuum(&mut migrator.session, target, row_sizes, &mut done, is_wanted).await;
        self.close_migrator_session(migrator, placement, result).await?;
        done.bytes_after = self.bytes(placement, modules).await?;
        done.again &= done.bytes_after > target;
        Ok(done)
    }
}

async fn vacuum(
    session: &mut Session,
    target: i64,
    row_sizes: &mut RowSizes,
    done: &mut Reclaimed,
    is_wanted: &(dyn Fn() -> bool + Send + Sync),
) -> Result<()> {
    let limits = Script::of("SET lock_timeout = '{}'", &[&LOCK_TIMEOUT])
        .then("SET statement_timeout = '{}'", &[&TABLE_TIMEOUT]);
    run_on(session, "set the limits of VACUUM", &limits).await?;
    let before = match read_tables(session, None).await {
        // A session is just taking an exclusive lock on a table.
        Err(error) if error.sql_state().as_deref() == Some(LOCK_NOT_AVAILABLE) => {
            done.again = true;
            return Ok(());
        }
        found => found?,
    };
    let tables = before.iter().map(|table| (table.oid, table.clone())).collect();
    let used = done.bytes_before;
    let until = Instant::now() + PASS_LIMIT;
    let mut pass = VacuumPass { session, done, tables, used, target, until, is_wanted };

    // Waiting for a table with an exclusive lock is useless.
    let (locked, open): (Vec<&Table>, Vec<&Table>) = before.iter().partition(|table| table.locked);
    pass.done.skipped_locked.extend(locked.into_iter().map(Table::label));
    pass.done.again = !pass.done.skipped_locked.is_empty();
    let mut worth = open;
    worth.retain(|table| table.has_dead_rows() || row_sizes.is_worth_vacuum(table));
    worth.sort_by_key(|table| std::cmp::Reverse(row_sizes.potential_gain(table)));
    for table in worth {
        if pass.is_finished() {
            break;
        }
        pass.run(table, VacuumMode::Plain).await?;
    }
    for table in &before {
        row_sizes.estimate(table, &pass.tables[&table.oid]);
    }
    pass.done.again |= pass.tables.values().any(|table| row_sizes.is_held_back(table));

    let worth = row_sizes.rewrite_candidates(pass.tables.values(), pass.used, target);
    let worth: Vec<Table> = worth.into_iter().cloned().collect();
    for table in &worth {
        if pass.is_finished() {
            break;
        }
        if pass.run(table, VacuumMode::Full).await? != VacuumOutcome::Locked {
            row_sizes.measure(table, &pass.tables[&table.oid]);
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum VacuumMode {
    /// Free space at the end of the table is returned.
    Plain,
    /// The table is rewritten.
    Full,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum VacuumOutcome {
    Done,
    Locked,
    Failed,
}

/// One pass over a tenant's tables.
struct VacuumPass<'a> {
    session: &'a mut Session,
    done: &'a mut Reclaimed,
    /// As they were last read.
    tables: BTreeMap<i64, Table>,
    /// The current size of the database.
    used: i64,
    target: i64,
    until: Instant,
    is_wanted: &'a (dyn Fn() -> bool + Send + Sync),
}

impl VacuumPass<'_> {
    /// Whether no further table is vacuumed.
    fn is_finished(&mut self) -> bool {
        let ends_early = Instant::now() >= self.until || !(self.is_wanted)();
        self.done.again |= ends_early;
        ends_early || self.used <= self.target
    }

    async fn run(&mut self, table: &Table, mode: VacuumMode) -> Result<VacuumOutcome> {
        let label = table.label();
        let template = if mode == VacuumMode::Full { FULL } else { PLAIN };
        let script = Script::of(template, &[&Ident::new(&table.schema)?, &Ident::new(&table.name)?]);
        let vacuum = sqlx::raw_sql(script.sql()).execute(&mut **self.session);
        if let Err(error) = with_timeout(TABLE_LIMIT, "vacuum a table", vacuum).await {
            return self.record_failure(label, error);
        }
        let list = if mode == VacuumMode::Full { &mut self.done.rewritten } else { &mut self.done.vacuumed };
        list.push(label);
        // A table that was dropped or locked meanwhile is left to the next pass.
        let found = match read_tables(self.session, Some(table.oid)).await {
            Err(error) if error.sql_state().as_deref() == Some(LOCK_NOT_AVAILABLE) => Vec::new(),
            found => found?,
        };
        if let Some(found) = found.into_iter().find(|found| !found.locked && !table.locked) {
            self.used -= table.bytes() - found.bytes();
            self.tables.insert(table.oid, found);
        }
        Ok(VacuumOutcome::Done)
    }

    /// Records the failure of one table; any other error is returned.
    fn record_failure(&mut self, label: String, error: Error) -> Result<VacuumOutcome> {
        match error.sql_state().as_deref() {
            Some(LOCK_NOT_AVAILABLE) => {
                self.done.again = true;
                self.done.skipped_locked.push(label);
                Ok(VacuumOutcome::Locked)
            }
            // It was dropped meanwhile.
            Some("42P01" | "3F000") => Ok(VacuumOutcome::Failed),
            Some(state) if !concerns_server(state) => {
                self.done.failed.push(format!("{label}: {error}"));
                Ok(VacuumOutcome::Failed)
            }
            _ => Err(error),
        }
    }
}

/// Whether a SQLSTATE concerns the whole server: the disk is full, the server stops, or it accepts no writes.
fn concerns_server(state: &str) -> bool {
    ["08", "25", "53", "57P", "58"].iter().any(|class| state.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_ends_a_pass_and_broken_table_does_not() {
        for state in ["53100", "57P01", "25006", "08006", "58030"] {
            assert!(concerns_server(state), "{state}");
        }
        for state in ["57014", "XX002", "P0001", "42883"] {
            assert!(!concerns_server(state), "{state}");
        }
    }
}
