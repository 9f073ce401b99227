//! The end of the sessions that a login had before its access was narrowed, and the proof of it.

use std::{collections::HashSet, time::Duration};

use futures::TryStreamExt;
use sqlx::{Either, Row, postgres::PgRow};

use crate::{
    api::reason::Reason,
    domain::access::AccessLevel,
    postgres::{
        catalog::{inventory::Rights, ownership},
        error::{Error, Result},
        identifier::{ADMIN, GROUPS, Ident, Keyword, Literal, Script},
        session::{
            blockers::end_as_login,
            connect::{STATEMENT_LIMIT, with_timeout},
            pool::Session,
            prepared::Prepared,
        },
    },
};

/// How often sessions are ended and read again before they count as blocking: for five seconds. Other restrictions wait for
/// the same few sessions of the operator, and this one is tried again.
const ROUNDS: u32 = 50;
/// The first pause between two reads; it grows to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LAST_PAUSE: Duration = Duration::from_millis(100);
const DOING: &str = "end the tenant's sessions";
/// After how many rounds a session that is still starting is ended: an honest one has started by then.
const STARTING_ROUNDS: u32 = 8;

/// A change after which sessions of before must not remain.
pub(super) struct Narrowing<'a> {
    /// The tenant's database.
    pub(super) database: &'a Ident,
    /// Its login.
    pub(super) login: &'a Ident,
    /// The tenant's other logins, whose sessions end when their own access is narrowed.
    pub(super) others: Vec<&'a str>,
    /// The level from now on.
    pub(super) level: AccessLevel,
    /// What the operator may do to sessions of others.
    pub(super) rights: Rights,
    /// Whether the server's memberships have options of their own: from 16 on.
    pub(super) has_grant_options: bool,
}

impl Narrowing<'_> {
    /// Ends the login's sessions that began before now, until none is left. Returns the transactions that it prepared.
    pub(super) async fn end_earlier_sessions(&self, session: &mut Session) -> Result<Vec<Prepared>> {
        let since = clock(session, 0).await?;
        let script = self.sessions_script(&since)?;
        let mut pause = FIRST_PAUSE;
        let mut left = RemainingSessions::default();
        for round in 0..ROUNDS {
            let starting_before = left.starting;
            left = with_timeout(STATEMENT_LIMIT, DOING, read_remaining(session, &script)).await?;
            // Sessions that start after the first read have the new rights and are ignored: a client that reconnects all the
            // time, even one that is refused only after it took that lock, must not delay the proof.
            if round > 0 {
                left.starting.retain(|pid| starting_before.contains(pid));
            }
            if left.starting.is_empty() && left.asked.is_empty() && left.active.is_empty() {
                return Ok(left.prepared);
            }
            if round >= STARTING_ROUNDS {
                // A client can have its session wait there for any time (`post_auth_delay`).
                let starting: Vec<i32> = left.starting.iter().copied().collect();
                end_as_login(session, self.login, &starting).await?;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
        if left.starting.is_empty() && left.active.is_empty() {
            return Err(self.termination_ignored(&left));
        }
        Err(Error::SessionsInTheWay {
            database: self.database.to_string(),
            count: left.starting.len() + left.asked.len() + left.active.len(),
            who: pids(left.active.iter().chain(&left.asked).chain(&left.starting)),
        })
    }

    /// What the statement waited for, if that is a session that was asked to end all the time, and still runs.
    pub(super) async fn explain(&self, error: Error, session: &mut Session) -> Error {
        if error.reason() != Reason::LockTimeout {
            return error;
        }
        let left = async {
            let since = clock(session, 1).await?;
            let script = self.sessions_script(&since)?;
            with_timeout(STATEMENT_LIMIT, DOING, read_remaining(session, &script)).await
        };
        match left.await {
            Ok(left) if !left.asked.is_empty() => self.termination_ignored(&left),
            _ => error,
        }
    }

    fn termination_ignored(&self, left: &RemainingSessions) -> Error {
        let others = self.level.group().map_or_else(String::new, |group| format!(" but {group}"));
        Error::TerminationIgnored { login: self.login.to_string(), others, sessions: pids(&left.asked) }
    }

    /// Reads the sessions that hold the lock of a starting session on its database, then the listed sessions, and ends those
    /// that the operator may end. In that order: a session releases the lock only once it is listed, so that it cannot be
    /// missed in between.
    fn sessions_script(&self, since: &str) -> Result<Script> {
        let Self { database, login, rights, .. } = *self;
        let others = [self.others.first(), self.others.get(1)].map(|name| name.copied().unwrap_or_default());
        let mut script = Script::new();
        let borrow = !(rights.signal && rights.stats);
        if borrow {
            // Without the two predefined roles, the operator becomes a member of the login until the rollback.
            let options = Keyword(if self.has_grant_options { "WITH INHERIT TRUE, SET FALSE" } else { "" });
            script.add("GRANT {} TO {} {}", &[login, &ADMIN, &options]);
        }
        script.add(
            "SELECT 'starting' AS what, l.pid FROM pg_locks AS l \
             WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND l.mode = 'RowExclusiveLock' \
             AND l.objid = (SELECT d.oid FROM pg_database AS d WHERE d.datname = {})",
            &[&Literal::from(database)],
        );
        script.add(
            // Another tenant's login, or a renamed one, connected to this database with rights that were just revoked.
            "SELECT CASE WHEN a.usesysid IS NULL THEN 'unnamed' \
                         WHEN r.rolname IN ({}, {}) OR r.rolname <> {} AND NOT (a.datname IS NOT DISTINCT FROM {} AND starts_with( \
                             coalesce(shobj_description(r.oid, 'pg_authid'), ''), {})) THEN 'other' \
                         WHEN a.backend_start > {}::timestamptz THEN 'later' \
                         WHEN r.rolname <> {} AND {} THEN 'active' \
                         WHEN pg_terminate_backend(a.pid) THEN 'asked' ELSE 'asked' END AS what, a.pid \
             FROM pg_stat_activity AS a LEFT JOIN pg_roles AS r ON r.oid = a.usesysid \
             WHERE a.pid <> pg_backend_pid()",
            &[
                &Literal::new(others[0])?,
                &Literal::new(others[1])?,
                &Literal::from(login),
                &Literal::from(database),
                &Literal::new(ownership::TENANT)?,
                &Literal::new(since)?,
                &Literal::from(login),
                // As a mere member of the login, the operator may not end the sessions of another role.
                &Keyword(if borrow { "true" } else { "false" }),
            ],
        );
        let groups = GROUPS;
        let [rw, shrink, ro] = groups.each_ref().map(Literal::from);
        script.add(
            "SELECT 'prepared' AS what, 0 AS pid, p.gid, p.owner::text FROM pg_prepared_xacts AS p \
             WHERE p.database = {} AND p.owner IN ({}, {}, {}, {})",
            &[&Literal::from(database), &Literal::from(login), &rw, &shrink, &ro],
        );
        if borrow {
            let mut borrowed = Script::of("BEGIN", &[]);
            borrowed.append(script);
            return Ok(borrowed.then("ROLLBACK", &[]));
        }
        Ok(script)
    }
}

fn pids<'a>(pids: impl IntoIterator<Item = &'a i32>) -> String {
    pids.into_iter().map(|pid| format!("pid {pid}")).collect::<Vec<_>>().join(", ")
}

/// The server's clock, or what it showed some seconds ago. As text, so that no type in between rounds it.
async fn clock(session: &mut Session, seconds_ago: i32) -> Result<String> {
    let clock = sqlx::query_scalar("SELECT (clock_timestamp() - make_interval(secs => $1))::text");
    let clock = clock.bind(f64::from(seconds_ago)).fetch_one(&mut **session);
    with_timeout(STATEMENT_LIMIT, DOING, clock).await
}

/// What remains from before the change.
#[derive(Default)]
struct RemainingSessions {
    /// Sessions that are starting in the database.
    starting: HashSet<i32>,
    /// Sessions of the login, and of other tenants' logins in its database: they were asked to end.
    asked: HashSet<i32>,
    /// Sessions of other tenants' logins in its database that the operator may not end.
    active: HashSet<i32>,
    /// Transactions that the login prepared in its database. Once no earlier session is active, none is added.
    prepared: Vec<Prepared>,
}

async fn read_remaining(session: &mut Session, script: &Script) -> Result<RemainingSessions, sqlx::Error> {
    let mut rows = sqlx::raw_sql(script.sql()).fetch_many(&mut **session);
    let mut left = RemainingSessions::default();
    loop {
        let row: PgRow = match rows.try_next().await? {
            Some(Either::Right(row)) => row,
            Some(Either::Left(_)) => continue,
            None => return Ok(left),
        };
        let pid = row.try_get::<i32, _>("pid")?;
        match row.try_get::<&str, _>("what")? {
            "starting" => drop(left.starting.insert(pid)),
            "asked" => drop(left.asked.insert(pid)),
            "active" => drop(left.active.insert(pid)),
            "prepared" => {
                left.prepared.push(Prepared { gid: row.try_get("gid")?, owner: row.try_get("owner")? })
            }
            // Listed without a role: still starting, if it holds the lock.
            "unnamed" => {}
            // Listed with a role: started.
            _ => drop(left.starting.remove(&pid)),
        }
    }
}
