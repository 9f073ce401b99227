//! The end of what the registry keeps for a limited time. Each statement is short: it looks at some tenants, or at the oldest
//! rows, and locks no tenant's row.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use uuid::Uuid;

use super::{Registry, Result};
use crate::domain::retention::Retention;

/// The maximum number of rows of one table that one statement removes.
const ROWS: i64 = 1000;

/// The number of tenants that one statement looks at.
const TENANTS: i64 = 100;

/// The days for which an acknowledged opening of the breaker is kept.
const BREAKER_DAYS: i32 = 400;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Removed {
    /// Workflows, with their steps.
    pub workflows: i64,
    /// Activity rows, which are in the archive now.
    pub archived: i64,
    /// Days of usage, one for each name; and the last usage of closed tenants.
    pub usage: i64,
}

impl Removed {
    /// The sum of both.
    pub fn and(self, other: Self) -> Self {
        Self {
            workflows: self.workflows + other.workflows,
            archived: self.archived + other.archived,
            usage: self.usage + other.usage,
        }
    }

    /// Whether nothing was removed.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

impl Registry {
    /// The ids of the next tenants after this one, closed ones included.
    pub async fn tenants_after(&self, after: Option<Uuid>) -> Result<Vec<Uuid>> {
        let ids = sqlx::query_scalar("SELECT id FROM tenants WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.unwrap_or(Uuid::nil()))
            .bind(TENANTS)
            .fetch_all(&self.pool)
            .await?;
        Ok(ids)
    }

    /// Removes a part of what these tenants need not keep any more. A tenant's last workflow, and open ones, stay.
    pub async fn remove_outdated(
        &self,
        tenants: &[Uuid],
        keep: &Retention,
        now: Timestamp,
    ) -> Result<Removed> {
        let removed = sqlx::query_as(
            "WITH ranked AS (
                 SELECT id, finished_at, started_at, f.failed,
                     row_number() OVER (PARTITION BY tenant_id ORDER BY started_at DESC) AS recency,
                     row_number() OVER (PARTITION BY tenant_id, f.failed ORDER BY started_at DESC) AS number
                 FROM workflows, LATERAL (SELECT outcome = 'Failed' OR failures > 0 AS failed) f
                 WHERE tenant_id = ANY ($1)),
             old_workflows AS (
                 SELECT id FROM ranked
                 WHERE finished_at IS NOT NULL AND recency > 1
                   AND (number > $5 OR finished_at < $2 - make_interval(days => CASE WHEN failed THEN $4 ELSE $3 END))
                 ORDER BY started_at LIMIT $9),
             steps AS (DELETE FROM workflow_steps s USING old_workflows o WHERE s.workflow_id = o.id),
             workflows_gone AS (DELETE FROM workflows w USING old_workflows o WHERE w.id = o.id RETURNING 1),
             old_activity AS (
                 SELECT id FROM (
                     SELECT id, row_number() OVER (PARTITION BY tenant_id ORDER BY at DESC, id DESC) AS number
                     FROM activity WHERE tenant_id = ANY ($1)) AS a
                 WHERE number > $7 ORDER BY id LIMIT $9),
             oldest_activity AS (SELECT id, at FROM activity ORDER BY id LIMIT $9),
             outdated_activity AS (
                 SELECT id FROM old_activity
                 UNION SELECT id FROM oldest_activity WHERE at < $2 - make_interval(days => $6)),
             copied AS (
                 INSERT INTO activity_archive (id, tenant_id, at, action, actor, reason, details, correlation_id)
                 SELECT id, tenant_id, at, action, actor, reason, details, correlation_id
                 FROM activity JOIN outdated_activity USING (id)
                 ON CONFLICT DO NOTHING),
             activity_gone AS (
                 DELETE FROM activity a USING outdated_activity o WHERE a.id = o.id RETURNING 1),
             days_gone AS (
                 DELETE FROM usage_by_day
                 WHERE tenant_id = ANY ($1) AND day < ($2 AT TIME ZONE 'UTC')::date - $8 RETURNING 1),
             usage_gone AS (
                 DELETE FROM usage u USING tenants t
                 WHERE t.id = u.tenant_id AND t.id = ANY ($1) AND t.status = 'deprovisioned' RETURNING 1)
             SELECT (SELECT count(*) FROM workflows_gone) AS workflows,
                 (SELECT count(*) FROM activity_gone) AS archived,
                 (SELECT count(*) FROM days_gone) + (SELECT count(*) FROM usage_gone) AS usage",
        )
        .bind(tenants)
        .bind(now.to_sqlx())
        .bind(keep.workflow_days)
        .bind(keep.failed_workflow_days)
        .bind(keep.workflows_per_tenant)
        .bind(keep.activity_days)
        .bind(keep.activity_per_tenant)
        .bind(keep.usage_days)
        .bind(ROWS)
        .fetch_one(&self.pool)
        .await?;
        Ok(removed)
    }

    /// Removes openings of the breaker that were acknowledged long ago. The last one stays, and those of a definition: the
    /// breaker opens once for each.
    pub async fn remove_outdated_openings(&self, now: Timestamp) -> Result<()> {
        sqlx::query(
            "DELETE FROM breaker b
             WHERE acknowledged_at < $1 - make_interval(days => $2) AND definition_uid IS NULL
               AND id < (SELECT max(id) FROM breaker)
               AND NOT EXISTS (SELECT FROM tenants t WHERE t.frozen_by = b.id)",
        )
        .bind(now.to_sqlx())
        .bind(BREAKER_DAYS)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
