//! The breaker of mass deletions, as the registry keeps it. That no purge begins while it is open is a trigger's rule.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::FromRow;

use super::{Registry, Result};
use crate::domain::breaker::{Limits, WINDOW};

/// An opening of the breaker that nobody has acknowledged yet.
#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct Opening {
    /// Which.
    pub id: i64,
    /// By this it is acknowledged.
    pub token: String,
    /// `MassDeletion`, `DefinitionDeleted` or `DefinitionReplaced`.
    pub cause: String,
    /// For people.
    pub detail: String,
}

impl Registry {
    /// The opening that nobody has acknowledged, if there is one.
    pub async fn breaker(&self) -> Result<Option<Opening>> {
        let open =
            sqlx::query_as("SELECT id, token, cause, detail FROM breaker WHERE acknowledged_at IS NULL")
                .fetch_optional(&self.pool)
                .await?;
        Ok(open)
    }

    /// Counts who began to go away, and opens the breaker if they are too many; returns the opening, if it is open then.
    /// Those that were handed out count, and those alone that went since the last acknowledgement.
    pub async fn count_departures(&self, limits: Limits, now: Timestamp) -> Result<Option<Opening>> {
        let open = sqlx::query_as(
            "WITH open AS (SELECT id, token, cause, detail FROM breaker WHERE acknowledged_at IS NULL),
             since AS (
                 SELECT greatest($1::timestamptz - make_interval(secs => $2),
                     coalesce((SELECT max(acknowledged_at) FROM breaker), '-infinity')) AS at),
             counted AS (
                 SELECT count(*) FILTER (WHERE t.deprovisioned_at > s.at) AS leaving,
                     count(*) FILTER (WHERE t.status <> 'deprovisioned' OR t.closed_at > s.at) AS tenants
                 FROM tenants t, since s WHERE t.activated_at IS NOT NULL),
             opened AS (
                 INSERT INTO breaker (opened_at, cause, detail)
                 SELECT $1, 'MassDeletion',
                     format('%s of %s tenants began to go away within ten minutes', leaving, tenants)
                 FROM counted
                 WHERE leaving > greatest($3, tenants * $4 / 100.0) AND NOT EXISTS (SELECT FROM open)
                 ON CONFLICT DO NOTHING RETURNING id, token, cause, detail),
             marked AS (
                 UPDATE tenants t SET frozen_by = o.id FROM opened o
                 WHERE t.status = 'deprovisioning' AND t.purge_started_at IS NULL)
             SELECT * FROM opened UNION ALL SELECT * FROM open",
        )
        .bind(now.to_sqlx())
        .bind(WINDOW.as_secs_f64())
        .bind(i64::from(limits.minimum))
        .bind(i64::from(limits.percent))
        .fetch_optional(&self.pool)
        .await?;
        Ok(open)
    }

    /// The definition of Tenants with this uid is being deleted, and every Tenant with it: opens the breaker, once.
    pub async fn definition_deleted(&self, uid: &str, detail: &str, now: Timestamp) -> Result<()> {
        sqlx::query(
            "WITH opened AS (
                 INSERT INTO breaker (opened_at, cause, detail, definition_uid)
                 SELECT $1, 'DefinitionDeleted', $2, $3
                 WHERE NOT EXISTS (SELECT FROM breaker WHERE acknowledged_at IS NULL)
                   AND NOT EXISTS (
                     SELECT FROM breaker WHERE cause = 'DefinitionDeleted' AND definition_uid = $3)
                 ON CONFLICT DO NOTHING RETURNING id)
             UPDATE tenants t SET frozen_by = o.id FROM opened o
             WHERE t.status = 'deprovisioning' AND t.purge_started_at IS NULL",
        )
        .bind(now.to_sqlx())
        .bind(detail)
        .bind(uid)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The definition of Tenants has this uid: opens the breaker, once, if it had another one before.
    pub async fn definition_seen(&self, uid: &str, detail: &str, now: Timestamp) -> Result<()> {
        sqlx::query(
            "WITH before AS (SELECT uid FROM definition WHERE uid <> $3),
             seen AS (
                 INSERT INTO definition (uid) VALUES ($3)
                 ON CONFLICT (singleton) DO UPDATE SET (uid, seen_at) = (excluded.uid, now())
                 WHERE definition.uid <> excluded.uid),
             opened AS (
                 INSERT INTO breaker (opened_at, cause, detail, definition_uid)
                 SELECT $1, 'DefinitionReplaced', $2, $3 FROM before
                 WHERE NOT EXISTS (SELECT FROM breaker WHERE acknowledged_at IS NULL)
                 ON CONFLICT DO NOTHING RETURNING id)
             UPDATE tenants t SET frozen_by = o.id FROM opened o
             WHERE t.status = 'deprovisioning' AND t.purge_started_at IS NULL",
        )
        .bind(now.to_sqlx())
        .bind(detail)
        .bind(uid)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Closes the breaker: somebody has looked at what this opening was about. The purges that it kept go on.
    pub async fn acknowledge_breaker(&self, token: &str, actor: &str, now: Timestamp) -> Result<bool> {
        let (closed,) = sqlx::query_as(
            "WITH closed AS (
                 UPDATE breaker SET acknowledged_at = $3, acknowledged_by = $2
                 WHERE token = $1 AND acknowledged_at IS NULL RETURNING id, token),
             freed AS (
                 UPDATE tenants t SET frozen_by = NULL FROM closed c
                 WHERE t.frozen_by IS NOT NULL AND t.status = 'deprovisioning'),
             logged AS (
                 INSERT INTO activity (action, actor, details)
                 SELECT 'BreakerAcknowledged', $2, jsonb_build_object('opening', id, 'token', token) FROM closed)
             SELECT EXISTS (SELECT FROM closed)",
        )
        .bind(token)
        .bind(actor)
        .bind(now.to_sqlx())
        .fetch_one(&self.pool)
        .await?;
        Ok(closed)
    }
}
