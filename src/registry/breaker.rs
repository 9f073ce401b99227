//! The breaker of mass deletions. While it is open, a trigger refuses to begin a purge.

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use serde::Deserialize;
use sqlx::{FromRow, types::Json};

use super::{Registry, Result, tombstones::CLOCK_TOLERANCE};
use crate::domain::{
    breaker::{BreakerThresholds, COUNT_FIRST, WINDOW},
    identity::TenantId,
};

/// How many tenants an opening names.
const NAMED: i32 = 10;

/// An opening of the breaker that is not acknowledged yet.
#[derive(Clone, Debug, Deserialize, FromRow, PartialEq, Eq)]
pub struct Opening {
    /// Its number.
    pub id: i64,
    /// The text that acknowledges it.
    pub token: String,
    /// `MassDeletion`, `MassPurge`, `GraceShortened`, `TenantsVanished`, `DefinitionDeleted` or `DefinitionReplaced`.
    pub cause: String,
    /// What happened, for people.
    pub detail: String,
}

/// What was counted before a purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The opening, if the breaker is open.
    pub opening: Option<Opening>,
    /// Graces are being made shorter just now: those that were are counted only once that has ended.
    pub is_settling: bool,
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

    /// Counts what would open the breaker, and opens it if one of the counts exceeds the thresholds: the tenants whose
    /// deprovisioning began recently, the tombstones whose grace was made shorter recently, and the purges that are due by
    /// the clocks of the operator and of the registry or began recently. Only activated tenants count, and nothing that
    /// was acknowledged. `ahead` is how far the operator's clock was set ahead on purpose (zero outside of tests).
    pub async fn check_mass_deletion(
        &self,
        limits: BreakerThresholds,
        now: Timestamp,
        ahead: SignedDuration,
    ) -> Result<Count> {
        let row: (bool, bool, Option<Json<Opening>>) = sqlx::query_as(concat!(
            "WITH open AS (SELECT id, token, cause, detail FROM breaker WHERE acknowledged_at IS NULL),
             since AS (
                 SELECT greatest($1::timestamptz - make_interval(secs => $2),
                     coalesce((SELECT max(acknowledged_at) FROM breaker), '-infinity')) AS at),
             of_tenant AS (
                 SELECT t.slug, t.purge_after, t.purge_hastened_at, f.*,
                     NOT f.acknowledged AND t.deprovisioned_at > s.at AS leaves,
                     NOT f.acknowledged AND f.waits
                         AND t.purge_hastened_at > now() - make_interval(secs => $2) AS is_hastened,
                     NOT f.acknowledged AND (t.purge_started_at > s.at
                         OR f.waits AND t.purge_after <= least($1, now() + make_interval(secs => $5))) AS is_due,
                     t.status <> 'deprovisioned' OR t.closed_at > s.at AS counts
                 FROM since s, tenants t CROSS JOIN LATERAL (
                     SELECT coalesce(t.purge_after >= t.purge_acknowledged, false) AS acknowledged,
                         t.status = 'deprovisioning' AND t.purge_started_at IS NULL AND t.purge_held IS NULL
                             AND t.deletion_policy <> 'Retain' AS waits) AS f
                 WHERE t.activated_at IS NOT NULL),
             counted AS (
                 SELECT count(*) FILTER (WHERE leaves) AS leaving, count(*) FILTER (WHERE is_hastened) AS hastened,
                     count(*) FILTER (WHERE is_due) AS due, count(*) FILTER (WHERE counts) AS tenants,
                     greatest($3, count(*) FILTER (WHERE counts) * $4 / 100.0) AS tolerated,
                     (array_agg(slug ORDER BY purge_after, slug) FILTER (WHERE is_hastened))[:$6] AS hastened_slugs,
                     (array_agg(slug ORDER BY purge_after, slug) FILTER (WHERE is_due))[:$6] AS due_slugs,
                     coalesce(bool_or(waits AND purge_hastened_at > now() - make_interval(secs => $7)), false)
                         AS is_settling
                 FROM of_tenant),
             opened AS (
                 INSERT INTO breaker (opened_at, cause, detail)
                 SELECT $1, c.cause, c.detail
                 FROM (
                     SELECT CASE WHEN leaving > tolerated THEN 'MassDeletion'
                             WHEN hastened > tolerated THEN 'GraceShortened'
                             WHEN due > tolerated THEN 'MassPurge' END AS cause,
                         CASE WHEN leaving > tolerated THEN
                             format('the deprovisioning of %s of %s tenants began within ten minutes', leaving, tenants)
                         WHEN hastened > tolerated THEN
                             format('the grace of %s of %s tenants was made shorter within '
                                 'ten minutes; this would purge %s%s', hastened, tenants,
                                 array_to_string(hastened_slugs, ', '),
                                 CASE WHEN hastened > $6 THEN format(' and %s more', hastened - $6) ELSE '' END)
                         ELSE
                             format('the purges of %s of %s tenants came due or began within ten minutes: %s%s',
                                 due, tenants, array_to_string(due_slugs, ', '),
                                 CASE WHEN due > $6 THEN format(' and %s more', due - $6) ELSE '' END)
                         END AS detail
                     FROM counted) AS c
                 WHERE c.cause IS NOT NULL AND NOT EXISTS (SELECT FROM open)
                 ON CONFLICT DO NOTHING RETURNING id, token, cause, detail),
             frozen AS (",
            freeze_tombstones!(),
            ") SELECT is_settling, greatest(leaving, hastened, due) > tolerated,
                   (SELECT to_jsonb(o) FROM (SELECT * FROM opened UNION ALL SELECT * FROM open) AS o) FROM counted"
        ))
        .bind(now.to_sqlx())
        .bind(WINDOW.as_secs_f64())
        .bind(i64::from(limits.minimum))
        .bind(i64::from(limits.percent))
        .bind((CLOCK_TOLERANCE + ahead).as_secs_f64())
        .bind(NAMED)
        .bind(COUNT_FIRST.as_secs_f64())
        .fetch_one(&self.pool)
        .await?;
        let (is_settling, exceeds, opening) = row;
        let opening = match opening {
            // Another count has just opened it.
            None if exceeds => self.breaker().await?,
            opening => opening.map(|Json(opening)| opening),
        };
        Ok(Count { opening, is_settling })
    }

    /// Opens the breaker because these tenants have no object, and records it in their rows: they keep their access.
    /// Returns the opening, also if the breaker was open for another cause.
    pub async fn tenants_vanished(
        &self,
        ids: &[TenantId],
        detail: &str,
        now: Timestamp,
    ) -> Result<Option<Opening>> {
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        let open = sqlx::query_as(concat!(
            "WITH open AS (SELECT id, token, cause, detail FROM breaker WHERE acknowledged_at IS NULL),
             opened AS (
                 INSERT INTO breaker (opened_at, cause, detail)
                 SELECT $1, 'TenantsVanished', $2 WHERE NOT EXISTS (SELECT FROM open)
                 ON CONFLICT DO NOTHING RETURNING id, token, cause, detail),
             held AS (
                 UPDATE tenants SET vanished = 'Held' FROM opened
                 WHERE tenants.id = ANY ($3) AND status NOT IN ('deprovisioning', 'deprovisioned')),
             frozen AS (",
            freeze_tombstones!(),
            ") SELECT * FROM opened UNION ALL SELECT * FROM open"
        ))
        .bind(now.to_sqlx())
        .bind(detail)
        .bind(ids)
        .fetch_optional(&self.pool)
        .await?;
        Ok(open)
    }

    /// The objects of these tenants exist again.
    pub async fn tenants_found(&self, ids: &[TenantId]) -> Result<()> {
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        sqlx::query("UPDATE tenants SET vanished = NULL WHERE id = ANY ($1) AND vanished IS NOT NULL")
            .bind(ids)
            .execute(&self.pool)
            .await?;
        Ok(())
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
                 WHERE token = $1 AND acknowledged_at IS NULL RETURNING id, token, cause, opened_at),
             -- A purge that is due by now, or whose date was set just before, does not count again unless it is hastened.
             freed AS (
                 UPDATE tenants t SET frozen_by = NULL,
                     purge_acknowledged = CASE
                         WHEN t.purge_held IS NULL AND t.deletion_policy <> 'Retain' AND (t.purge_after <= $3
                             OR t.purge_hastened_at IS NOT NULL
                             OR c.cause IN ('MassDeletion', 'DefinitionDeleted', 'DefinitionReplaced')
                                 AND t.deprovisioned_at > c.opened_at - make_interval(secs => $4))
                         THEN t.purge_after ELSE t.purge_acknowledged END
                 FROM closed c
                 WHERE t.frozen_by IS NOT NULL AND t.status = 'deprovisioning'
                 RETURNING t.id),
             vanished AS (
                 UPDATE tenants t SET vanished = 'Acknowledged' FROM closed c
                 WHERE t.vanished = 'Held' AND t.status NOT IN ('deprovisioning', 'deprovisioned')
                 RETURNING t.id),
             logged AS (
                 INSERT INTO activity (action, actor, details)
                 SELECT 'BreakerAcknowledged', $2, jsonb_build_object('opening', id, 'token', token) FROM closed
                 -- Last: all rows without a tenant have one chain.
                 WHERE (SELECT count(*) FROM freed) + (SELECT count(*) FROM vanished) >= 0)
             SELECT EXISTS (SELECT FROM closed)",
        )
        .bind(token)
        .bind(actor)
        .bind(now.to_sqlx())
        .bind(WINDOW.as_secs_f64())
        .fetch_one(&self.pool)
        .await?;
        Ok(closed)
    }
}
