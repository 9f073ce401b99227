//! The access level: which group a tenant's login is in, whether it may connect, and the proof that what was taken
//! is gone from every session.
//!
//! Taking a right does not take it from what is under way: a running COPY, a plan prepared in an open transaction
//! and a session after SET ROLE keep it. So after the swap the tenant's sessions from before are ended, and the
//! level counts as in force only when the server shows none of them any more, and no session that was just starting,
//! and when what they prepared to be committed later is rolled back. Until that is proven, the login's comment says
//! so: an attempt that was cut is finished by the next one.

use std::{collections::HashSet, time::Duration};

use futures::TryStreamExt;
use sqlx::{Either, Row, postgres::PgRow};

use crate::domain::{access::AccessLevel, identity::TenantId};

use super::{
    connect::{STATEMENT_LIMIT, within},
    drift::Known,
    error::{Error, Result},
    identifier::{ADMIN, GROUPS, Ident, Literal, Script, Word},
    inventory::{self, DatabaseFacts, LoginFacts, Rights},
    mark,
    prepared::Prepared,
    roles::{conflict, options_known},
    server::{Server, run_anyway, run_on},
    sessions::Session,
};

/// How often, at most, sessions are ended and looked for before they count as in the way.
const ROUNDS: u32 = 400;
/// The first pause between two looks; it grows to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LAST_PAUSE: Duration = Duration::from_millis(100);

impl Server {
    /// Brings a login to a level, in one transaction, and where that takes something, ends the sessions that had
    /// it and proves that they are gone. Widening ends no session. `Blocked` also takes LOGIN; no level gives it
    /// (that is `set_login`).
    ///
    /// With the login or the database gone, `Blocked` is in force already.
    pub async fn set_access(
        &self,
        id: TenantId,
        database: &str,
        login: &str,
        level: AccessLevel,
    ) -> Result<()> {
        let (database, login) = (Ident::new(database)?, Ident::new(login)?);
        let _one = self.serialise(id).await;
        let mut session = self.admin().await?;
        let names: (&[&str], &[&str]) = (&[database.as_str()], &[login.as_str()]);
        let inventory = inventory::read(&mut session, Some(names)).await?;
        let facts = inventory.facts(id, database.as_str(), login.as_str());
        let now = facts.access();
        let blocked = level == AccessLevel::Blocked;

        let login_facts = match facts.login {
            None if blocked => {
                session.give_back();
                return Ok(());
            }
            None => return Err(Error::LoginMissing(login.to_string())),
            Some(facts) if !facts.mark.is_ours() => return Err(conflict(&login, &facts.mark)),
            Some(facts) => facts,
        };
        if login_facts.beyond_us && !blocked {
            return Err(Error::MissingRight(format!(
                "role {login} has SUPERUSER, REPLICATION or BYPASSRLS, which only a superuser can take: ALTER ROLE {login} NOSUPERUSER NOREPLICATION NOBYPASSRLS"
            )));
        }
        if facts.database.as_ref().is_some_and(|facts| facts.mark.is_ours() && !facts.owned) && !blocked {
            return Err(Error::MissingRight(format!(
                "database {database} belongs to somebody else than tenantry_dba, which only a superuser can change: ALTER DATABASE {database} OWNER TO tenantry_dba"
            )));
        }
        let database_facts = match facts.database {
            Some(facts) if facts.mark.is_ours() => Some(facts),
            // A database that is not ours is not touched; the login has no business there.
            _ if blocked => None,
            Some(facts) => {
                return Err(Error::Conflict {
                    kind: "database",
                    name: database.to_string(),
                    detail: facts.mark.describe(),
                });
            }
            None => return Err(Error::DatabaseMissing(database.to_string())),
        };

        // Full access takes nothing. What is between two levels, or not proven yet, counts as more than any.
        let narrows = blocked || level != AccessLevel::ReadWrite && now.is_none_or(|now| now > level);
        let options = options_known(&session);
        let mut swap = swap(&database, database_facts.as_ref(), &login, &login_facts, level, options);
        let changes = !swap.is_empty();
        if narrows && changes {
            swap.add("COMMENT ON ROLE {} IS {}", &[&login, &Literal(&mark::login(id, true))]);
        }
        if narrows {
            run_anyway(&mut session, "set the access level", &swap).await?;
            let prepared = prove(&mut session, &database, &login, inventory.rights(), options).await?;
            if database_facts.is_some() && !prepared.is_empty() {
                // An operation has one session at a time.
                session.give_back();
                self.roll_back_prepared(&database, &prepared).await?;
                session = self.admin().await?;
            }
        } else {
            run_on(&mut session, "set the access level", &swap).await?;
        }
        if narrows && !blocked {
            // From 16 on, what a superuser granted only a superuser can take: our REVOKE of it is a mere warning.
            let found = inventory::read(&mut session, Some(names)).await?;
            let mut facts = found.facts(id, database.as_str(), login.as_str());
            if let Some(login) = &mut facts.login {
                login.narrowing = false;
            }
            if facts.access() != Some(level) {
                session.give_back();
                // How many sessions it may have is another matter.
                let connections = facts.login.as_ref().map_or(-1, |login| login.connection_limit);
                let found = facts.differences(level, Known::default(), connections).join("; ");
                return Err(Error::MissingRight(format!(
                    "role {login} could not be brought to {level}, for somebody else than tenantry_admin granted what it has: {found}; REVOKE that as a superuser"
                )));
            }
        }
        if (narrows && changes) || login_facts.narrowing {
            let proven = Script::of("COMMENT ON ROLE {} IS {}", &[&login, &Literal(&mark::login(id, false))]);
            run_anyway(&mut session, "record that the access level is in force", &proven).await?;
        }
        session.give_back();
        Ok(())
    }
}

/// The statements that lead from what is to what should be; none, when it already is.
fn swap(
    database: &Ident,
    database_facts: Option<&DatabaseFacts>,
    login: &Ident,
    facts: &LoginFacts,
    level: AccessLevel,
    options_known: bool,
) -> Script {
    let mut script = Script::new();
    let is_in = |group: &Ident| facts.groups.iter().any(|name| name == group.as_str());
    for group in &GROUPS {
        match (is_in(group), level.group() == Some(group.as_str())) {
            (true, false) => script.add("REVOKE {} FROM {}", &[group, login]),
            (false, true) => {
                let options = Word(if options_known { "WITH INHERIT TRUE, SET FALSE" } else { "" });
                script.add("GRANT {} TO {} {}", &[group, login, &options]);
            }
            _ => {}
        }
    }
    // No tenant can grant these, but an administrator can: then one tenant acts with the rights of another.
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
    // An attempt that was cut may have left them borrowed.
    if facts.narrowing {
        let [rw, shrink, ro] = &GROUPS;
        script.add("REVOKE {}, {}, {}, {} FROM {}", &[login, rw, shrink, ro, &ADMIN]);
    }
    if facts.privileged {
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

/// Ends the login's sessions from before now, until none is left. Returns which transactions it left prepared.
async fn prove(
    session: &mut Session,
    database: &Ident,
    login: &Ident,
    rights: Rights,
    options_known: bool,
) -> Result<Vec<Prepared>> {
    let doing = "end the tenant's sessions";
    // The server's clock, after the commit. As text, so that no type in between rounds it.
    let now = sqlx::query_scalar("SELECT clock_timestamp()::text").fetch_one(&mut **session);
    let since: String = within(STATEMENT_LIMIT, doing, now).await?;
    let script = look(database, login, &since, rights, options_known);
    let mut pause = FIRST_PAUSE;
    let mut left = Left::default();
    for round in 0..ROUNDS {
        let starting_before = left.starting;
        left = within(STATEMENT_LIMIT, doing, read_left(session, &script)).await?;
        // Who starts after the first look sees the new rights: somebody who knocks all the time, be it a neighbour
        // whom CONNECT refuses only after that lock, must not be able to hold the proof off.
        if round > 0 {
            left.starting.retain(|pid| starting_before.contains(pid));
        }
        if left.starting.is_empty() && left.living.is_empty() {
            return Ok(left.prepared);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
    let pids = left.living.iter().chain(&left.starting).map(|pid| format!("pid {pid}"));
    Err(Error::SessionsInTheWay {
        database: database.to_string(),
        count: left.living.len() + left.starting.len(),
        who: pids.collect::<Vec<_>>().join(", "),
    })
}

/// What is still there of before.
#[derive(Default)]
struct Left {
    /// Sessions that are just starting in the database.
    starting: HashSet<i32>,
    /// Sessions of the login, and of other tenants' logins in its database.
    living: HashSet<i32>,
    /// Transactions that the login prepared in its database. No session from before adds one once none is living.
    prepared: Vec<Prepared>,
}

/// One look: who holds the lock that a starting session has on its database, then who is there, ending whom we may.
/// In that order: a session gives the lock up only once it is listed, so it cannot be missed in between.
fn look(database: &Ident, login: &Ident, since: &str, rights: Rights, options_known: bool) -> Script {
    let mut script = Script::new();
    let borrow = !(rights.signal && rights.stats);
    if borrow {
        // Without the two predefined roles, the login itself is borrowed, and given back by the rollback.
        let options = Word(if options_known { "WITH INHERIT TRUE, SET FALSE" } else { "" });
        script.add("GRANT {} TO {} {}", &[login, &ADMIN, &options]);
    }
    script.add(
        "SELECT 'starting' AS what, l.pid FROM pg_locks AS l \
         WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND l.mode = 'RowExclusiveLock' \
         AND l.objid = (SELECT d.oid FROM pg_database AS d WHERE d.datname = {})",
        &[&Literal(database.as_str())],
    );
    script.add(
        // Another tenant's login has no business in this database: it got there with rights that were just taken.
        "SELECT CASE WHEN a.usesysid IS NULL THEN 'unnamed' \
                     WHEN r.rolname <> {} AND NOT (a.datname IS NOT DISTINCT FROM {} AND starts_with( \
                         coalesce(shobj_description(r.oid, 'pg_authid'), ''), {})) THEN 'other' \
                     WHEN a.backend_start > {}::timestamptz THEN 'later' \
                     WHEN r.rolname <> {} AND {} THEN 'living' \
                     WHEN pg_terminate_backend(a.pid) THEN 'living' ELSE 'living' END AS what, a.pid \
         FROM pg_stat_activity AS a LEFT JOIN pg_roles AS r ON r.oid = a.usesysid \
         WHERE a.pid <> pg_backend_pid()",
        &[
            &Literal(login.as_str()),
            &Literal(database.as_str()),
            &Literal(mark::TENANT),
            &Literal(since),
            &Literal(login.as_str()),
            // With nothing but the borrowed login, there is no right to end another's session.
            &Word(if borrow { "true" } else { "false" }),
        ],
    );
    let groups = GROUPS;
    let [rw, shrink, ro] = groups.each_ref().map(|group| Literal(group.as_str()));
    script.add(
        "SELECT 'prepared' AS what, 0 AS pid, p.gid, p.owner::text FROM pg_prepared_xacts AS p \
         WHERE p.database = {} AND p.owner IN ({}, {}, {}, {})",
        &[&Literal(database.as_str()), &Literal(login.as_str()), &rw, &shrink, &ro],
    );
    if borrow {
        let mut borrowed = Script::of("BEGIN", &[]);
        borrowed.append(script);
        return borrowed.then("ROLLBACK", &[]);
    }
    script
}

async fn read_left(session: &mut Session, script: &Script) -> Result<Left, sqlx::Error> {
    let mut rows = sqlx::raw_sql(script.sql()).fetch_many(&mut **session);
    let mut left = Left::default();
    loop {
        let row: PgRow = match rows.try_next().await? {
            Some(Either::Right(row)) => row,
            Some(Either::Left(_)) => continue,
            None => return Ok(left),
        };
        let pid = row.try_get::<i32, _>("pid")?;
        match row.try_get::<&str, _>("what")? {
            "starting" => drop(left.starting.insert(pid)),
            "living" => drop(left.living.insert(pid)),
            "prepared" => {
                left.prepared.push(Prepared { gid: row.try_get("gid")?, owner: row.try_get("owner")? })
            }
            // Listed without a name: still starting, if it has the lock.
            "unnamed" => {}
            // Listed with a name: started.
            _ => drop(left.starting.remove(&pid)),
        }
    }
}
