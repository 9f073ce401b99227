//! What blocks a statement of the operator. A tenant's login can hold locks that every change of its role, its rights and its
//! database waits for, and for any time: in an open transaction, in a prepared one, or in a session that is still starting.
//! While such a statement waits, the standing session finds what blocks it and ends that.
//!
//! Only sessions of tenants' logins and of support logins are ended: roles with their comments. Those of administrators and of
//! the operator itself are waited for, and those of an application's migration, unless it is its login that is taken away.

use std::{collections::BTreeMap, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use sqlx::{Connection, PgConnection};
use tracing::{info, warn};

use crate::postgres::{
    catalog::ownership,
    error::{Error, Result},
    identifier::{ADMIN, GROUPS, Ident, Keyword, Number, Script},
};

use super::{
    blocked::{AskedToEnd, Blocked},
    connect::{ANSWER_LIMIT, GRANT_OPTIONS_SINCE, with_timeout},
    pool::Sessions,
    prepared::Prepared,
};

const DOING: &str = "end what blocks a statement";

/// A row of the query.
#[derive(sqlx::FromRow)]
pub(super) struct Blocker {
    what: String,
    pid: i32,
    /// The ownership comment of the tenant.
    comment: String,
    /// The tenant's login; of a prepared transaction, its owner.
    role: String,
    gid: Option<String>,
    database: Option<String>,
    /// Whether it was ended. Without `pg_signal_backend`, only the login itself may.
    ended: Option<bool>,
    /// Whether it blocks the statement.
    blocks: bool,
}

/// `$1` to `$3` are the fields of [`Blocked`], `$4` the groups, to which a transaction may belong that was prepared before 16.
const QUERY: &str = "\
WITH RECURSIVE locks AS MATERIALIZED (SELECT * FROM pg_locks),
chain (pid) AS (
    SELECT roots.pid FROM (
        SELECT $1::int WHERE $1 IS NOT NULL
        UNION ALL
        SELECT l.pid FROM locks AS l JOIN pg_database AS d ON d.oid = l.objid
        WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND l.mode = 'RowExclusiveLock'
            AND NOT l.granted AND d.datname = $2) AS roots (pid)
    UNION
    SELECT blocking.pid FROM chain, unnest(pg_blocking_pids(chain.pid)) AS blocking (pid) WHERE chain.pid <> 0)
SELECT 'session' AS what, a.pid, shobj_description(r.oid, 'pg_authid') AS comment, r.rolname::text AS role,
    NULL::text AS gid, NULL::text AS database,
    CASE WHEN pg_has_role('pg_signal_backend', 'USAGE') OR pg_has_role(r.oid, 'USAGE')
        THEN pg_terminate_backend(a.pid) END AS ended,
    a.pid IN (SELECT chain.pid FROM chain) AS blocks
FROM pg_stat_activity AS a JOIN pg_roles AS r ON r.oid = a.usesysid
WHERE (a.pid IN (SELECT chain.pid FROM chain) OR r.rolname = $3) AND NOT r.rolsuper
    AND (coalesce(shobj_description(r.oid, 'pg_authid'), '') ^@ ANY (ARRAY['tenantry:tenant:', 'tenantry:support:'])
        OR r.rolname = $3 AND starts_with(shobj_description(r.oid, 'pg_authid'), 'tenantry:migration:'))
UNION ALL
SELECT 'starting', l.pid, s.description, pg_get_userbyid(s.objoid)::text, NULL, NULL, NULL, true
FROM chain JOIN locks AS l ON l.pid = chain.pid AND l.granted AND l.locktype = 'object'
    AND l.classid = 'pg_database'::regclass AND l.mode = 'RowExclusiveLock'
JOIN pg_shdescription AS s ON s.classoid = 'pg_authid'::regclass
    AND starts_with(s.description, left(shobj_description(l.objid, 'pg_database'), 52))
WHERE starts_with(shobj_description(l.objid, 'pg_database'), 'tenantry:tenant:')
    AND l.pid IS DISTINCT FROM $1
    AND NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.pid = l.pid AND a.usesysid IS NOT NULL)
UNION ALL
SELECT DISTINCT 'prepared', 0, shobj_description(d.oid, 'pg_database'), p.owner::text, p.gid, p.database::text,
    NULL::boolean, true
FROM locks AS w JOIN locks AS h ON h.pid IS NULL AND h.granted
    AND (h.locktype, h.database, h.relation, h.page, h.tuple, h.transactionid, h.classid, h.objid, h.objsubid)
        IS NOT DISTINCT FROM
        (w.locktype, w.database, w.relation, w.page, w.tuple, w.transactionid, w.classid, w.objid, w.objsubid)
    AND NOT (h.locktype = 'relation' AND h.mode IN ('AccessShareLock', 'RowShareLock'))
JOIN locks AS x ON x.pid IS NULL AND x.granted AND x.locktype = 'transactionid'
    AND x.virtualtransaction = h.virtualtransaction
JOIN pg_prepared_xacts AS p ON p.transaction = x.transactionid
JOIN pg_database AS d ON d.datname = p.database
    AND starts_with(shobj_description(d.oid, 'pg_database'), 'tenantry:tenant:')
LEFT JOIN pg_roles AS r ON r.rolname = p.owner
WHERE NOT w.granted AND w.pid IN (SELECT chain.pid FROM chain) AND 0 IN (SELECT chain.pid FROM chain)
    AND (p.owner = ANY ($4) OR starts_with(shobj_description(r.oid, 'pg_authid'), 'tenantry:tenant:'))";

/// Ends what blocks something now. A failure is logged: the statement itself then reports that it was blocked.
pub(in crate::postgres) fn unblock(sessions: Arc<Sessions>, blocked: Blocked) -> BoxFuture<'static, ()> {
    async move {
        if let Err(error) = end_blockers(&sessions, &blocked).await {
            warn!(server = sessions.config.name, %error, "could not end what blocks a statement");
        }
    }
    .boxed()
}

async fn end_blockers(sessions: &Arc<Sessions>, blocked: &Blocked) -> Result<()> {
    let standing = match blocked.pid {
        Some(_) => Some(sessions.standing().await?),
        // To open it is to connect.
        None => sessions.standing_if_open().await?,
    };
    let blockers = match standing {
        Some(mut standing) => {
            let blockers = end_sessions(&mut standing, blocked).await?;
            standing.keep();
            blockers
        }
        None => {
            let locked = blocked.database.as_deref().unwrap_or_default();
            let Some(mut session) = sessions.detour(locked).await? else { return Ok(()) };
            let blockers = end_sessions(&mut session, blocked).await?;
            let _ = with_timeout(ANSWER_LIMIT, DOING, session.close()).await;
            blockers
        }
    };
    let mut prepared: BTreeMap<&str, Vec<Prepared>> = BTreeMap::new();
    for blocker in &blockers {
        if let (Some(gid), Some(database)) = (&blocker.gid, &blocker.database) {
            let one = Prepared { gid: gid.clone(), owner: blocker.role.clone() };
            prepared.entry(database).or_default().push(one);
        }
    }
    for (database, prepared) in prepared {
        sessions.roll_back_prepared(&Ident::new(database)?, &prepared).await?;
    }
    sessions.report(as_asked(&blockers));
    Ok(())
}

/// What blocked something, for a report.
pub(super) fn as_asked(blockers: &[Blocker]) -> impl Iterator<Item = AskedToEnd> {
    blockers.iter().filter(|blocker| blocker.blocks).filter_map(Blocker::as_asked)
}

/// Ends the sessions that block something. Returns what blocks it, with the prepared transactions, which it leaves.
pub(super) async fn end_sessions(session: &mut PgConnection, blocked: &Blocked) -> Result<Vec<Blocker>> {
    let groups = GROUPS;
    let groups = groups.each_ref().map(Ident::as_str);
    let query = sqlx::query_as(QUERY)
        .bind(blocked.pid)
        .bind(&blocked.database)
        .bind(&blocked.login)
        .bind(&groups[..])
        .fetch_all(&mut *session);
    let blockers: Vec<Blocker> = with_timeout(ANSWER_LIMIT, DOING, query).await?;
    let mut as_login: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for blocker in blockers.iter().filter(|blocker| blocker.pid != 0 && blocker.ended.is_none()) {
        as_login.entry(&blocker.role).or_default().push(blocker.pid);
    }
    for (login, pids) in as_login {
        end_as_login(session, &Ident::new(login)?, &pids).await?;
    }
    Ok(blockers)
}

impl Blocker {
    fn as_asked(&self) -> Option<AskedToEnd> {
        let Self { what, role, pid, .. } = self;
        let what = match &self.gid {
            Some(gid) => format!("the prepared transaction {gid} of {role}, which blocked the operator"),
            None => format!("the {what} of {role} (pid {pid}), which blocked the operator").replacen(
                "the starting",
                "the starting session",
                1,
            ),
        };
        let pid = self.gid.is_none().then_some(*pid);
        Some(AskedToEnd { tenant: ownership::tenant_of(&self.comment)?, pid, what })
    }
}

impl Sessions {
    /// Remembers what was asked to end, until the lock watch takes it and sees whether it has.
    fn report(&self, asked: impl Iterator<Item = AskedToEnd>) {
        let mut all = super::pool::lock(&self.asked_to_end);
        for asked in asked {
            info!(server = self.config.name, tenant = %asked.tenant, "asked to end: {}", asked.what);
            // Without a lock watch, no task takes them.
            if all.len() < MAX_REMEMBERED && !all.contains(&asked) {
                all.push(asked);
            }
        }
    }
}

/// How many blockers are remembered until they are reported.
const MAX_REMEMBERED: usize = 100;

/// Ends sessions as the tenant's login, of which the operator becomes a member until the rollback. A login may end its own
/// sessions and no others. So this is how a session is ended that is still starting, whose role is not shown: if it is not
/// the login's, the server refuses.
pub(in crate::postgres) async fn end_as_login(
    session: &mut PgConnection,
    login: &Ident,
    pids: &[i32],
) -> Result<()> {
    let has_options = session.server_version_num().is_some_and(|version| version >= GRANT_OPTIONS_SINCE);
    let options = Keyword(if has_options { "WITH INHERIT FALSE, SET TRUE" } else { "" });
    for pid in pids {
        let script = Script::of("BEGIN READ WRITE", &[])
            .then("SET LOCAL lock_timeout = '200ms'", &[])
            .then("GRANT {} TO {} {}", &[login, &ADMIN, &options])
            .then("SET LOCAL ROLE {}", &[login])
            .then("SELECT pg_terminate_backend({})", &[&Number(*pid)]);
        let ended = run(session, &script).await;
        run(session, &Script::of("ROLLBACK", &[])).await?;
        match ended {
            // Not the login's, or its rights are being changed: the next look comes soon.
            Err(error) if matches!(error.sql_state().as_deref(), Some("42501" | "55P03" | "XX000")) => {}
            other => other?,
        }
    }
    Ok(())
}

async fn run(session: &mut PgConnection, script: &Script) -> Result<(), Error> {
    with_timeout(ANSWER_LIMIT, DOING, sqlx::raw_sql(script.sql()).execute(session)).await.map(drop)
}
