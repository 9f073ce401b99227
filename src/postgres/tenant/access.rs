//! The access level: the group of a tenant's login, its CONNECT, and the proof that no session keeps a revoked right.
//!
//! Narrowing revokes the groups first, in a transaction of its own: no lock of a tenant delays that. What follows may wait for
//! the tenant's sessions, and one that ignores termination cannot be ended.
//!
//! A REVOKE does not affect what is running: a COPY, a plan prepared in an open transaction and a session after SET ROLE
//! keep the right. So after the change the tenant's earlier sessions are ended. The level counts as in force only when
//! the server shows none of them any more, nor a session that was just starting, and when the transactions that they
//! prepared are rolled back. Until that is proven, the login's comment records it, so that the next attempt finishes an
//! interrupted one.

use std::{collections::HashSet, time::Duration};

use futures::TryStreamExt;
use sqlx::{Either, Row, postgres::PgRow};

use crate::{
    api::reason::Reason,
    domain::{
        access::AccessLevel,
        drift::{self, Mismatch},
        migration_login::level_ends_migrations,
        names::migration_login_name,
        placement::Placement,
        tenant_facts::{DatabaseProperties, LoginProperties, RecordedOids},
    },
    postgres::{
        catalog::{
            inventory::{self, Rights},
            ownership,
        },
        error::{Error, Result},
        identifier::{ADMIN, GROUPS, Ident, Keyword, Literal, Script},
        server::{Server, run_despite_read_only, run_on, run_restricting},
        session::{
            blockers::end_as_login,
            connect::{STATEMENT_LIMIT, with_timeout},
            pool::Session,
            prepared::Prepared,
        },
    },
};

use super::{
    logins::conflict,
    migration_login_end::disarm_at_once,
    properties::properties_script,
    settings::{Extent, reset_settings},
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

impl Server {
    /// Sets the access level of a login. If that revokes a right, it ends the sessions that had it, and proves that they have
    /// ended. Granting is one transaction, and ends no session. `Blocked` also revokes LOGIN, which no level grants (see
    /// [`Server::set_login`]).
    ///
    /// Without the login or the database, `Blocked` is in force already. See also [`level_ends_migrations`].
    pub async fn set_access(&self, placement: &Placement, level: AccessLevel) -> Result<()> {
        let _one = self.lock_tenant(placement.tenant).await;
        if !level_ends_migrations(level) {
            return self.set_login_access(placement, level, None).await;
        }
        let tool = Ident::new(&migration_login_name(&placement.database))?;
        let restricted = self.set_login_access(placement, level, Some(&tool)).await;
        // Also where the tenant's own login could not be restricted.
        let closed = self.close_locked(&tool).await;
        restricted.and(closed.map(drop))
    }

    /// The same for the tenant's login, or another role with its comment. The caller has the tenant's lock. The migration login
    /// `tool` is shut out before anything that may wait for a session.
    pub(super) async fn set_login_access(
        &self,
        placement: &Placement,
        level: AccessLevel,
        tool: Option<&Ident>,
    ) -> Result<()> {
        let (id, database, login) = (placement.tenant, Ident::database(placement)?, Ident::login(placement)?);
        let mut session = self.admin().await?;
        let names: (&[&str], &[&str]) = (&[database.as_str()], &[login.as_str()]);
        let inventory = inventory::read(&mut session, Some(names)).await?;
        let facts = inventory.facts(placement);
        let recorded = RecordedOids::default();
        let now = drift::access_in_force(&facts, recorded);
        // What a superuser granted does not keep the rest from being revoked: it is found again at the end.
        let superuser_only = drift::contradictions(&facts, recorded, level).find(|mismatch| {
            mismatch.repaired_by().is_none()
                && mismatch.reason() == Reason::MissingRight
                && !matches!(mismatch, Mismatch::SuperuserGrants(_))
        });
        let blocked = level == AccessLevel::Blocked;

        let login_facts = match facts.login {
            None if blocked => {
                session.release();
                return Ok(());
            }
            None => return Err(Error::LoginMissing(login.to_string())),
            Some(facts) if !facts.ownership.is_ours() => return Err(conflict(&login, facts.ownership)),
            Some(facts) => facts,
        };
        if let Some(mismatch) = superuser_only.filter(|_| !blocked) {
            return Err(Error::MissingRight(mismatch.to_string()));
        }
        let database_facts = match facts.database {
            Some(facts) if facts.ownership.is_ours() => Some(facts),
            // A database of another owner is not changed.
            _ if blocked => None,
            Some(facts) => {
                return Err(Error::Conflict {
                    kind: "database",
                    name: database.to_string(),
                    detail: facts.ownership.describe(),
                });
            }
            None => return Err(Error::DatabaseMissing(database.to_string())),
        };

        // Granting ReadWrite revokes nothing. An unknown present level counts as wider than any level.
        let narrows = blocked || level != AccessLevel::ReadWrite && now.is_none_or(|now| now > level);
        let options = session.has_grant_options();
        let mut script = rights_script(&database, database_facts.as_ref(), &login, &login_facts, level);
        let groups = groups_script(&login, &login_facts, level, options);
        let memberships = memberships_script(&login, &login_facts);
        let is_changed = !(script.is_empty() && groups.is_empty() && memberships.is_empty());
        if narrows && is_changed {
            let unproven = ownership::login_with_unproven_revocation(id);
            let mut first = Script::of("COMMENT ON ROLE {} IS {}", &[&login, &Literal::new(&unproven)?]);
            first.append(groups);
            run_restricting(&mut session, "revoke the groups of the login", &first, &login).await?;
        } else {
            script.append(groups);
        }
        script.append(memberships);
        if let Some(tool) = tool
            && let Err(error) = disarm_at_once(&mut session, tool).await
        {
            // It is tried again, and reported, once the tenant's login is restricted.
            tracing::warn!(login = %tool, %error, "could not shut a migration login out at once");
        }
        if narrows {
            let narrowing = Narrowing {
                database: &database,
                login: &login,
                level,
                rights: inventory.rights(),
                has_grant_options: options,
            };
            if let Err(error) = run_restricting(&mut session, "set the access level", &script, &login).await {
                return Err(narrowing.explain(error, &mut session).await);
            }
            let prepared = narrowing.end_earlier_sessions(&mut session).await?;
            if database_facts.is_some() && !prepared.is_empty() {
                // An operation holds one session at a time.
                session.release();
                self.inner.sessions.roll_back_prepared(&database, &prepared).await?;
                session = self.admin().await?;
            }
        } else {
            run_on(&mut session, "set the access level", &script).await?;
        }
        if !blocked && (is_changed || now != Some(level)) {
            // From 16 on, only a superuser can revoke what a superuser granted: our REVOKE is a mere warning.
            let found = inventory::read(&mut session, Some(names)).await?;
            let left: Vec<String> = drift::contradictions(&found.facts(placement), recorded, level)
                // Its proof is recorded last.
                .filter(|mismatch| *mismatch != Mismatch::RevocationUnproven)
                .map(|mismatch| mismatch.to_string())
                .collect();
            if !left.is_empty() {
                session.release();
                return Err(Error::MissingRight(format!(
                    "role {login} could not be brought to {level}: {}",
                    left.join("; ")
                )));
            }
        }
        if (narrows && is_changed) || login_facts.is_revocation_unproven {
            let proven =
                Script::of("COMMENT ON ROLE {} IS {}", &[&login, &Literal::new(&ownership::login(id))?]);
            run_despite_read_only(&mut session, "record that the access level is in force", &proven).await?;
        }
        // Last: a tenant stores settings of any size, and a restriction does not wait until they are read.
        let extent = if narrows && is_changed { Extent::Small } else { Extent::All };
        reset_settings(&mut session, &login, &login_facts, database_facts.as_ref(), extent).await?;
        session.release();
        Ok(())
    }
}

/// The statements that bring the login's attributes and the database's rights to the level; none, if they show it already.
/// They come first, since they may have to wait for a lock of the tenant.
fn rights_script(
    database: &Ident,
    database_facts: Option<&DatabaseProperties>,
    login: &Ident,
    facts: &LoginProperties,
    level: AccessLevel,
) -> Script {
    let mut script = properties_script(database, database_facts, login, facts);
    if facts.may_create {
        script.add("ALTER ROLE {} NOCREATEDB NOCREATEROLE", &[login]);
    }
    if level == AccessLevel::Blocked && facts.can_login {
        script.add("ALTER ROLE {} NOLOGIN", &[login]);
    }
    if let Some(facts) = database_facts {
        match (facts.login_may_connect, level > AccessLevel::Blocked) {
            (true, false) => script.add("REVOKE CONNECT ON DATABASE {} FROM {}", &[database, login]),
            (false, true) => script.add("GRANT CONNECT ON DATABASE {} TO {}", &[database, login]),
            _ => {}
        }
        if facts.connection_limit > -1 {
            script.add("ALTER DATABASE {} CONNECTION LIMIT -1", &[database]);
        }
        if !facts.allow_connections {
            script.add("ALTER DATABASE {} ALLOW_CONNECTIONS true", &[database]);
        }
        if facts.open_to_public {
            script.add("REVOKE ALL ON DATABASE {} FROM PUBLIC", &[database]);
        }
    }
    script
}

/// The statements that bring the login into exactly the group of the level. From 16 on, each locks the group until the commit,
/// and other tenants' changes wait for it. No tenant's login can keep one of these statements waiting: it changes no
/// membership, and the locks that it can hold on a role exclude only the role's end.
fn groups_script(login: &Ident, facts: &LoginProperties, level: AccessLevel, options_known: bool) -> Script {
    let mut script = Script::new();
    let is_in = |group: &Ident| facts.groups.iter().any(|name| name == group.as_str());
    for group in &GROUPS {
        match (is_in(group), level.group() == Some(group.as_str())) {
            (true, false) => script.add("REVOKE {} FROM {}", &[group, login]),
            (false, true) => {
                let options = Keyword(if options_known { "WITH INHERIT TRUE, SET FALSE" } else { "" });
                script.add("GRANT {} TO {} {}", &[group, login, &options]);
            }
            _ => {}
        }
    }
    script
}

/// The statements that revoke every other membership. From 16 on, each locks the role whose members change until the commit:
/// also the login, for which the end of its own transactions waits. So they come last.
fn memberships_script(login: &Ident, facts: &LoginProperties) -> Script {
    let mut script = Script::new();
    // A tenant cannot grant these, but an administrator can: then one tenant acts with the rights of another.
    for name in &facts.foreign_memberships {
        if let Ok(role) = Ident::new(name) {
            script.add("REVOKE {} FROM {}", &[&role, login]);
        }
    }
    for name in &facts.foreign_members {
        if let Ok(member) = Ident::new(name) {
            script.add("REVOKE {} FROM {}", &[login, &member]);
        }
    }
    // An interrupted attempt may have left the operator's membership in them.
    if facts.is_revocation_unproven {
        let [rw, shrink, ro] = &GROUPS;
        script.add("REVOKE {}, {}, {}, {} FROM {}", &[login, rw, shrink, ro, &ADMIN]);
    }
    script
}

/// A change after which sessions of before must not remain.
struct Narrowing<'a> {
    /// The tenant's database.
    database: &'a Ident,
    /// Its login.
    login: &'a Ident,
    /// The level from now on.
    level: AccessLevel,
    /// What the operator may do to sessions of others.
    rights: Rights,
    /// Whether the server's memberships have options of their own: from 16 on.
    has_grant_options: bool,
}

impl Narrowing<'_> {
    /// Ends the login's sessions that began before now, until none is left. Returns the transactions that it prepared.
    async fn end_earlier_sessions(&self, session: &mut Session) -> Result<Vec<Prepared>> {
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
    async fn explain(&self, error: Error, session: &mut Session) -> Error {
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
            // Another tenant's login connected to this database with rights that were just revoked.
            "SELECT CASE WHEN a.usesysid IS NULL THEN 'unnamed' \
                         WHEN r.rolname <> {} AND NOT (a.datname IS NOT DISTINCT FROM {} AND starts_with( \
                             coalesce(shobj_description(r.oid, 'pg_authid'), ''), {})) THEN 'other' \
                         WHEN a.backend_start > {}::timestamptz THEN 'later' \
                         WHEN r.rolname <> {} AND {} THEN 'active' \
                         WHEN pg_terminate_backend(a.pid) THEN 'asked' ELSE 'asked' END AS what, a.pid \
             FROM pg_stat_activity AS a LEFT JOIN pg_roles AS r ON r.oid = a.usesysid \
             WHERE a.pid <> pg_backend_pid()",
            &[
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
