//! Ends the sessions of tenants' logins that use too much of what all databases of a server share.

use jiff::SignedDuration;
use sqlx::{FromRow, PgConnection, types::Json};

use crate::{
    domain::{
        excess::{Bounds, Excess, ServerUse, SessionUse, excessive, transactions_since},
        identity::TenantId,
    },
    postgres::{
        error::Result,
        server::Server,
        session::{
            connect::{ANSWER_LIMIT, with_timeout},
            pool::Session,
        },
    },
};

use super::ownership;

/// A session that used too much.
#[derive(Clone, Debug)]
pub struct EndedSession {
    /// The tenant whose login it was.
    pub tenant: TenantId,
    /// The login.
    pub login: String,
    /// The database that it was connected to.
    pub database: String,
    /// Its process.
    pub pid: i32,
    /// What it used too much of.
    pub excess: Excess,
}

#[derive(FromRow)]
struct UseRow {
    lock_table: i64,
    locks: i64,
    notify_queue: f64,
    may_signal: bool,
    next_transaction: i64,
    sessions: Json<Vec<SessionRow>>,
}

#[derive(serde::Deserialize)]
struct SessionRow {
    pid: i32,
    comment: String,
    login: String,
    database: String,
    locks: i64,
    transaction: Option<f64>,
    idle_in_transaction: Option<f64>,
    xid: Option<i64>,
    xmin: Option<i64>,
}

/// Sessions that use nothing of it are left out. Predicate locks have a table of their own, in which they become coarser
/// as it fills; fast-path locks and virtual transaction ids are in none. The view `pg_roles` would lock
/// `pg_db_role_setting`, whose space only a VACUUM FULL gives back.
const QUERY: &str = "\
WITH held AS MATERIALIZED (
    SELECT l.pid, count(*) AS locks FROM pg_locks AS l
    WHERE l.pid IS NOT NULL AND l.mode <> 'SIReadLock' AND NOT l.fastpath AND l.locktype <> 'virtualxid'
    GROUP BY l.pid
), used AS (
    SELECT a.pid, shobj_description(a.usesysid, 'pg_authid') AS comment, a.usename AS login,
           coalesce(a.datname, '') AS database, coalesce(h.locks, 0) AS locks,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS transaction,
           CASE WHEN a.state LIKE 'idle in transaction%'
                THEN extract(epoch FROM clock_timestamp() - a.state_change)::float8 END AS idle_in_transaction,
           a.backend_xid::text::bigint AS xid, a.backend_xmin::text::bigint AS xmin
    FROM pg_stat_activity AS a LEFT JOIN held AS h ON h.pid = a.pid
    WHERE a.usename IS NOT NULL AND (a.xact_start IS NOT NULL OR h.locks IS NOT NULL)
)
SELECT current_setting('max_locks_per_transaction')::bigint
           * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint)
           AS lock_table,
       (SELECT coalesce(sum(h.locks), 0)::bigint FROM held AS h) AS locks,
       pg_notification_queue_usage() AS notify_queue,
       pg_has_role('pg_signal_backend', 'USAGE') AS may_signal,
       -- age() is the same throughout a transaction.
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_transaction,
       coalesce((SELECT jsonb_agg(to_jsonb(u)) FROM used AS u WHERE starts_with(u.comment, $1)), '[]') AS sessions";

/// A process id may belong to another session by now: the login is compared again, before any process is ended.
const END: &str = "\
WITH found AS MATERIALIZED (
    SELECT a.pid FROM unnest($1::int[], $2::text[]) AS e (pid, login)
    JOIN pg_stat_activity AS a ON a.pid = e.pid AND a.usename = e.login)
SELECT pid FROM found WHERE pg_terminate_backend(pid)";

/// Without limits of the server that would end it: it is idle in its transaction.
const BEGIN: &str = "\
SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0; BEGIN";
/// Takes the locks on the shared catalogs, and on their indexes, that the other statements here need.
const TAKE_LOCKS: &str = "\
LOCK TABLE pg_catalog.pg_auth_members IN ACCESS SHARE MODE;
SELECT count(shobj_description(usesysid, 'pg_authid')) FROM pg_stat_activity";
/// Gives way to who waits for a lock of this session, such as a VACUUM FULL of a shared catalog.
const GIVE_WAY: &str = "COMMIT; BEGIN";
/// PostgreSQL keeps what it once read of the sessions until the end of the transaction.
const REFRESH: &str = "SELECT pg_stat_clear_snapshot()";

impl Server {
    /// Ends the sessions of tenants' logins that use too much of what all databases share. Returns them.
    pub async fn end_excessive_sessions(&self) -> Result<Vec<EndedSession>> {
        self.end_sessions_beyond(&Bounds::IN_FORCE).await
    }

    /// As [`Self::end_excessive_sessions`], with other bounds.
    pub async fn end_sessions_beyond(&self, bounds: &Bounds) -> Result<Vec<EndedSession>> {
        let mut place = self.inner.excess_watch.lock().await;
        self.inner.sessions.check_fence()?;
        let mut session = match place.take() {
            Some(session) => session,
            None => self.open_excess_watch().await?,
        };
        // After a failure, it is closed, and the next call opens another one.
        let (found, are_ended) = end_beyond(&mut session, bounds).await?;
        *place = Some(session);
        drop(place);
        if !are_ended {
            for session in &found {
                self.end_as_login(&session.login, session.pid).await?;
            }
        }
        Ok(found)
    }

    /// Opens a session that holds its locks on the catalogs from one look to the next, in an open transaction: while the
    /// lock table is full, no session can lock anything that it has not locked before.
    async fn open_excess_watch(&self) -> Result<Session> {
        let doing = "open the watch of sessions";
        let mut session = self.inner.sessions.admin_beyond_cap().await?;
        let begin = sqlx::raw_sql(BEGIN).execute(&mut *session);
        with_timeout(ANSWER_LIMIT, doing, begin).await?;
        take_locks(&mut session).await?;
        Ok(session)
    }
}

async fn take_locks(session: &mut PgConnection) -> Result<()> {
    let take = sqlx::raw_sql(TAKE_LOCKS).execute(&mut *session);
    with_timeout(ANSWER_LIMIT, "lock the catalogs for the watch of sessions", take).await?;
    end(session, &[]).await.map(drop)
}

/// Returns the sessions, and whether they were ended: with `pg_signal_backend` only.
async fn end_beyond(session: &mut PgConnection, bounds: &Bounds) -> Result<(Vec<EndedSession>, bool)> {
    let refresh = sqlx::query(REFRESH).execute(&mut *session);
    with_timeout(ANSWER_LIMIT, "forget what sessions used", refresh).await?;
    let query = sqlx::query_as::<_, UseRow>(QUERY).bind(ownership::TENANT).fetch_one(&mut *session);
    let row = with_timeout(ANSWER_LIMIT, "read what sessions use", query).await?;
    let server = ServerUse { lock_table: row.lock_table, locks: row.locks, notify_queue: row.notify_queue };
    let next = row.next_transaction;
    let sessions: Vec<SessionUse> =
        row.sessions.0.into_iter().filter_map(|session| session.read(next)).collect();
    let found = excessive(&sessions, server, bounds).into_iter();
    let mut found: Vec<EndedSession> = found
        .map(|(session, excess)| EndedSession {
            tenant: session.tenant,
            login: session.login.clone(),
            database: session.database.clone(),
            pid: session.pid,
            excess,
        })
        .collect();
    if row.may_signal && !found.is_empty() {
        let ended = end(session, &found).await?;
        // One that has ended by itself meanwhile is not reported.
        found.retain(|session| ended.contains(&session.pid));
    }
    if server.has_room_for_locks() {
        let give_way = sqlx::raw_sql(GIVE_WAY).execute(&mut *session);
        with_timeout(ANSWER_LIMIT, "give way in the watch of sessions", give_way).await?;
        take_locks(session).await?;
    }
    Ok((found, row.may_signal))
}

/// Ends sessions. Returns the processes of those that were still there.
async fn end(session: &mut PgConnection, found: &[EndedSession]) -> Result<Vec<i32>> {
    let end = sqlx::query_scalar(END)
        .bind(found.iter().map(|session| session.pid).collect::<Vec<_>>())
        .bind(found.iter().map(|session| session.login.as_str()).collect::<Vec<_>>())
        .fetch_all(session);
    with_timeout(ANSWER_LIMIT, "end sessions that use too much", end).await
}

impl SessionRow {
    /// The session, if its login is a tenant's.
    fn read(self, next_transaction: i64) -> Option<SessionUse> {
        let since = |xid: i64| transactions_since(xid, next_transaction);
        let age = |seconds: Option<f64>| seconds.and_then(|age| SignedDuration::try_from_secs_f64(age).ok());
        Some(SessionUse {
            pid: self.pid,
            tenant: ownership::tenant_of(&self.comment)?,
            login: self.login,
            database: self.database,
            locks: self.locks,
            transaction: age(self.transaction),
            idle_in_transaction: age(self.idle_in_transaction),
            transaction_ids: self.xid.into_iter().chain(self.xmin).map(since).max(),
        })
    }
}
