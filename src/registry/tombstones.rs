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

/// What became of an attempt to begin a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeStart {
    /// It has begun, now or before: there is no way back.
    Begun,
    /// By the registry's clock its time has not come.
    NotDue,
    /// The tombstone is not what it was: the tenant came back, or its terms changed.
    Changed,
}

impl Registry {
    /// Writes the tombstone: from here on the registry alone is enough to take the tenant down.
    pub async fn begin_deprovisioning(
        &self,
        id: TenantId,
        tombstone: &Tombstone,
        correlation: Option<Uuid>,
    ) -> Result<bool> {
        let found: Found = sqlx::query_as(
            "WITH before AS (SELECT status FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET status = 'deprovisioning', status_reason = $2, offboarding_trigger = $3,
                     deprovisioned_at = $4, purge_after = $5, deletion_policy = $6, status_updated_by = $7,
                     purge_held = $9, rolling_back = false
                 WHERE id = $1 AND status NOT IN ('deprovisioning', 'deprovisioned') RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
                 SELECT id, 'DeprovisioningBegun', $7, $2, $8, jsonb_build_object(
                     'trigger', offboarding_trigger, 'purgeAfter', purge_after, 'deletionPolicy', deletion_policy)
                 FROM changed)
             SELECT status, EXISTS (SELECT FROM changed) FROM before",
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
        settle(id, "deprovisioning", &["deprovisioning"], found)
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
    ) -> Result<PurgeStart> {
        let allowance = (CLOCK_TOLERANCE + ahead).as_secs_f64();
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
        .bind(allowance)
        .bind(correlation)
        .fetch_one(&self.pool)
        .await?;
        Ok(match (begun, due) {
            (true, _) => PurgeStart::Begun,
            (false, false) => PurgeStart::NotDue,
            (false, true) => PurgeStart::Changed,
        })
    }
}
