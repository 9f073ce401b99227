//! The PostgreSQL servers: their identity, what was read of all their tenants, and the operator processes that have led.

use std::collections::HashMap;

use super::{Registry, Result};
use crate::domain::{attribution::Actor, identity::TenantId};

impl Registry {
    /// Records that this process leads, and returns the identities of the leaders of the last 30 days before it,
    /// including `predecessor`, which may have led before leaders were recorded.
    pub async fn lead(&self, predecessor: Option<&str>) -> Result<Vec<String>> {
        let former = sqlx::query_scalar(
            "WITH forgotten AS (DELETE FROM leaders WHERE since < now() - interval '30 days'),
             led AS (
                 INSERT INTO leaders (identity)
                 SELECT DISTINCT unnest(ARRAY[current_setting('application_name'), $1])
                 EXCEPT SELECT NULL ON CONFLICT DO NOTHING RETURNING identity)
             SELECT identity FROM (SELECT identity FROM leaders WHERE since >= now() - interval '30 days'
                                   UNION SELECT identity FROM led) AS l
             WHERE identity <> current_setting('application_name') ORDER BY identity",
        )
        .bind(predecessor)
        .fetch_all(&self.pool)
        .await?;
        Ok(former)
    }

    /// Records the system identifier and the timeline of the server with this name. If another identifier is recorded, on
    /// which tenants have databases, nothing is written, unless the user has `accepted` the replacement. A server with
    /// another identifier or timeline than recorded is not the one that was last used: the databases of all its tenants
    /// have to be verified.
    pub async fn bind_server(
        &self,
        name: &str,
        found: &ServerIdentity,
        accepted: bool,
    ) -> Result<ServerMatch> {
        let (other, doubted) = sqlx::query_as::<_, (Option<String>, bool)>(
            "WITH before AS (SELECT system_identifier, timeline FROM servers WHERE name = $1),
             written AS (
                 INSERT INTO servers AS s (name, system_identifier, timeline)
                 SELECT $1, $2, $4
                 WHERE NOT EXISTS (
                         SELECT FROM before
                         WHERE system_identifier = $2 AND timeline IS NOT DISTINCT FROM coalesce($4, timeline))
                     AND ($3 OR NOT EXISTS (SELECT FROM before WHERE system_identifier <> $2) OR NOT EXISTS (
                         SELECT FROM tenants
                         WHERE server = $1 AND (database_exists OR status <> 'deprovisioned')))
                 ON CONFLICT (name) DO UPDATE
                 SET system_identifier = $2, timeline = coalesce($4, s.timeline), recorded_at = now(),
                     last_transaction = CASE WHEN s.system_identifier = $2 THEN s.last_transaction END
                 RETURNING name),
             replaced AS (
                 SELECT before.system_identifier <> $2 AS by_another,
                     before.system_identifier <> $2 OR before.timeline <> $4 AS is_it, before.system_identifier AS former
                 FROM written, before),
             doubted AS (
                 UPDATE tenants SET verification_required = true FROM replaced
                 WHERE server = $1 AND status <> 'deprovisioned' AND NOT verification_required AND replaced.is_it
                 RETURNING id),
             logged AS (
                 INSERT INTO activity (action, actor, details)
                 SELECT 'ServerReplaced', $5, jsonb_build_object('server', $1, 'from', former, 'to', $2::text)
                 FROM replaced
                 -- Last: all rows without a tenant have one chain.
                 WHERE by_another AND (SELECT count(*) FROM doubted) >= 0)
             SELECT (SELECT system_identifier FROM before
                     WHERE system_identifier <> $2 AND NOT EXISTS (SELECT FROM written)),
                 coalesce((SELECT is_it FROM replaced), false)",
        )
        .bind(name)
        .bind(&found.identifier)
        .bind(accepted)
        .bind(found.timeline)
        .bind(Actor::by_annotation().to_string())
        .fetch_one(&self.pool)
        .await?;
        Ok(match other {
            Some(other) => ServerMatch::Refused(other),
            None if doubted => ServerMatch::Doubted,
            None => ServerMatch::Bound,
        })
    }

    /// The recorded transaction ids of the servers that were read before.
    pub async fn watermarks(&self) -> Result<HashMap<String, i64>> {
        let recorded: Vec<(String, i64)> =
            sqlx::query_as("SELECT name, last_transaction FROM servers WHERE last_transaction IS NOT NULL")
                .fetch_all(&self.pool)
                .await?;
        Ok(recorded.into_iter().collect())
    }

    /// Records how far the servers have come.
    pub async fn record_watermarks(&self, read: &HashMap<String, i64>) -> Result<()> {
        let names: Vec<&String> = read.keys().collect();
        let transactions: Vec<i64> = read.values().copied().collect();
        sqlx::query(
            "UPDATE servers s SET last_transaction = n.transaction
             FROM unnest($1::text[], $2::bigint[]) AS n (name, transaction)
             WHERE s.name = n.name AND s.last_transaction IS DISTINCT FROM n.transaction",
        )
        .bind(names)
        .bind(transactions)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The server was restored to an older state, with this next transaction id: the databases of all its tenants have to
    /// be verified. One statement, so that the older state is not recorded without that.
    pub async fn require_verification(&self, server: &str, transaction: i64) -> Result<()> {
        sqlx::query(
            "WITH restored AS (UPDATE servers SET last_transaction = $2 WHERE name = $1)
             UPDATE tenants SET verification_required = true
             WHERE server = $1 AND status <> 'deprovisioned' AND NOT verification_required",
        )
        .bind(server)
        .bind(transaction)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Records the OIDs of databases and logins that were read with their ownership comments: of all tenants for which
    /// they differ, in one statement. Another database than the recorded one was restored, and has to be verified; returns
    /// the tenants of those.
    pub async fn record_oids(&self, read: &[(TenantId, i64, i64)]) -> Result<Vec<TenantId>> {
        if read.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = read.iter().map(|(id, _, _)| id.0).collect();
        let databases: Vec<_> = read.iter().map(|(_, database, _)| *database).collect();
        let logins: Vec<_> = read.iter().map(|(_, _, login)| *login).collect();
        let recorded: Vec<(uuid::Uuid, bool)> = sqlx::query_as(
            "UPDATE tenants t
             SET database_oid = n.database, login_oid = n.login,
                 verification_required = t.verification_required OR n.restored
             FROM (SELECT n.*, coalesce(b.database_oid <> n.database, false) AS restored
                   FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS n (id, database, login)
                   JOIN tenants b ON b.id = n.id) AS n
             WHERE t.id = n.id AND (t.database_oid, t.login_oid) IS DISTINCT FROM (n.database, n.login)
             RETURNING t.id, n.restored",
        )
        .bind(ids)
        .bind(databases)
        .bind(logins)
        .fetch_all(&self.pool)
        .await?;
        Ok(recorded.into_iter().filter(|(_, restored)| *restored).map(|(id, _)| TenantId(id)).collect())
    }
}

/// What distinguishes a server, and its history, from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerIdentity {
    /// The system identifier.
    pub identifier: String,
    /// The timeline; none if the operator's login may not read it.
    pub timeline: Option<i64>,
}

/// Whether a server is the recorded one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerMatch {
    /// It is, or it is recorded now.
    Bound,
    /// It is recorded now, and may have another state than the one that was used last: it failed over, was restored, or
    /// replaced the recorded one on purpose.
    Doubted,
    /// Another one is recorded, with this identifier.
    Refused(String),
}
