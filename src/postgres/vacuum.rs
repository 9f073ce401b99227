//! Gives back the room of what a tenant deleted: PostgreSQL by itself only keeps it for what is written next.
//!
//! A plain VACUUM blocks nobody, but gives back only what is free at a table's end. VACUUM FULL writes the table anew:
//! nobody reads it meanwhile, and both copies take room until it is done. So the second is for what the first did not
//! do, and only where much is to be had by it: a tenant that deletes a row a minute does not have a gigabyte rewritten
//! every minute.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::domain::identity::TenantId;

use super::{
    connect::within,
    error::{Error, Result},
    identifier::{Ident, Script, Word},
    modules::ModuleSet,
    server::{Server, run_on},
    sessions::Session,
    tables::{Table, look},
};

pub use super::tables::Packing;

/// While VACUUM FULL waits until the tenant's sessions are done with a table, others queue up behind it. (Autovacuum
/// leaves a table that somebody waits for after one second.)
const LOCK_PATIENCE: Word = Word("2s");
/// How long one table may take. The server gives up, and undoes what it did, before the client does.
const TABLE_PATIENCE: Word = Word("30min");
const TABLE_LIMIT: Duration = Duration::from_secs(31 * 60);
/// After this long no further table is begun: other tenants wait for their turn.
const PASS_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The SQLSTATE of a lock that was waited for in vain.
const LOCK_NOT_AVAILABLE: &str = "55P03";

const PLAIN: &str = "VACUUM (TRUNCATE) {}.{}";
const FULL: &str = "VACUUM (FULL) {}.{}";

/// What was done for a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// The bytes beyond an empty database's, before.
    pub bytes_before: i64,
    /// And after.
    pub bytes_after: i64,
    /// The tables that were vacuumed where they are.
    pub vacuumed: Vec<String>,
    /// Those that were written anew.
    pub rewritten: Vec<String>,
    /// Those that were left alone, for other sessions had locks on them.
    pub skipped_locked: Vec<String>,
    /// Those with which something else was wrong, and what.
    pub failed: Vec<String>,
    /// Whether there is more to be had that was in somebody's way: a lock, a transaction that may still look at what was
    /// deleted since it began, other tenants that wait. Otherwise there is, once more was deleted.
    pub again: bool,
}

impl Server {
    /// Gives back the room of rows that were deleted in a tenant's database, until it takes no more than `target` bytes
    /// beyond an empty one, as [`Self::sample`] counts them. One tenant, and one table, at a time.
    ///
    /// The tenant is expected to write nothing meanwhile. What is learned of its tables is put into `packing`, which is
    /// to be kept for as long as the tenant is over its limit; without it, a table may be written anew once for nothing.
    /// While [`Reclaimed::again`], a pass a minute later is worth it; otherwise one after [`Sample::deleted`](super::storage::Sample::deleted) has grown.
    /// Each pass may hold up sessions that want to read a locked table for two seconds. `is_wanted` is asked before each
    /// table: who has full access again by then must not find its tables locked.
    ///
    /// Cut off, it leaves the database open to the migrator until the next visit; the server finishes the table at which
    /// it is.
    ///
    /// # Errors
    /// What keeps the server from doing anything; among it a full disk (`DiskFull`), for a table that is written anew
    /// needs room first. What is wrong with one table is not.
    pub async fn reclaim(
        &self,
        id: TenantId,
        database: &str,
        modules: &ModuleSet,
        target: i64,
        packing: &mut Packing,
        is_wanted: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<Reclaimed> {
        let _one = self.inner.reclaiming.lock().await;
        let bytes = self.bytes(database, modules).await?;
        let mut done = Reclaimed { bytes_before: bytes, bytes_after: bytes, ..Reclaimed::default() };
        if bytes <= target {
            return Ok(done);
        }
        let mut visit = self.enter(id, database, "connect to vacuum").await?;
        let result = vacuum(&mut visit.session, target, packing, &mut done, is_wanted).await;
        self.leave(visit, result).await?;
        done.bytes_after = self.bytes(database, modules).await?;
        done.again &= done.bytes_after > target;
        Ok(done)
    }
}

async fn vacuum(
    session: &mut Session,
    target: i64,
    packing: &mut Packing,
    done: &mut Reclaimed,
    is_wanted: &(dyn Fn() -> bool + Send + Sync),
) -> Result<()> {
    let limits = Script::of("SET lock_timeout = '{}'", &[&LOCK_PATIENCE])
        .then("SET statement_timeout = '{}'", &[&TABLE_PATIENCE]);
    run_on(session, "set the limits of VACUUM", &limits).await?;
    let before = match look(session, None).await {
        // Somebody was just about to have a table to himself.
        Err(error) if error.sql_state().as_deref() == Some(LOCK_NOT_AVAILABLE) => {
            done.again = true;
            return Ok(());
        }
        found => found?,
    };
    let tables = before.iter().map(|table| (table.oid, table.clone())).collect();
    let used = done.bytes_before;
    let until = Instant::now() + PASS_LIMIT;
    let mut pass = Pass { session, done, tables, used, target, until, is_wanted };

    // One that somebody has to himself would be waited for in vain.
    let (locked, open): (Vec<&Table>, Vec<&Table>) = before.iter().partition(|table| table.locked);
    pass.done.skipped_locked.extend(locked.into_iter().map(Table::label));
    pass.done.again = !pass.done.skipped_locked.is_empty();
    let mut worth = open;
    worth.retain(|table| table.has_dead_rows() || packing.is_worth_a_look(table));
    worth.sort_by_key(|table| std::cmp::Reverse(packing.hope(table)));
    for table in worth {
        if pass.is_over() {
            break;
        }
        pass.run(table, Way::Plain).await?;
    }
    for table in &before {
        packing.estimate(table, &pass.tables[&table.oid]);
    }
    pass.done.again |= pass.tables.values().any(|table| packing.is_held_back(table));

    let worth = packing.worth_a_rewrite(pass.tables.values(), pass.used, target);
    let worth: Vec<Table> = worth.into_iter().cloned().collect();
    for table in &worth {
        if pass.is_over() {
            break;
        }
        if pass.run(table, Way::Full).await? != Outcome::Locked {
            packing.measure(table, &pass.tables[&table.oid]);
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// What is free at the end is given back.
    Plain,
    /// The table is written anew.
    Full,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Locked,
    Failed,
}

/// One pass over a tenant's tables.
struct Pass<'a> {
    session: &'a mut Session,
    done: &'a mut Reclaimed,
    /// As they were last seen.
    tables: BTreeMap<i64, Table>,
    /// What the database takes by now.
    used: i64,
    target: i64,
    until: Instant,
    is_wanted: &'a (dyn Fn() -> bool + Send + Sync),
}

impl Pass<'_> {
    /// Whether no further table is begun.
    fn is_over(&mut self) -> bool {
        let left = Instant::now() >= self.until || !(self.is_wanted)();
        self.done.again |= left;
        left || self.used <= self.target
    }

    async fn run(&mut self, table: &Table, way: Way) -> Result<Outcome> {
        let label = table.label();
        let template = if way == Way::Full { FULL } else { PLAIN };
        let script = Script::of(template, &[&Ident::new(&table.schema)?, &Ident::new(&table.name)?]);
        let vacuum = sqlx::raw_sql(script.sql()).execute(&mut **self.session);
        if let Err(error) = within(TABLE_LIMIT, "vacuum a table", vacuum).await {
            return self.note(label, error);
        }
        let list = if way == Way::Full { &mut self.done.rewritten } else { &mut self.done.vacuumed };
        list.push(label);
        // A table that is gone, or that somebody has to himself by now, is looked at by the next pass.
        let found = match look(self.session, Some(table.oid)).await {
            Err(error) if error.sql_state().as_deref() == Some(LOCK_NOT_AVAILABLE) => Vec::new(),
            found => found?,
        };
        if let Some(found) = found.into_iter().find(|found| !found.locked && !table.locked) {
            self.used -= table.bytes() - found.bytes();
            self.tables.insert(table.oid, found);
        }
        Ok(Outcome::Done)
    }

    /// Takes note of what is wrong with one table alone.
    fn note(&mut self, label: String, error: Error) -> Result<Outcome> {
        match error.sql_state().as_deref() {
            Some(LOCK_NOT_AVAILABLE) => {
                self.done.again = true;
                self.done.skipped_locked.push(label);
                Ok(Outcome::Locked)
            }
            // It was dropped meanwhile.
            Some("42P01" | "3F000") => Ok(Outcome::Failed),
            Some(state) if !is_the_servers(state) => {
                self.done.failed.push(format!("{label}: {error}"));
                Ok(Outcome::Failed)
            }
            _ => Err(error),
        }
    }
}

/// Whether what a SQLSTATE says is true of every table: the disk is full, the server stops, or takes no writes.
fn is_the_servers(state: &str) -> bool {
    ["08", "25", "53", "57P", "58"].iter().any(|class| state.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_ends_a_pass_and_a_broken_table_does_not() {
        for state in ["53100", "57P01", "25006", "08006", "58030"] {
            assert!(is_the_servers(state), "{state}");
        }
        for state in ["57014", "XX002", "P0001", "42883"] {
            assert!(!is_the_servers(state), "{state}");
        }
    }
}
