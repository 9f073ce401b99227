//! The breaker of mass deletions. While it is open, a trigger refuses to begin a purge.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::FromRow;

use super::{Registry, Result};
use crate::domain::breaker::{BreakerThresholds, WINDOW};

/// An opening of the breaker that is not acknowledged yet.
#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct Opening {
    /// Its number.
    pub id: i64,
    /// The text that acknowledges it.
    pub token: String,
    /// `MassDeletion`, `DefinitionDeleted` or `DefinitionReplaced`.
    pub cause: String,
    /// What happened, for people.
    pub detail: String,
}

/// Freezes the tombstones whose purge has not begun: the end of a statement whose common table expression `opened` has the
/// opening, if there is a new one. Tombstones that are written while the breaker is open are frozen by a trigger.
macro_rules! freeze_tombstones {
    () => {
        "UPDATE tenants t SET frozen_by = o.id FROM opened o \
         WHERE t.status = 'deprovisioning' AND t.purge_started_at IS NULL"
    };
}

impl Registry {
    /// The opening that is not acknowledged, if the breaker is open.
    pub async fn breaker(&self) -> Result<Option<Opening>> {
        let open =
            sqlx::query_as("SELECT id, token, cause, detail FROM breaker WHERE acknowledged_at IS NULL")
                .fetch_optional(&self.pool)
                .await?;
        Ok(open)
    }

    /// Counts the tenants whose deprovisioning began recently, and opens the breaker if they exceed the thresholds. Returns
    /// the opening if the breaker is open. Only activated tenants count, and only those whose deprovisioning began after
    /// the last acknowledgement.
    pub async fn check_mass_deletion(
        &self,
        limits: BreakerThresholds,
        now: Timestamp,
    ) -> Result<Option<Opening>> {
        let open = sqlx::query_as(concat!(
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
                     format('the deprovisioning of %s of %s tenants began within ten minutes', leaving, tenants)
                 FROM counted
                 WHERE leaving > greatest($3, tenants * $4 / 100.0) AND NOT EXISTS (SELECT FROM open)
                 ON CONFLICT DO NOTHING RETURNING id, token, cause, detail),
             frozen AS (",
            freeze_tombstones!(),
            ") SELECT * FROM opened UNION ALL SELECT * FROM open"
        ))
        .bind(now.to_sqlx())
        .bind(WINDOW.as_secs_f64())
        .bind(i64::from(limits.minimum))
        .bind(i64::from(limits.percent))
        .fetch_optional(&self.pool)
        .await?;
        Ok(open)
    }

    /// The Tenant CRD with this uid is being deleted, and every Tenant with it: opens the breaker, once per uid.
    pub async fn crd_deleted(&self, uid: &str, detail: &str, now: Timestamp) -> Result<()> {
        sqlx::query(concat!(
            "WITH opened AS (
                 INSERT INTO breaker (opened_at, cause, detail, definition_uid)
                 SELECT $1, 'DefinitionDeleted', $2, $3
                 WHERE NOT EXISTS (SELECT FROM breaker WHERE acknowledged_at IS NULL)
                   AND NOT EXISTS (
                     SELECT FROM breaker WHERE cause = 'DefinitionDeleted' AND definition_uid = $3)
                 ON CONFLICT DO NOTHING RETURNING id) ",
            freeze_tombstones!()
        ))
        .bind(now.to_sqlx())
        .bind(detail)
        .bind(uid)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The Tenant CRD has this uid: opens the breaker, once, if it had another uid before.
    pub async fn crd_found(&self, uid: &str, detail: &str, now: Timestamp) -> Result<()> {
        sqlx::query(concat!(
            "WITH before AS (SELECT uid FROM definition WHERE uid <> $3),
             seen AS (
                 INSERT INTO definition (uid) VALUES ($3)
                 ON CONFLICT (singleton) DO UPDATE SET (uid, seen_at) = (excluded.uid, now())
                 WHERE definition.uid <> excluded.uid),
             opened AS (
                 INSERT INTO breaker (opened_at, cause, detail, definition_uid)
                 SELECT $1, 'DefinitionReplaced', $2, $3 FROM before
                 WHERE NOT EXISTS (SELECT FROM breaker WHERE acknowledged_at IS NULL)
                 ON CONFLICT DO NOTHING RETURNING id) ",
            freeze_tombstones!()
        ))
        .bind(now.to_sqlx())
        .bind(detail)
        .bind(uid)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Closes the breaker, after an operator has acknowledged this opening. Frozen purges continue.
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
