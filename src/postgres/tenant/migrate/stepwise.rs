//! A file with the header `no-transaction`: its statements are committed one by one, for those that PostgreSQL refuses in a
//! transaction, such as CREATE INDEX CONCURRENTLY.
//!
//! How far a database is, is in `tenantry.migration_progress`, so that an interrupted file goes on where it was: most
//! statements run in one transaction with that record. Of one that cannot, the record says that it began, with the
//! indexes that existed: the next attempt finds what it left. The file is in the ledger when all are done, and not before.

use std::time::Duration;

use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use sqlx::{Acquire, PgConnection, Postgres, Row, Transaction};

use super::file::{ModuleFile, reset};
use crate::{
    modules::{Statement, statements},
    postgres::{
        error::{Error, Result, code},
        identifier::{Quoted, Script, module_sql},
    },
};

const DOING: &str = "record the progress of a migration";

/// Not in the modules' own SQL: databases of earlier releases have no such table.
const TABLE: &str = "\
CREATE TABLE IF NOT EXISTS tenantry.migration_progress (
    module text NOT NULL, version integer NOT NULL,
    done integer NOT NULL, digest bytea NOT NULL, began bytea, indexes oid[],
    PRIMARY KEY (module, version))";

const READ: &str = "\
SELECT done, digest, began, coalesce(indexes::bigint[], '{}')
    FROM tenantry.migration_progress WHERE module = $1 AND version = $2";

const WRITE: &str = "\
INSERT INTO tenantry.migration_progress (module, version, done, digest, began, indexes) VALUES ($1, $2, $3, $4, $5,
    CASE WHEN $5 IS NOT NULL THEN ARRAY(SELECT i.indexrelid FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
               WHERE c.relowner = 'tenantry_owner'::regrole AND i.indisvalid) END)
ON CONFLICT (module, version) DO UPDATE SET done = excluded.done, digest = excluded.digest,
    began = excluded.began, indexes = excluded.indexes";

/// The indexes that are not as before a statement: those that it left invalid, and whether a valid one is new or is gone.
const INDEXES: &str = "\
WITH now AS (
    SELECT c.oid, i.indisvalid AS valid, format('%I.%I', n.nspname, c.relname) AS address, c.relname
    FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relowner = 'tenantry_owner'::regrole
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = c.oid))
SELECT ARRAY(SELECT address FROM now WHERE NOT valid AND (oid <> ALL ($1::bigint[]::oid[]) OR relname LIKE '%\\_ccold%'))::text[],
       EXISTS (SELECT FROM now WHERE NOT valid AND oid = ANY ($1::bigint[]::oid[])),
       EXISTS (SELECT FROM now WHERE valid AND oid <> ALL ($1::bigint[]::oid[]))
           OR EXISTS (SELECT FROM unnest($1::bigint[]::oid[]) AS b (oid) WHERE b.oid NOT IN (SELECT oid FROM now))";

/// Ends other sessions that still run a statement: an operation that was cancelled leaves it running.
const END_OTHERS: &str = "\
SELECT count(pg_terminate_backend(a.pid)) FROM pg_catalog.pg_stat_activity AS a
WHERE a.datname = current_database() AND a.usename = session_user AND a.pid <> pg_backend_pid()
  AND a.state = 'active' AND a.query <> '' AND starts_with($1, a.query)";
/// How often they are looked for, and the pause between.
const END_ROUNDS: u32 = 200;
const END_PAUSE: Duration = Duration::from_millis(25);

/// How far a file is in a database.
struct Progress {
    /// How many statements are done.
    done: usize,
    /// The digest of those.
    digest: Vec<u8>,
    /// The next statement, if it began outside of a transaction.
    began: Option<Began>,
}

/// A statement that began outside of a transaction, and may have left something.
struct Began {
    /// The digest of its text.
    digest: Vec<u8>,
    /// The indexes that were valid before.
    indexes: Vec<i64>,
}

/// What looks at the session in the transaction of each statement that has one, before it is committed.
pub(in crate::postgres) trait BeforeCommit: Send {
    /// Looks.
    fn look(&mut self) -> BoxFuture<'_, Result<()>>;
}

/// Runs what is left of a file, and records it. Returns how many statements it has.
pub(in crate::postgres) async fn run(
    session: &mut PgConnection,
    file: &ModuleFile<'_>,
    before_commit: Option<&mut (dyn BeforeCommit + '_)>,
) -> Result<u32> {
    let all = statements(&file.migration.sql);
    if let Some(statement) = all.iter().find(|statement| statement.begins_with(&TRANSACTION_CONTROL)) {
        return Err(file.failed_at(
            statement,
            "a file with the header no-transaction has no transactions of its own: each statement is committed by itself; \
             remove this one",
        ));
    }
    let result = run_all(session, file, &all, before_commit).await;
    reset(session).await?;
    result?;
    Ok(u32::try_from(all.len()).unwrap_or(u32::MAX))
}

/// The statements that begin or end a transaction.
const TRANSACTION_CONTROL: [&str; 9] =
    ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE"];

async fn run_all(
    session: &mut PgConnection,
    file: &ModuleFile<'_>,
    all: &[Statement<'_>],
    mut before_commit: Option<&mut (dyn BeforeCommit + '_)>,
) -> Result<()> {
    sqlx::raw_sql(TABLE).execute(&mut *session).await.map_err(Error::sql(DOING))?;
    let progress = read(session, file).await?;
    let done = progress.as_ref().map_or(0, |progress| progress.done);
    if let Some(progress) = &progress
        && (done > all.len() || digest(&all[..done]) != progress.digest)
    {
        return Err(file.failed(format!(
            "its first {done} statement(s), as they were in an earlier file, are applied to this database: a correction \
             keeps them as they were, and changes what follows"
        )));
    }
    let settings = file.settings(false)?;
    sqlx::raw_sql(settings.sql()).execute(&mut *session).await.map_err(Error::sql(DOING))?;
    let mut began = progress.and_then(|progress| progress.began);
    for (index, statement) in all.iter().enumerate() {
        let step = Step { file, all, index, statement };
        if index >= done {
            step.run(session, began.take(), before_commit.as_deref_mut()).await?;
        } else if statement.begins_with(&["SET", "RESET"]) {
            // What it sets holds for later statements, also after an interruption.
            let again = sqlx::raw_sql(module_sql(statement.text)).execute(&mut *session).await;
            again.map_err(|error| step.located(&error))?;
        }
    }
    reset(session).await?;
    let mut transaction = session.begin().await.map_err(Error::sql(DOING))?;
    sqlx::query("DELETE FROM tenantry.migration_progress WHERE module = $1 AND version = $2")
        .bind(file.module.name.as_ref())
        .bind(file.migration.version)
        .execute(&mut *transaction)
        .await
        .map_err(Error::sql(DOING))?;
    file.record(&mut transaction).await?;
    file.commit(transaction).await
}

/// One statement of a file.
struct Step<'a> {
    file: &'a ModuleFile<'a>,
    all: &'a [Statement<'a>],
    index: usize,
    statement: &'a Statement<'a>,
}

impl Step<'_> {
    /// Runs the statement, or finds that an interrupted attempt did.
    async fn run(
        &self,
        session: &mut PgConnection,
        began: Option<Began>,
        before_commit: Option<&mut (dyn BeforeCommit + '_)>,
    ) -> Result<()> {
        if began.is_some() {
            self.end_others(session).await?;
        }
        if let Some(began) = began
            && self.remove_remains(session, &began.indexes).await?
            && began.digest == self.digest()
        {
            return self.write(session, self.index + 1, false).await;
        }
        let mut transaction = session.begin().await.map_err(Error::sql(DOING))?;
        match sqlx::raw_sql(module_sql(self.statement.text)).execute(&mut *transaction).await {
            Ok(_) => {
                if let Some(before_commit) = before_commit {
                    before_commit.look().await?;
                }
                own_role(&mut transaction).await?;
                self.write(&mut transaction, self.index + 1, false).await?;
                return self.file.commit(transaction).await;
            }
            // It cannot run in a transaction, or has some of its own.
            Err(error) if matches!(code(&error), Some("25001" | "2D000")) => {
                transaction.rollback().await.map_err(Error::sql(DOING))?;
            }
            Err(error) => return Err(self.located(&error)),
        }
        self.write(session, self.index, true).await?;
        let result = sqlx::raw_sql(module_sql(self.statement.text)).execute(&mut *session).await;
        if let Err(error) = result {
            let error = self.located(&error);
            own_role(session).await?;
            // What it left costs the tenant's writes, until the next attempt.
            if let Some(began) = read(session, self.file).await?.and_then(|progress| progress.began) {
                self.remove_remains(session, &began.indexes).await?;
            }
            return Err(error);
        }
        own_role(session).await?;
        self.write(session, self.index + 1, false).await
    }

    /// Ends the sessions in which an earlier attempt still runs the statement. Only their own login may.
    async fn end_others(&self, session: &mut PgConnection) -> Result<()> {
        let mut left = 1;
        for _ in 0..END_ROUNDS {
            sqlx::raw_sql("SET ROLE none").execute(&mut *session).await.map_err(Error::sql(DOING))?;
            let mut own = own_names(session).await?;
            let query = sqlx::query_scalar::<_, i64>(END_OTHERS).bind(self.statement.text);
            left = query.fetch_one(&mut *own).await.map_err(Error::sql(DOING))?;
            own.commit().await.map_err(Error::sql(DOING))?;
            sqlx::raw_sql("RESET ROLE").execute(&mut *session).await.map_err(Error::sql(DOING))?;
            if left == 0 {
                return Ok(());
            }
            tokio::time::sleep(END_PAUSE).await;
        }
        Err(Error::SessionsInTheWay {
            database: self.file.module.name.to_string(),
            count: usize::try_from(left).unwrap_or_default(),
            who: "an earlier attempt of the same migration".to_owned(),
        })
    }

    /// Drops the invalid indexes that the statement left. Returns whether it is done: an index is new, or is gone.
    async fn remove_remains(&self, session: &mut PgConnection, before: &[i64]) -> Result<bool> {
        let mut own = own_names(session).await?;
        let query = sqlx::query(INDEXES).bind(before).fetch_one(&mut *own);
        let row = query.await.map_err(Error::sql(DOING))?;
        own.commit().await.map_err(Error::sql(DOING))?;
        let read = || -> sqlx::Result<(Vec<String>, bool, bool)> {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        };
        let (invalid, is_half_dropped, is_changed) = read().map_err(Error::sql(DOING))?;
        for index in &invalid {
            let drop = Script::of("DROP INDEX CONCURRENTLY IF EXISTS {}", &[&Quoted::by_postgres(index)]);
            let result = sqlx::raw_sql(drop.sql()).execute(&mut *session).await;
            result.map_err(|error| self.located(&error))?;
        }
        Ok(invalid.is_empty() && !is_half_dropped && is_changed)
    }

    async fn write(&self, session: &mut PgConnection, done: usize, began: bool) -> Result<()> {
        let mut own = own_names(session).await?;
        sqlx::query(WRITE)
            .bind(self.file.module.name.as_ref())
            .bind(self.file.migration.version)
            .bind(i32::try_from(done).unwrap_or(i32::MAX))
            .bind(digest(&self.all[..done]))
            .bind(began.then(|| self.digest()))
            .execute(&mut *own)
            .await
            .map_err(Error::sql(DOING))?;
        own.commit().await.map_err(Error::sql(DOING))
    }

    fn digest(&self) -> Vec<u8> {
        digest(std::slice::from_ref(self.statement))
    }

    fn located(&self, error: &sqlx::Error) -> Error {
        self.file.located(error, Some(self.statement), self.statement.start)
    }
}

/// Takes the role again that a statement may have changed: it holds for that statement only.
async fn own_role(session: &mut PgConnection) -> Result<()> {
    let query = sqlx::raw_sql("RESET ROLE").execute(session).await;
    query.map(drop).map_err(Error::sql(DOING))
}

/// Begins a transaction, or a part of the open one, in which names are PostgreSQL's: the search_path of the file has schemas
/// whose functions may fit better. At the end of the transaction, the file's own is in force again.
async fn own_names(session: &mut PgConnection) -> Result<Transaction<'_, Postgres>> {
    let mut own = session.begin().await.map_err(Error::sql(DOING))?;
    let set = sqlx::raw_sql("SET LOCAL search_path TO pg_catalog, pg_temp").execute(&mut *own).await;
    set.map_err(Error::sql(DOING))?;
    Ok(own)
}

async fn read(session: &mut PgConnection, file: &ModuleFile<'_>) -> Result<Option<Progress>> {
    let mut own = own_names(session).await?;
    let query = sqlx::query_as::<_, (i32, Vec<u8>, Option<Vec<u8>>, Vec<i64>)>(READ)
        .bind(file.module.name.as_ref())
        .bind(file.migration.version)
        .fetch_optional(&mut *own);
    let found = query.await.map_err(Error::sql(DOING))?;
    own.commit().await.map_err(Error::sql(DOING))?;
    Ok(found.map(|(done, digest, began, indexes)| Progress {
        done: usize::try_from(done).unwrap_or_default(),
        digest,
        began: began.map(|digest| Began { digest, indexes }),
    }))
}

/// The digest of statements, by which a correction is known to begin with them.
fn digest(statements: &[Statement<'_>]) -> Vec<u8> {
    let mut hash = Sha256::new();
    for statement in statements {
        hash.update(statement.text.as_bytes());
        hash.update([0]);
    }
    hash.finalize().to_vec()
}
