//! The end of a migration login, of a support login, and of the login of a session that was left. It loses LOGIN and its rights first, then its sessions are ended until PostgreSQL shows
//! none, also none that was just starting: a session keeps the role that it has become. Then the role is dropped. Each step
//! may be the last before an interruption; the next attempt begins with the first again.

use std::{collections::HashSet, time::Duration};

use tokio::sync::OwnedMutexGuard;

use crate::{
    domain::{identity::TenantId, migration_login::MigrationOwner},
    postgres::{
        catalog::ownership,
        error::{Error, Result},
        identifier::{ADMIN, Ident, Keyword, OWNER, Script},
        server::{Server, run_despite_read_only, run_restricting},
        session::{
            blockers::end_as_login,
            connect::{ANSWER_LIMIT, ConnectAs, STATEMENT_LIMIT, with_timeout},
            pool::Session,
            prepared::Prepared,
        },
    },
};

const DOING: &str = "end the migration login";
/// How often its sessions are ended and read again, and the pauses in between: for five seconds.
pub(in crate::postgres) const ROUNDS: u32 = 50;
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// After how many rounds a session that is still starting is ended: an honest one has started by then.
const STARTING_ROUNDS: u32 = 8;

/// What the role has, which it loses.
#[derive(sqlx::FromRow)]
struct LoginRow {
    comment: Option<String>,
    /// The databases on which it has a right.
    granted: Vec<String>,
    /// The roles of Tenantry that it is a member of.
    member_of: Vec<String>,
    /// The roles that are members of it.
    members: Vec<String>,
}

const READ: &str = "\
SELECT shobj_description(r.oid, 'pg_authid') AS comment,
    ARRAY(SELECT d.datname::text FROM pg_database AS d
          WHERE EXISTS (SELECT FROM aclexplode(d.datacl) AS a WHERE a.grantee = r.oid)) AS granted,
    ARRAY(SELECT pg_get_userbyid(m.roleid)::text FROM pg_auth_members AS m
          WHERE m.member = r.oid AND pg_get_userbyid(m.roleid) IN ('tenantry_owner', 'tenantry_migrator')) AS member_of,
    ARRAY(SELECT pg_get_userbyid(m.member)::text FROM pg_auth_members AS m
          WHERE m.roleid = r.oid AND pg_get_userbyid(m.member) <> 'tenantry_admin') AS members
FROM pg_roles AS r WHERE r.rolname = $1";

/// The databases of an owner, by the start of its comment: no other one begins with it.
const DATABASES: &str = "\
SELECT d.datname::text FROM pg_database AS d WHERE starts_with(shobj_description(d.oid, 'pg_database'), $1)";

/// The databases of the login of a session: where it may connect, or owns something. It can make nothing elsewhere.
const DATABASES_OF_SESSION: &str = "\
SELECT d.datname::text FROM pg_database AS d
WHERE EXISTS (SELECT FROM aclexplode(d.datacl) AS a JOIN pg_roles AS r ON r.oid = a.grantee WHERE r.rolname = $1)
    OR EXISTS (SELECT FROM pg_shdepend AS s WHERE s.dbid = d.oid AND s.deptype = 'o'
        AND s.refclassid = 'pg_authid'::regclass AND s.refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1))";

/// The sessions that hold the lock of a starting session on one of the databases. It is read before the sessions: one
/// releases the lock only once it is listed with its role.
const STARTING: &str = "\
SELECT l.pid FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.objid
WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND l.mode = 'RowExclusiveLock'
    AND d.datname = ANY ($1)";

/// All sessions with a role; those of the login `$1` are ended, and those of the roles that an administrator granted it to:
/// they may have become it.
const SESSIONS: &str = "\
WITH RECURSIVE passed_on (oid) AS (
    SELECT oid FROM pg_roles WHERE rolname = $1
    UNION
    SELECT m.member FROM pg_auth_members AS m JOIN passed_on AS p ON p.oid = m.roleid
    WHERE pg_get_userbyid(m.member) <> 'tenantry_admin')
SELECT a.pid, r.rolname = $1 AS own, p.oid IS NOT NULL AND NOT r.rolsuper AS to_end,
    CASE WHEN p.oid IS NOT NULL AND NOT r.rolsuper AND pg_has_role('pg_signal_backend', 'USAGE')
        THEN pg_terminate_backend(a.pid) END AS ended
FROM pg_stat_activity AS a JOIN pg_roles AS r ON r.oid = a.usesysid LEFT JOIN passed_on AS p ON p.oid = r.oid
WHERE a.pid <> pg_backend_pid()";

const PREPARED: &str = "\
SELECT database::text, gid::text, owner::text FROM pg_prepared_xacts WHERE database = ANY ($1) AND owner = ANY ($2)";

/// The databases with objects of the role, or with rights of it.
const USED_IN: &str = "\
SELECT DISTINCT d.datname::text FROM pg_shdepend AS s JOIN pg_database AS d ON d.oid = s.dbid
WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1)";

/// What the role owns in the session's database.
const OWNED: &str = "\
SELECT pg_describe_object(s.classid, s.objid, s.objsubid) FROM pg_shdepend AS s
JOIN pg_database AS d ON d.oid = s.dbid AND d.datname = current_database()
WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1)
    AND s.deptype = 'o' ORDER BY 1 LIMIT 20";

impl Server {
    /// Takes a migration login away: LOGIN and rights, sessions, prepared transactions, the role. What it owned itself goes
    /// to `tenantry_owner`, and is returned. Without such a role, and with one of that name that is no migration login, nothing
    /// is done.
    ///
    /// # Errors
    /// PostgreSQL's. [`Error::SessionsInTheWay`]: a session ignores termination; it has no right that the role gave it
    /// any more but those of `tenantry_owner`, which it has become. [`Error::LoginInUse`]: the role stays, without LOGIN and
    /// rights.
    pub async fn close_migration_login(&self, name: &str) -> Result<Vec<String>> {
        let login = Ident::new(name)?;
        let mut session = self.admin().await?;
        let found = read(&mut session, &login).await?;
        session.release();
        let Some((LoginUse::Migration(owner), _)) = found else { return Ok(Vec::new()) };
        let _one = self.lock_owner(&owner).await;
        self.close_login(&login).await
    }

    /// As [`Server::close_migration_login`], for a support login.
    ///
    /// # Errors
    /// PostgreSQL's. [`Error::SessionsInTheWay`]: a session ignores termination, and reads until it is done.
    pub async fn close_support_login(&self, name: &str) -> Result<()> {
        let login = Ident::new(name)?;
        let mut session = self.admin().await?;
        let found = read(&mut session, &login).await?;
        session.release();
        let Some((LoginUse::Support(tenant), _)) = found else { return Ok(()) };
        let _one = self.lock_tenant(tenant).await;
        self.close_login(&login).await.map(drop)
    }

    /// As [`Server::close_migration_login`], for the holder of the lock of the login's owner; also for a support login
    /// and the login of a session.
    pub(in crate::postgres) async fn close_login(&self, login: &Ident) -> Result<Vec<String>> {
        let mut session = self.admin().await?;
        let Some((own, login_use, row)) = disarm(&mut session, login).await? else {
            session.release();
            return Ok(Vec::new());
        };
        end_sessions(&mut session, login, &own, ROUNDS).await?;
        let mut script = Script::new();
        for member in &row.members {
            script.add("REVOKE {} FROM {}", &[login, &Ident::new(member)?]);
        }
        run_restricting(&mut session, DOING, &script, login).await?;

        let mut owners = vec![login.to_string()];
        if let LoginUse::Migration(_) = login_use {
            owners.push(OWNER.to_string());
        }
        let query = sqlx::query_as(PREPARED).bind(&own).bind(&owners[..]).fetch_all(&mut *session);
        let prepared: Vec<(String, String, String)> = with_timeout(STATEMENT_LIMIT, DOING, query).await?;
        // An operation holds one session at a time.
        session.release();
        for (database, gid, owner) in prepared {
            let one = Prepared { gid, owner };
            self.inner.sessions.roll_back_prepared(&Ident::new(&database)?, &[one]).await?;
        }
        self.drop_migration_login(login, &own).await
    }

    async fn drop_migration_login(&self, login: &Ident, own: &[String]) -> Result<Vec<String>> {
        let mut reassigned = Vec::new();
        match self.drop_role(login).await {
            Err(Error::LoginInUse { .. }) => {}
            other => return other.map(|()| reassigned),
        }
        let mut session = self.admin().await?;
        let query = sqlx::query_scalar(USED_IN).bind(login.as_str()).fetch_all(&mut *session);
        let used_in: Vec<String> = with_timeout(STATEMENT_LIMIT, DOING, query).await?;
        session.release();
        for database in used_in.iter().filter(|database| own.contains(database)) {
            reassigned.extend(self.reassign(login, database).await?);
        }
        // Any tenant can grant it something in its own database.
        self.revoke_from_other_tenants(login).await?;
        self.drop_role(login).await?;
        Ok(reassigned)
    }

    /// Gives what the role owns in a database to `tenantry_owner`, and revokes what it was granted there.
    async fn reassign(&self, login: &Ident, database: &str) -> Result<Vec<String>> {
        let mut session = self.inner.sessions.single(&ConnectAs::Admin(database), DOING).await?;
        let query = sqlx::query_scalar(OWNED).bind(login.as_str()).fetch_all(&mut *session);
        let owned: Vec<String> = with_timeout(STATEMENT_LIMIT, DOING, query).await?;
        let options = Keyword(if session.has_grant_options() { "WITH INHERIT TRUE, SET TRUE" } else { "" });
        let script = Script::of("GRANT {} TO {} {}", &[login, &ADMIN, &options])
            .then("GRANT {} TO {} {}", &[&OWNER, &ADMIN, &options])
            .then("REASSIGN OWNED BY {} TO {}", &[login, &OWNER])
            .then("DROP OWNED BY {}", &[login])
            .then("REVOKE {} FROM {}", &[&OWNER, &ADMIN])
            .then("REVOKE {} FROM {}", &[login, &ADMIN]);
        let done = run_despite_read_only(&mut session, DOING, &script).await;
        session.close().await;
        done.map(|()| owned)
    }

    /// The lock for changes of one tenant's roles and rights. A template has none: one task builds it.
    pub(super) async fn lock_owner(&self, owner: &MigrationOwner) -> Option<OwnedMutexGuard<()>> {
        match owner {
            MigrationOwner::Tenant(id) => Some(self.lock_tenant(*id).await),
            MigrationOwner::Template(_) => None,
        }
    }
}

/// Takes LOGIN and the rights from a migration login, and ends its sessions once, without waiting for their end: what
/// narrows a tenant's access goes on at once.
pub(super) async fn disarm_at_once(session: &mut Session, login: &Ident) -> Result<()> {
    let Some((own, ..)) = disarm(session, login).await? else { return Ok(()) };
    match end_sessions(session, login, &own, 1).await {
        Err(Error::SessionsInTheWay { .. }) => Ok(()),
        ended => ended,
    }
}

/// Takes LOGIN and the rights from a login. Returns its databases, what it is for, and what it had.
async fn disarm(session: &mut Session, login: &Ident) -> Result<Option<(Vec<String>, LoginUse, LoginRow)>> {
    let Some((login_use, row)) = read(session, login).await? else { return Ok(None) };
    let query = match &login_use {
        LoginUse::Migration(owner) => sqlx::query_scalar(DATABASES).bind(ownership::database_of(owner)),
        LoginUse::Support(tenant) => sqlx::query_scalar(DATABASES).bind(ownership::login(*tenant)),
        LoginUse::Session => sqlx::query_scalar(DATABASES_OF_SESSION).bind(login.to_string()),
    };
    let query = query.fetch_all(&mut **session);
    let own: Vec<String> = with_timeout(STATEMENT_LIMIT, DOING, query).await?;
    // Alone: what follows may wait for locks.
    let no_login = Script::of("ALTER ROLE {} NOLOGIN CONNECTION LIMIT 0", &[login]);
    run_restricting(session, DOING, &no_login, login).await?;
    let mut script = Script::new();
    for database in &row.granted {
        script.add("REVOKE ALL ON DATABASE {} FROM {}", &[&Ident::new(database)?, login]);
    }
    if let LoginUse::Migration(_) = login_use {
        for database in &own {
            script.add("REVOKE CREATE ON DATABASE {} FROM {}", &[&Ident::new(database)?, &OWNER]);
        }
    }
    // What else an administrator made it a member of ends with the role.
    for role in &row.member_of {
        script.add("REVOKE {} FROM {}", &[&Ident::new(role)?, login]);
    }
    run_restricting(session, DOING, &script, login).await?;
    Ok(Some((own, login_use, row)))
}

/// What a login is for that is taken away here.
enum LoginUse {
    /// An application's own tool migrates a database of this owner.
    Migration(MigrationOwner),
    /// A person reads the data of this tenant.
    Support(TenantId),
    /// The operator itself had one session.
    Session,
}

/// Reads the login of this name, by its comment.
async fn read(session: &mut Session, login: &Ident) -> Result<Option<(LoginUse, LoginRow)>> {
    let query = sqlx::query_as(READ).bind(login.as_str()).fetch_optional(&mut **session);
    let Some(row): Option<LoginRow> = with_timeout(STATEMENT_LIMIT, DOING, query).await? else {
        return Ok(None);
    };
    let comment = row.comment.as_deref().unwrap_or_default();
    let login_use = match ownership::migration_login_of(comment) {
        Some((owner, _)) => LoginUse::Migration(owner),
        None if comment.starts_with(ownership::SESSION) => LoginUse::Session,
        None => match ownership::support_login_of(comment) {
            Some((tenant, _)) => LoginUse::Support(tenant),
            None => return Ok(None),
        },
    };
    Ok(Some((login_use, row)))
}

/// Whether a session has this login.
pub(in crate::postgres) async fn is_connected(session: &mut Session, login: &Ident) -> Result<bool> {
    let query = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1)")
        .bind(login.as_str())
        .fetch_one(&mut **session);
    with_timeout(ANSWER_LIMIT, "look for sessions of a login", query).await
}

/// Ends the sessions of a login that can no longer log in, until none is left.
pub(in crate::postgres) async fn end_sessions(
    session: &mut Session,
    login: &Ident,
    databases: &[String],
    rounds: u32,
) -> Result<()> {
    let mut pause = FIRST_PAUSE;
    let (mut starting, mut passed_on): (HashSet<i32>, HashSet<i32>) = (HashSet::new(), HashSet::new());
    let mut own: HashSet<i32> = HashSet::new();
    for round in 0..rounds {
        let query = sqlx::query_scalar(STARTING).bind(databases).fetch_all(&mut **session);
        let locking: Vec<i32> = with_timeout(STATEMENT_LIMIT, DOING, query).await?;
        let query = sqlx::query_as(SESSIONS).bind(login.as_str()).fetch_all(&mut **session);
        let found: Vec<(i32, bool, bool, Option<bool>)> = with_timeout(STATEMENT_LIMIT, DOING, query).await?;
        let named: HashSet<i32> = found.iter().map(|(pid, ..)| *pid).collect();
        let still_starting: HashSet<i32> = locking.into_iter().filter(|pid| !named.contains(pid)).collect();
        let others: HashSet<i32> =
            found.iter().filter(|(_, own, to_end, _)| !own && *to_end).map(|(pid, ..)| *pid).collect();
        own = found.iter().filter(|(_, own, ..)| *own).map(|(pid, ..)| *pid).collect();
        // What starts after the first read is refused, or has nothing of the login.
        if round == 0 {
            (starting, passed_on) = (still_starting, others);
        } else {
            starting.retain(|pid| still_starting.contains(pid));
            passed_on.retain(|pid| others.contains(pid));
        }
        if own.is_empty() && starting.is_empty() && passed_on.is_empty() {
            return Ok(());
        }
        // Without pg_signal_backend, only the login itself may end its sessions.
        let not_asked = found.iter().filter(|(_, own, _, ended)| *own && ended.is_none());
        let not_asked: Vec<i32> = not_asked.map(|(pid, ..)| *pid).collect();
        end_as_login(session, login, &not_asked).await?;
        if round >= STARTING_ROUNDS {
            // A client can have its session wait there for any time (`post_auth_delay`).
            let starting: Vec<i32> = starting.iter().copied().collect();
            end_as_login(session, login, &starting).await?;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
    let left: Vec<String> =
        own.iter().chain(&starting).chain(&passed_on).map(|pid| format!("pid {pid}")).collect();
    Err(Error::SessionsInTheWay { database: login.to_string(), count: left.len(), who: left.join(", ") })
}
