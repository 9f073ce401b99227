//! Tenant databases: cloned under a building name, published by a rename, dropped.

use crate::{
    domain::{
        names::building_name,
        placement::Placement,
        tenant_facts::{DatabaseProperties, Ownership},
    },
    postgres::{
        catalog::ownership,
        error::{Error, Result, is_duplicate},
        identifier::{DBA, Ident, Literal, Script},
        server::{Server, run_despite_read_only},
        session::{
            connect::{STATEMENT_LIMIT, with_timeout},
            pool::Session,
        },
    },
};

/// The result of a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// At least one database of the tenant was dropped.
    Dropped,
    /// The tenant has no database.
    Absent,
    /// The database of the final name is not this tenant's and was not changed; this tenant has none.
    NotOurs,
}

/// How often a creation is tried after a database of the building name was dropped.
const CREATE_ATTEMPTS: u32 = 3;
/// How often a drop is tried while sessions return; each attempt waits up to five seconds inside the server.
const DROP_ATTEMPTS: u32 = 3;

impl Server {
    /// Clones the template under the building name, without connections allowed. Then one transaction writes the ownership
    /// comment, revokes the rights of PUBLIC and allows connections, so that no session can open before the comment is
    /// there. A clone that an earlier attempt left without its comment is complete (`CREATE DATABASE` is
    /// all or nothing) and gets its comment now; only a clone of another template is recreated.
    pub async fn create_database(&self, placement: &Placement, template: &str) -> Result<()> {
        let (building, template) = (Ident::building(placement), Ident::new(template)?);
        let digest = crate::postgres::install::templates::digest_of(&template);
        let _one = self.lock_tenant(placement.tenant).await;
        for attempt in 1.. {
            let create = Script::of(
                "CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY wal_log ALLOW_CONNECTIONS false",
                &[&building, &DBA, &template],
            );
            match self.run("create the database", &create).await {
                Ok(()) => break,
                Err(Error::Sql { source, .. }) if is_duplicate(&source) && attempt < CREATE_ATTEMPTS => {
                    let facts = self.observe(placement).await?.building;
                    match facts {
                        // An earlier attempt was interrupted after the comment: this is its database.
                        Some(facts) if is_complete(&facts, digest) => return Ok(()),
                        Some(facts) if facts.owned_by_dba && has_no_comment(&facts) => break,
                        Some(facts) if facts.owned_by_dba => self.drop_named(&building).await?,
                        Some(facts) => return Err(conflict(&building, &facts)),
                        None => {}
                    }
                }
                // The template was dropped meanwhile: the next attempt builds a new one.
                Err(error) if matches!(error.sql_state().as_deref(), Some("3D000" | "55000")) => {
                    let detail = format!("cannot be cloned ({error})");
                    return Err(Error::TemplateBroken { name: template.to_string(), detail });
                }
                Err(error) => return Err(error),
            }
        }
        let open = Script::of(
            "COMMENT ON DATABASE {} IS {}",
            &[&building, &Literal::new(&ownership::database(placement.tenant, digest))?],
        )
        .then("REVOKE ALL ON DATABASE {} FROM PUBLIC", &[&building])
        .then("ALTER DATABASE {} ALLOW_CONNECTIONS true", &[&building]);
        self.run("write the ownership comment of the database", &open).await
    }

    /// Renames the tenant's database to its final name.
    pub async fn publish_database(&self, placement: &Placement) -> Result<()> {
        let (building, database) = (Ident::building(placement), Ident::database(placement)?);
        let _one = self.lock_tenant(placement.tenant).await;
        let publish = Script::of("ALTER DATABASE {} RENAME TO {}", &[&building, &database]);
        let error = match self.run("publish the database", &publish).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let in_question = matches!(error.sql_state().as_deref(), Some("3D000" | "42P04" | "23505"));
        if !in_question {
            return Err(error);
        }
        let facts = self.observe(placement).await?;
        match (facts.database, facts.building) {
            // An earlier attempt was interrupted after the rename.
            (Some(published), None) if published.ownership.is_ours() => Ok(()),
            (Some(other), _) => Err(conflict(&database, &other)),
            (None, None) => Err(Error::DatabaseMissing(building.to_string())),
            (None, Some(_)) => Err(error),
        }
    }

    /// Drops the tenant's database, under its final and its building name, and ends its sessions. Only a database whose
    /// comment names the tenant is dropped; an interrupted drop is finished. One database at a time: a drop waits for a
    /// checkpoint of the whole server.
    pub async fn drop_database(&self, placement: &Placement) -> Result<Dropped> {
        let name = Ident::database(placement)?;
        let _one = self.lock_tenant(placement.tenant).await;
        let facts = self.observe(placement).await?;
        let mut dropped = Dropped::Absent;
        // A database that is being built is recognized by the id in its name and, until it has its comment, by its owner.
        if facts.building.is_some_and(|facts| facts.ownership.is_ours() || facts.owned_by_dba) {
            self.drop_named(&Ident::building(placement)).await?;
            dropped = Dropped::Dropped;
        }
        match facts.database {
            // It existed before the tenant, which is not active yet: it is given back.
            Some(facts) if facts.is_adopting => return Err(Error::NotDropped(name.to_string())),
            Some(facts) if facts.ownership.is_ours() => {
                if facts.is_template {
                    let plain = Script::of("ALTER DATABASE {} IS_TEMPLATE false", &[&name]);
                    self.run("make the database droppable", &plain).await?;
                }
                self.drop_named(&name).await?;
                dropped = Dropped::Dropped;
            }
            Some(_) if dropped == Dropped::Absent => dropped = Dropped::NotOurs,
            _ => {}
        }
        if dropped != Dropped::NotOurs {
            for gone in [placement.database.as_str(), &building_name(placement.tenant)] {
                self.inner.sessions.forget_opened_in(gone);
            }
        }
        Ok(dropped)
    }

    /// Drops a database that is known to be ours. Not `WITH (FORCE)`: for any role but a superuser, that fails while an
    /// autovacuum worker is in the database, whereas a plain drop ends the worker.
    pub(in crate::postgres) async fn drop_named(&self, name: &Ident) -> Result<()> {
        let _one = self.inner.drop_lock.lock().await;
        let mut session = self.admin().await?;
        let drop = Script::of("DROP DATABASE IF EXISTS {}", &[name]);
        let mut attempt = 1;
        loop {
            let blockers = end_sessions(&mut session, name).await?;
            if let Some(why) = blockers.blocking_error(name) {
                session.release();
                return Err(why);
            }
            match run_despite_read_only(&mut session, "drop the database", &drop).await {
                Ok(()) => {
                    session.release();
                    return Ok(());
                }
                // An administrator made it a template (IS_TEMPLATE).
                Err(error) if error.sql_state().as_deref() == Some("42809") && attempt < DROP_ATTEMPTS => {
                    let ordinary = Script::of("ALTER DATABASE {} IS_TEMPLATE false", &[name]);
                    run_despite_read_only(&mut session, "make the template an ordinary database", &ordinary)
                        .await?;
                    attempt += 1;
                }
                Err(error) if error.sql_state().as_deref() != Some("55006") => return Err(error),
                Err(_) if attempt < DROP_ATTEMPTS && blockers.foreign.is_empty() => attempt += 1,
                Err(error) => {
                    session.release();
                    return Err(blockers.sessions_error(name).unwrap_or(error));
                }
            }
        }
    }
}

fn is_complete(facts: &DatabaseProperties, digest: &str) -> bool {
    facts.ownership.is_ours()
        && facts.owned_by_dba
        && facts.allow_connections
        && !facts.drop_interrupted
        && facts.template_digest.as_deref() == Some(digest)
}

fn has_no_comment(facts: &DatabaseProperties) -> bool {
    facts.ownership == Ownership::NoComment && !facts.drop_interrupted
}

fn conflict(name: &Ident, facts: &DatabaseProperties) -> Error {
    Error::Conflict { kind: "database", name: name.to_string(), detail: facts.ownership.describe() }
}

/// What blocks a drop.
#[derive(sqlx::FromRow)]
pub(super) struct DropBlockers {
    gids: Vec<String>,
    slots: Vec<String>,
    subscribed: bool,
    /// Sessions that the operator may not end. (They may still end within the five seconds that `DROP DATABASE` waits.)
    foreign: Vec<String>,
    /// The number of sessions that were ended.
    pub(super) ended: i64,
}

impl DropBlockers {
    /// The error for what only an administrator can remove.
    fn blocking_error(&self, name: &Ident) -> Option<Error> {
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

    fn sessions_error(&self, name: &Ident) -> Option<Error> {
        let ended = usize::try_from(self.ended).unwrap_or_default();
        let mut who = self.foreign.join(", ");
        if ended > 0 {
            who = format!("{who}{}{ended} that reconnect", if who.is_empty() { "" } else { " and " });
        }
        (!who.is_empty()).then(|| Error::SessionsInTheWay {
            database: name.to_string(),
            count: self.foreign.len() + ended,
            who,
        })
    }
}

/// Ends the sessions on a database that the operator may end, and lists what else blocks a drop.
pub(super) async fn end_sessions(session: &mut Session, name: &Ident) -> Result<DropBlockers> {
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
    with_timeout(STATEMENT_LIMIT, "end the sessions on the database", query).await
}
