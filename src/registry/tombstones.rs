//! Tombstones: what is recorded before a tenant is taken down, and all that is needed to finish that, or to undo it.

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use uuid::Uuid;

use super::{
    Registry, Result,
    lifecycle::{Found, settle},
    tenants::policy,
};
use crate::domain::{departure::Terms, identity::TenantId};

/// How far the registry's clock may be behind the operator's, before a purge is refused.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(10);

/// What a spec that holds a purge is called in `tenants.purge_held`.
const HELD_BY_SPEC: &str = "Paused";

/// Why and how a tenant goes away.
#[derive(Clone, Debug)]
pub struct Tombstone {
    /// Why, in the words of whoever asked for it.
    pub reason: Option<String>,
    /// `CustomerRequest`, `ContractEnd`, `NonPayment` or `TermsViolation`.
    pub trigger: String,
    /// When it began: the grace counts from here.
    pub at: Timestamp,
    /// When, and whether, the database may be dropped.
    pub terms: Terms,
    /// Who asked for it.
    pub actor: String,
}

/// What became of a tombstone that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Whether it was written now, and not before.
    pub now: bool,
    /// When it began, by the later of two clocks.
    pub at: Timestamp,
    /// From when on the database may be dropped: the whole grace after that.
    pub purge_after: Timestamp,
}

/// What became of an attempt to do what a tombstone waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// It is done, now or before, or may be done.
    Passed,
    /// By the registry's clock its time has not come.
    NotDue,
    /// The tombstone is not what it was: the tenant came back, or its terms changed.
    Changed,
}

impl Registry {
    /// Writes the tombstone: from here on the registry alone is enough to take the tenant down. A clock that is behind
    /// the registry's takes nothing of the grace.
    pub async fn begin_deprovisioning(
        &self,
        id: TenantId,
        tombstone: &Tombstone,
        correlation: Option<Uuid>,
    ) -> Result<Written> {
        type Row = (String, bool, Option<jiff_sqlx::Timestamp>, Option<jiff_sqlx::Timestamp>);
        let found: Option<Row> = sqlx::query_as(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET status = 'deprovisioning', status_reason = $2, offboarding_trigger = $3,
                     deprovisioned_at = greatest($4, now()),
                     purge_after = greatest($5, now() + ($5::timestamptz - $4::timestamptz)), deletion_policy = $6, status_updated_by = $7,
                     purge_held = $9, rolling_back = false
                 WHERE id = $1 AND status NOT IN ('deprovisioning', 'deprovisioned') RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
                 SELECT id, 'DeprovisioningBegun', $7, $2, $8, jsonb_build_object(
                     'trigger', offboarding_trigger, 'purgeAfter', purge_after, 'deletionPolicy', deletion_policy)
                 FROM changed)
             SELECT b.status, c.id IS NOT NULL, coalesce(c.deprovisioned_at, b.deprovisioned_at),
                 coalesce(c.purge_after, b.purge_after)
             FROM before b LEFT JOIN changed c ON true",
        )
        .bind(id.0)
        .bind(&tombstone.reason)
        .bind(&tombstone.trigger)
        .bind(tombstone.at.to_sqlx())
        .bind(tombstone.terms.purge_after.to_sqlx())
        .bind(policy(tombstone.terms.retain))
        .bind(&tombstone.actor)
        .bind(correlation)
        .bind(tombstone.terms.held.then_some(HELD_BY_SPEC))
        .fetch_optional(&self.pool)
        .await?;
        let now = found.as_ref().map(|(status, now, ..)| (status.clone(), *now));
        let now = settle(id, "deprovisioning", &["deprovisioning"], now)?;
        let stored =
            |time: Option<jiff_sqlx::Timestamp>, otherwise| time.map_or(otherwise, |time| time.to_jiff());
        let (at, purge_after) = found.map_or((None, None), |(_, _, at, purge_after)| (at, purge_after));
        Ok(Written {
            now,
            at: stored(at, tombstone.at),
            purge_after: stored(purge_after, tombstone.terms.purge_after),
        })
    }

    /// Changes the terms of a tombstone whose purge has not begun.
    pub async fn change_terms(&self, id: TenantId, terms: Terms, correlation: Uuid) -> Result<bool> {
        let found: Found = sqlx::query_as(
            "WITH before AS (SELECT status FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET purge_after = $2, deletion_policy = $3, purge_held = $4
                 WHERE id = $1 AND status = 'deprovisioning' AND purge_started_at IS NULL
                   AND (purge_after, deletion_policy, purge_held) IS DISTINCT FROM ($2, $3, $4) RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT id, 'TermsChanged', 'unknown', $5, jsonb_build_object(
                     'purgeAfter', purge_after, 'deletionPolicy', deletion_policy, 'heldBy', purge_held)
                 FROM changed)
             SELECT status, EXISTS (SELECT FROM changed) FROM before",
        )
        .bind(id.0)
        .bind(terms.purge_after.to_sqlx())
        .bind(policy(terms.retain))
        .bind(terms.held.then_some(HELD_BY_SPEC))
        .bind(correlation)
        .fetch_optional(&self.pool)
        .await?;
        settle(id, "deprovisioning", &["deprovisioning"], found)
    }

    /// Of a tombstone it is not known any more that its access is cut: it was seen to be open. Nothing is written of one
    /// that came back meanwhile.
    pub async fn doubt_cut(&self, id: TenantId) -> Result<bool> {
        let doubted = sqlx::query(
            "UPDATE tenants SET access = 'Unknown'
             WHERE id = $1 AND status = 'deprovisioning' AND access = 'Blocked'",
        )
        .bind(id.0)
        .execute(&self.pool)
        .await?;
        Ok(doubted.rows_affected() == 1)
    }

    /// Takes the tombstone back: the tenant is in use again, and cut off until its access is judged. Refused once the
    /// purge has begun.
    pub async fn reinstate(&self, id: TenantId, correlation: Uuid) -> Result<bool> {
        let found: Found = sqlx::query_as(
            "WITH before AS (SELECT status FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET
                     status = CASE WHEN activated_at IS NULL THEN 'provisioning' ELSE 'suspended' END,
                     suspended_at = CASE WHEN activated_at IS NOT NULL THEN deprovisioned_at END,
                     status_reason = NULL, status_updated_by = 'unknown', offboarding_trigger = NULL,
                     deprovisioned_at = NULL, purge_after = NULL, purge_held = NULL
                 WHERE id = $1 AND status = 'deprovisioning' RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT id, 'Reinstated', 'unknown', $2, jsonb_build_object('status', status) FROM changed)
             SELECT status, EXISTS (SELECT FROM changed) FROM before",
        )
        .bind(id.0)
        .bind(correlation)
        .fetch_optional(&self.pool)
        .await?;
        settle(id, "active", &["active", "trial", "suspended", "provisioning"], found)
    }

    /// Records the point of no return, just before it is passed. `uid` is that of the Tenant as it was when this was
    /// decided; the registry's own clock must agree that the time has come, so that one clock that jumped drops
    /// nothing. `ahead` is how far the operator's clock was set ahead on purpose (zero outside of tests).
    pub async fn begin_purge(
        &self,
        id: TenantId,
        uid: &str,
        ahead: SignedDuration,
        correlation: Uuid,
    ) -> Result<Deadline> {
        let (begun, due): (bool, bool) = sqlx::query_as(
            "WITH before AS (
                 SELECT purge_started_at IS NOT NULL AS begun,
                     purge_after <= now() + make_interval(secs => $3) AS due
                 FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET purge_started_at = now()
                 WHERE id = $1 AND status = 'deprovisioning' AND resource_uid = $2 AND purge_started_at IS NULL
                   AND deletion_policy <> 'Retain' AND purge_held IS NULL
                   AND purge_after <= now() + make_interval(secs => $3) RETURNING id),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id)
                 SELECT id, 'PurgeBegun', 'tenantry', $4 FROM changed)
             SELECT EXISTS (SELECT FROM changed) OR coalesce((SELECT begun FROM before), false),
                    coalesce((SELECT due FROM before), true)",
        )
        .bind(id.0)
        .bind(uid)
        .bind(allowance(ahead))
        .bind(correlation)
        .fetch_one(&self.pool)
        .await?;
        Ok(deadline(begun, due))
    }

    /// Whether a tombstone may be closed without a purge, as its database is kept. Asked before anything of it goes;
    /// [`Registry::close`] asks again.
    pub async fn may_close(&self, id: TenantId, uid: &str, ahead: SignedDuration) -> Result<Deadline> {
        let (may, due): (bool, bool) = sqlx::query_as(
            "WITH row AS (
                 SELECT status = 'deprovisioning' AND resource_uid = $2 AND purge_held IS NULL AS may,
                     purge_after <= now() + make_interval(secs => $3) AS due
                 FROM tenants WHERE id = $1)
             SELECT coalesce((SELECT may AND due FROM row), false), coalesce((SELECT due FROM row), true)",
        )
        .bind(id.0)
        .bind(uid)
        .bind(allowance(ahead))
        .fetch_one(&self.pool)
        .await?;
        Ok(deadline(may, due))
    }

    /// Closes the row and writes the receipt, under the rules of [`Registry::begin_purge`]. Refused unless the tenant
    /// is deprovisioning and its database is either gone or retained.
    pub async fn close(
        &self,
        id: TenantId,
        uid: &str,
        ahead: SignedDuration,
        correlation: Uuid,
    ) -> Result<Deadline> {
        let found: Option<(String, bool, bool)> = sqlx::query_as(
            "WITH before AS (
                 SELECT status, status_updated_by, purge_started_at IS NOT NULL OR coalesce(
                     purge_after <= now() + make_interval(secs => $4), true) AS due
                 FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET status = 'deprovisioned', closed_at = now(), access = 'Blocked',
                     password_verifier = NULL, password_digest = NULL, status_updated_by = 'tenantry'
                 WHERE id = $1 AND status = 'deprovisioning' AND resource_uid = $3
                   AND (purge_started_at IS NOT NULL
                     OR purge_held IS NULL AND purge_after <= now() + make_interval(secs => $4))
                 RETURNING *),
             -- What is left to do is the object's; a process that is killed now leaves no workflow behind.
             ended AS (
                 UPDATE workflows SET finished_at = now(), outcome = 'Succeeded'
                 WHERE tenant_id IN (SELECT id FROM changed) AND finished_at IS NULL),
             receipt AS (
                 INSERT INTO deletion_receipts (tenant_id, slug, server, database_name, schema_name,
                     database_retained, offboarding_trigger, requested_by, reason, requested_at, correlation_id)
                 SELECT c.id, c.slug, c.server, c.database_name, c.schema_name, c.database_exists,
                     c.offboarding_trigger, b.status_updated_by, c.status_reason, c.deprovisioned_at, $2
                 FROM changed c, before b),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT id, 'Deprovisioned', 'tenantry', $2,
                     jsonb_build_object('database', database_name, 'retained', database_exists)
                 FROM changed)
             SELECT status, EXISTS (SELECT FROM changed), due FROM before",
        )
        .bind(id.0)
        .bind(correlation)
        .bind(uid)
        .bind(allowance(ahead))
        .fetch_optional(&self.pool)
        .await?;
        if let Some((status, false, due)) = &found
            && status == "deprovisioning"
        {
            return Ok(deadline(false, *due));
        }
        settle(id, "deprovisioned", &["deprovisioned"], found.map(|(status, changed, _)| (status, changed)))?;
        Ok(Deadline::Passed)
    }
}

/// By how many seconds the registry's clock may be behind.
fn allowance(ahead: SignedDuration) -> f64 {
    (CLOCK_TOLERANCE + ahead).as_secs_f64()
}

fn deadline(passed: bool, due: bool) -> Deadline {
    match (passed, due) {
        (true, _) => Deadline::Passed,
        (false, false) => Deadline::NotDue,
        (false, true) => Deadline::Changed,
    }
}
