//! The PostgreSQL servers: their identity, what was read of all their tenants, and the operator processes that have led.

use super::{Registry, Result};
use crate::domain::identity::TenantId;

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

    /// Records the system identifier of the server with this name. If another one is recorded, on which tenants have
    /// databases, that one is returned and nothing is written, unless the user has `accepted` the replacement.
    pub async fn bind_server(&self, name: &str, identifier: &str, accepted: bool) -> Result<Option<String>> {
        let other = sqlx::query_scalar(
            "WITH before AS (SELECT system_identifier FROM servers WHERE name = $1),
             written AS (
                 INSERT INTO servers (name, system_identifier)
                 SELECT $1, $2 WHERE NOT EXISTS (SELECT FROM before WHERE system_identifier = $2)
                     AND ($3 OR NOT EXISTS (SELECT FROM before) OR NOT EXISTS (
                         SELECT FROM tenants
                         WHERE server = $1 AND (database_exists OR status <> 'deprovisioned')))
                 ON CONFLICT (name) DO UPDATE SET system_identifier = $2, recorded_at = now()
                 RETURNING name),
             logged AS (
                 INSERT INTO activity (action, actor, details)
                 SELECT 'ServerReplaced', 'unknown', jsonb_build_object(
                     'server', written.name, 'from', before.system_identifier, 'to', $2::text)
                 FROM written, before)
             SELECT system_identifier FROM before
             WHERE system_identifier <> $2 AND NOT EXISTS (SELECT FROM written)",
        )
        .bind(name)
        .bind(identifier)
        .bind(accepted)
        .fetch_optional(&self.pool)
        .await?;
        Ok(other)
    }

    /// The server was restored: the databases of all its tenants have to be verified.
    pub async fn require_verification(&self, server: &str) -> Result<()> {
        sqlx::query(
            "UPDATE tenants SET verification_required = true
             WHERE server = $1 AND status <> 'deprovisioned' AND NOT verification_required",
        )
        .bind(server)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Records the OIDs of databases and logins that were read with their ownership comments: of all tenants for which
    /// they differ, in one statement.
    pub async fn record_oids(&self, read: &[(TenantId, i64, i64)]) -> Result<()> {
        if read.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = read.iter().map(|(id, _, _)| id.0).collect();
        let databases: Vec<_> = read.iter().map(|(_, database, _)| *database).collect();
        let logins: Vec<_> = read.iter().map(|(_, _, login)| *login).collect();
        sqlx::query(
            "UPDATE tenants t SET database_oid = n.database, login_oid = n.login
             FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS n (id, database, login)
             WHERE t.id = n.id AND (t.database_oid, t.login_oid) IS DISTINCT FROM (n.database, n.login)",
        )
        .bind(ids)
        .bind(databases)
        .bind(logins)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
