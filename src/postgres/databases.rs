//! Tenant databases: cloned under a building name, published by a rename, dropped.

use crate::domain::identity::TenantId;

use super::{
    connect::{STATEMENT_LIMIT, within},
    error::{Error, Result, is_duplicate},
    identifier::{DBA, Ident, Literal, MIGRATOR, Script},
    inventory::DatabaseFacts,
    mark::{self, Mark},
    server::{Server, run_anyway},
    sessions::Session,
};

/// What a drop found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// At least one database of the tenant was there, and is gone.
    Dropped,
    /// There was none.
    Absent,
    /// There is a database of the final name, but it is not this tenant's; it was left alone, and this tenant has
    /// none.
    NotOurs,
}

/// How often a database in the way is removed before the creation gives up.
const CREATE_ATTEMPTS: u32 = 3;
/// How often a drop is tried while sessions come back; each waits up to five seconds inside the server.
const DROP_ATTEMPTS: u32 = 3;

impl Server {
    /// Clones the template under the building name: closed to everybody, then in one transaction marked, closed to
    /// PUBLIC, and opened for `tenantry_migrator`, so that the mark is there before anybody gets in. One that an attempt
    /// before left without its mark is whole (`CREATE DATABASE` is all or nothing) and is marked now; only one of
    /// another template is made anew.
    pub async fn create_database(&self, id: TenantId, template: &str) -> Result<()> {
        let (building, template) = (Ident::building(id), Ident::new(template)?);
        let digest = super::templates::digest_of(&template);
        let _one = self.serialise(id).await;
        for attempt in 1.. {
            let create = Script::of(
                "CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY wal_log ALLOW_CONNECTIONS false",
                &[&building, &DBA, &template],
            );
            match self.run("create the database", &create).await {
                Ok(()) => break,
                Err(Error::Sql { source, .. }) if is_duplicate(&source) && attempt < CREATE_ATTEMPTS => {
                    let facts = self.observe(id, "", "").await?.building;
                    match facts {
                        // An attempt before was cut after the mark: this is what it made.
                        Some(facts) if is_as_wanted(&facts, digest) => return Ok(()),
                        Some(facts) if facts.owned && is_unmarked(&facts) => break,
                        Some(facts) if facts.owned => self.drop_named(&building).await?,
                        Some(facts) => return Err(conflict(&building, &facts)),
                        None => {}
                    }
                }
                // It was there a moment ago: the next attempt builds a new one.
                Err(error) if matches!(error.sql_state().as_deref(), Some("3D000" | "55000")) => {
                    let detail = format!("cannot be cloned ({error})");
                    return Err(Error::TemplateBroken { name: template.to_string(), detail });
                }
                Err(error) => return Err(error),
            }
        }
        let open =
            Script::of("COMMENT ON DATABASE {} IS {}", &[&building, &Literal(&mark::database(id, digest))])
                .then("REVOKE ALL ON DATABASE {} FROM PUBLIC", &[&building])
                .then("GRANT CONNECT ON DATABASE {} TO {}", &[&building, &MIGRATOR])
                .then("ALTER DATABASE {} ALLOW_CONNECTIONS true", &[&building]);
        self.run("mark the database", &open).await
    }

    /// Gives the tenant's database its final name, after which it is the tenant's. The right of `tenantry_migrator`
    /// to connect ends in the same transaction.
    pub async fn publish_database(&self, id: TenantId, database: &str) -> Result<()> {
        let (building, database) = (Ident::building(id), Ident::new(database)?);
        let _one = self.serialise(id).await;
        let publish = Script::of("REVOKE CONNECT ON DATABASE {} FROM {}", &[&building, &MIGRATOR])
            .then("ALTER DATABASE {} RENAME TO {}", &[&building, &database]);
        let error = match self.run("publish the database", &publish).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let in_question = matches!(error.sql_state().as_deref(), Some("3D000" | "42P04" | "23505"));
        if !in_question {
            return Err(error);
        }
        let facts = self.observe(id, database.as_str(), "").await?;
        match (facts.database, facts.building) {
            // An attempt before was cut after the rename.
            (Some(published), None) if published.mark.is_ours() => Ok(()),
            (Some(other), _) => Err(conflict(&database, &other)),
            (None, None) => Err(Error::DatabaseMissing(building.to_string())),
            (None, Some(_)) => Err(error),
        }
    }

    /// Drops the tenant's database, under its final and its building name, sessions and all. Only what carries the
    /// tenant's mark is touched; a drop that was interrupted before is finished. One database at a time: a drop
    /// waits for a checkpoint of the whole server.
    pub async fn drop_database(&self, id: TenantId, database: &str) -> Result<Dropped> {
        let name = Ident::new(database)?;
        let _one = self.serialise(id).await;
        let facts = self.observe(id, database, "").await?;
        let mut dropped = Dropped::Absent;
        // A database of the building name has the tenant's id in its name; before its mark it has its owner.
        if facts.building.is_some_and(|facts| facts.mark.is_ours() || facts.owned) {
            self.drop_named(&Ident::building(id)).await?;
            dropped = Dropped::Dropped;
        }
        match facts.database {
            Some(facts) if facts.mark.is_ours() => {
                self.drop_named(&name).await?;
                dropped = Dropped::Dropped;
            }
            Some(_) if dropped == Dropped::Absent => dropped = Dropped::NotOurs,
            _ => {}
        }
        Ok(dropped)
    }

    /// Drops a database that is known to be ours. Not `WITH (FORCE)`: to anybody but a superuser that refuses as
    /// soon as an autovacuum worker is there, whereas a plain drop sends the worker away by itself.
    pub(super) async fn drop_named(&self, name: &Ident) -> Result<()> {
        let _one = self.inner.dropping.lock().await;
        let mut session = self.admin().await?;
        let drop = Script::of("DROP DATABASE IF EXISTS {}", &[name]);
        let mut attempt = 1;
        loop {
            let obstacles = clear(&mut session, name).await?;
            if let Some(why) = obstacles.hard(name) {
                session.give_back();
                return Err(why);
            }
            match run_anyway(&mut session, "drop the database", &drop).await {
                Ok(()) => {
                    session.give_back();
                    return Ok(());
                }
                Err(error) if error.sql_state().as_deref() != Some("55006") => return Err(error),
                Err(_) if attempt < DROP_ATTEMPTS && obstacles.foreign.is_empty() => attempt += 1,
                Err(error) => {
                    session.give_back();
                    return Err(obstacles.sessions(name).unwrap_or(error));
                }
            }
        }
    }
}

fn is_as_wanted(facts: &DatabaseFacts, digest: &str) -> bool {
    facts.mark.is_ours()
        && facts.owned
        && facts.allow_connections
        && !facts.drop_interrupted
        && facts.migrator_may_connect
        && facts.template_digest.as_deref() == Some(digest)
}

fn is_unmarked(facts: &DatabaseFacts) -> bool {
    facts.mark == Mark::None && !facts.drop_interrupted
}

fn conflict(name: &Ident, facts: &DatabaseFacts) -> Error {
    Error::Conflict { kind: "database", name: name.to_string(), detail: facts.mark.describe() }
}

/// What is in the way of a drop.
#[derive(sqlx::FromRow)]
struct Obstacles {
    gids: Vec<String>,
    slots: Vec<String>,
    subscribed: bool,
    /// Sessions that are not ours to end. (One in `DROP DATABASE`'s own five seconds may still leave by itself.)
    foreign: Vec<String>,
    /// How many were ended just now.
    ended: i64,
}

impl Obstacles {
    /// What only somebody else can clear away.
    fn hard(&self, name: &Ident) -> Option<Error> {
        let database = name.to_string();
        if !self.gids.is_empty() {
            Some(Error::PreparedTransaction { database, gids: self.gids.join(", ") })
        } else if !self.slots.is_empty() {
            Some(Error::ReplicationSlot { database, slots: self.slots.join(", ") })
        } else if self.subscribed {
            Some(Error::Subscription(database))
        } else {
            None
        }
    }

    fn sessions(&self, name: &Ident) -> Option<Error> {
        let ended = usize::try_from(self.ended).unwrap_or_default();
        let mut who = self.foreign.join(", ");
        if ended > 0 {
            who = format!("{who}{}{ended} that come back", if who.is_empty() { "" } else { " and " });
        }
        (!who.is_empty()).then(|| Error::SessionsInTheWay {
            database: name.to_string(),
            count: self.foreign.len() + ended,
            who,
        })
    }
}

/// Ends the sessions on a database that are ours to end, and lists what else is in the way.
async fn clear(session: &mut Session, name: &Ident) -> Result<Obstacles> {
    let query = sqlx::query_as(
        "WITH s AS (
            SELECT a.pid, a.usename, NOT r.rolsuper
                AND (pg_has_role('pg_signal_backend', 'USAGE') OR pg_has_role(r.oid, 'USAGE')) AS ours
            FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid WHERE a.datname = $1)
         SELECT ARRAY(SELECT gid FROM pg_prepared_xacts WHERE database = $1)::text[] AS gids,
                ARRAY(SELECT slot_name FROM pg_replication_slots WHERE database = $1 AND active)::text[] AS slots,
                EXISTS (SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
                        WHERE d.datname = $1) AS subscribed,
                ARRAY(SELECT format('%s (pid %s)', s.usename, s.pid) FROM s WHERE NOT s.ours)::text[] AS foreign,
                (SELECT count(*) FROM s WHERE s.ours AND pg_terminate_backend(s.pid)) AS ended",
    )
    .bind(name.as_str())
    .fetch_one(&mut **session);
    within(STATEMENT_LIMIT, "end the sessions on the database", query).await
}
