//! The locks that tenants' logins have on shared objects, read through the standing session with one query, and the end of
//! those that are kept too long. [`crate::domain::lock_watch`] decides which.

use std::{collections::HashSet, time::Duration};

use sqlx::Row;

use crate::{
    domain::lock_watch::{LockHolder, LockMode, LockedObject, SharedLock},
    postgres::{
        catalog::ownership,
        error::{Error, Result},
        identifier::{GROUPS, Ident},
        server::Server,
    },
};

use super::{
    blocked::AskedToEnd,
    blockers::end_as_login,
    connect::{ANSWER_LIMIT, with_timeout},
    pool::lock,
    prepared::Prepared,
};

/// `$1` are the groups. A row of a shared catalog is locked by its transaction: it shows only once another session waits for that
/// transaction and holds the row's tuple lock.
const QUERY: &str = "\
WITH locks AS MATERIALIZED (
    SELECT * FROM pg_locks WHERE database = 0 OR locktype = 'transactionid'),
shared AS (
    SELECT h.pid, h.virtualtransaction, h.mode, h.locktype, h.classid, h.objid,
        EXISTS (SELECT FROM locks AS w
            WHERE w.database = 0 AND NOT w.granted AND w.pid IS DISTINCT FROM h.pid
            AND (w.locktype, w.relation, w.page, w.tuple, w.classid, w.objid, w.objsubid) IS NOT DISTINCT FROM
                (h.locktype, h.relation, h.page, h.tuple, h.classid, h.objid, h.objsubid)) AS is_waited_for
    FROM locks AS h WHERE h.database = 0
    UNION ALL
    SELECT h.pid, h.virtualtransaction, h.mode, 'row', NULL, NULL, true
    FROM locks AS h
    JOIN locks AS w ON w.locktype = 'transactionid' AND NOT w.granted AND w.transactionid = h.transactionid
    JOIN locks AS t ON t.pid = w.pid AND t.locktype = 'tuple' AND t.database = 0
    WHERE h.locktype = 'transactionid' AND h.granted),
named AS (
    SELECT shared.*, CASE
        WHEN locktype <> 'object' THEN locktype
        WHEN classid = 'pg_database'::regclass AND objid = 0 THEN 'notifications'
        WHEN classid = 'pg_database'::regclass THEN 'database'
        WHEN classid = 'pg_authid'::regclass THEN 'role'
        ELSE 'other' END AS what
    FROM shared)
SELECT n.pid, n.virtualtransaction, n.mode, n.what, r.rolname::text AS role,
    shobj_description(r.oid, 'pg_authid') AS comment, NULL::text AS gid, NULL::text AS database, n.is_waited_for,
    coalesce(n.objid = CASE n.what WHEN 'database' THEN a.datid WHEN 'role' THEN r.oid END, false) AS is_own
FROM named AS n JOIN pg_stat_activity AS a ON a.pid = n.pid JOIN pg_roles AS r ON r.oid = a.usesysid
WHERE NOT r.rolsuper AND starts_with(coalesce(shobj_description(r.oid, 'pg_authid'), ''), 'tenantry:tenant:')
UNION ALL
SELECT NULL, n.virtualtransaction, n.mode, n.what, p.owner::text, shobj_description(d.oid, 'pg_database'),
    p.gid, p.database::text, n.is_waited_for,
    coalesce(n.objid = CASE n.what WHEN 'database' THEN d.oid WHEN 'role' THEN r.oid END, false)
FROM named AS n
JOIN locks AS x ON x.pid IS NULL AND x.locktype = 'transactionid' AND x.granted
    AND x.virtualtransaction = n.virtualtransaction
JOIN pg_prepared_xacts AS p ON p.transaction = x.transactionid
JOIN pg_database AS d ON d.datname = p.database
LEFT JOIN pg_roles AS r ON r.rolname = p.owner
WHERE n.pid IS NULL AND starts_with(coalesce(shobj_description(d.oid, 'pg_database'), ''), 'tenantry:tenant:')
    AND (p.owner = ANY ($1) OR starts_with(coalesce(shobj_description(r.oid, 'pg_authid'), ''), 'tenantry:tenant:'))";

/// Ends a session if it still runs the transaction. It returns null if only the login itself may.
const END: &str = "\
SELECT CASE WHEN pg_has_role('pg_signal_backend', 'USAGE') THEN pg_terminate_backend(l.pid) END
FROM (SELECT DISTINCT pid FROM pg_locks WHERE pid = $1 AND virtualtransaction = $2) AS l";

/// `$1` are processes, `$2` how many seconds ago each was asked to end: a session that began later only has its number. When it
/// began is not shown without `pg_read_all_stats`. A session that is still starting is not listed, but has locks.
const STILL_RUNNING: &str = "\
SELECT asked.pid FROM unnest($1::int[], $2::float8[]) AS asked (pid, seconds)
LEFT JOIN pg_stat_activity AS a ON a.pid = asked.pid
WHERE CASE WHEN a.pid IS NULL THEN EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = asked.pid)
    ELSE coalesce(a.backend_start < clock_timestamp() - make_interval(secs => asked.seconds), true) END";

impl Server {
    /// The locks on shared objects that tenants' logins hold or wait for: one query. It opens no session but the standing
    /// one.
    pub async fn shared_locks(&self) -> Result<Vec<SharedLock>> {
        let doing = "read the locks on shared objects";
        let mut standing = self.inner.sessions.standing().await?;
        let groups = GROUPS;
        let groups = groups.each_ref().map(Ident::as_str);
        let query = sqlx::query(QUERY).bind(&groups[..]).fetch_all(&mut *standing);
        let rows = with_timeout(ANSWER_LIMIT, doing, query).await?;
        standing.keep();
        let locks = rows.iter().map(|row| {
            let comment: String = row.try_get("comment")?;
            let Some(tenant) = ownership::tenant_of(&comment) else { return Ok(None) };
            let holder = match row.try_get("pid")? {
                Some(pid) => LockHolder::Session { pid },
                None => LockHolder::Prepared { gid: row.try_get("gid")?, database: row.try_get("database")? },
            };
            let is_own = row.try_get("is_own")?;
            let object = match row.try_get("what")? {
                "relation" | "tuple" => LockedObject::Catalog,
                "row" => LockedObject::Row,
                "database" => LockedObject::Database { is_own },
                "notifications" => LockedObject::Notifications,
                "role" => LockedObject::Role { is_own },
                _ => LockedObject::Other,
            };
            Ok(Some(SharedLock {
                holder,
                transaction: row.try_get("virtualtransaction")?,
                tenant,
                role: row.try_get("role")?,
                object,
                mode: LockMode::parse(row.try_get("mode")?),
                is_waited_for: row.try_get("is_waited_for")?,
            }))
        });
        locks.filter_map(Result::transpose).collect::<Result<_, sqlx::Error>>().map_err(Error::sql(doing))
    }

    /// Asks the session that has a lock to end, or rolls the prepared transaction back. Returns whether it was still there.
    pub async fn end_lock(&self, lock: &SharedLock) -> Result<bool> {
        let doing = "end a session that keeps a lock";
        let role = Ident::new(&lock.role)?;
        match &lock.holder {
            LockHolder::Session { pid } => {
                let mut standing = self.inner.sessions.standing().await?;
                let end = sqlx::query_scalar(END).bind(pid).bind(&lock.transaction);
                let ended: Option<Option<bool>> =
                    with_timeout(ANSWER_LIMIT, doing, end.fetch_optional(&mut *standing)).await?;
                if ended == Some(None) {
                    end_as_login(&mut standing, &role, &[*pid]).await?;
                }
                standing.keep();
                Ok(ended.is_some_and(|ended| ended.unwrap_or(true)))
            }
            LockHolder::Prepared { gid, database } => {
                let prepared = Prepared { gid: gid.clone(), owner: lock.role.clone() };
                self.inner.sessions.roll_back_prepared(&Ident::new(database)?, &[prepared]).await?;
                Ok(true)
            }
        }
    }

    /// Ends a session of a tenant's login as that login, for which the operator needs no right on other roles' sessions. A
    /// process that is not the login's is left alone.
    pub(in crate::postgres) async fn end_as_login(&self, login: &str, pid: i32) -> Result<()> {
        let mut standing = self.inner.sessions.standing().await?;
        end_as_login(&mut standing, &Ident::new(login)?, &[pid]).await?;
        standing.keep();
        Ok(())
    }

    /// What was asked to end because it blocked statements of the operator, since the last call.
    pub fn take_blockers(&self) -> Vec<AskedToEnd> {
        std::mem::take(&mut *lock(&self.inner.sessions.asked_to_end))
    }

    /// Which of these processes still run the session that they ran that long ago.
    pub async fn still_running(&self, processes: &[(i32, Duration)]) -> Result<HashSet<i32>> {
        let doing = "read which sessions have ended";
        let (pids, ages): (Vec<i32>, Vec<f64>) =
            processes.iter().map(|(pid, age)| (*pid, age.as_secs_f64())).unzip();
        let mut standing = self.inner.sessions.standing().await?;
        let query = sqlx::query_scalar(STILL_RUNNING).bind(pids).bind(ages).fetch_all(&mut *standing);
        let running: Vec<i32> = with_timeout(ANSWER_LIMIT, doing, query).await?;
        standing.keep();
        Ok(running.into_iter().collect())
    }
}
