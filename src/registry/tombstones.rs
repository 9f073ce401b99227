//! Tombstones: recorded before a tenant is deprovisioned, with everything that is needed to finish that or to undo it.

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use sqlx::{FromRow, Row, postgres::PgRow};
use uuid::Uuid;

use super::{Error, Registry, Result, deletion_policy, lifecycle::settle, record::*};
use crate::{
    api::tenant::OffboardingTrigger,
    domain::{
        identity::TenantId,
        observed::RegistryStatus::{Active, Deprovisioned, Deprovisioning, Provisioning, Suspended, Trial},
        offboarding::PurgeTerms,
        record::TenantRecord,
    },
};

/// How far the registry's clock may be behind the operator's before a purge is refused.
pub(super) const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(10);

/// The value of `tenants.purge_held` for a purge that the spec holds.
const HELD_BY_SPEC: &str = "Paused";

/// Why and how a tenant is deprovisioned.
#[derive(Clone, Debug)]
pub struct Tombstone {
    /// The reason that the user gave.
    pub reason: Option<String>,
    /// What caused it.
    pub trigger: OffboardingTrigger,
    /// When deprovisioning began: the start of the grace period.
    pub at: Timestamp,
    /// When, and whether, the database may be dropped.
    pub terms: PurgeTerms,
    /// Who requested it.
    pub actor: String,
    /// The Tenant's generation, if it exists.
    pub generation: Option<i64>,
}

/// The registry's answer to a request that a tombstone's terms must allow.
#[derive(Clone, Debug, PartialEq)]
pub enum Deadline {
    /// It is done, now or before, or may be done. With the row as it is afterwards.
    Passed(Box<TenantRecord>),
    /// By the registry's clock the grace period is not over.
    NotDue,
    /// The tombstone has changed: the tenant was reinstated, or its terms changed.
    Changed,
}

/// What a statement under a tombstone's terms returns.
struct Attempt {
    update: Update,
    /// Whether the grace period is over by the registry's clock.
    due: bool,
}

/// What became of the end of a tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Closing {
    /// Whether its row is closed.
    pub deadline: Deadline,
    /// The slugs that were reserved for it, its own and its former ones: free once the row is closed.
    pub slugs: Vec<String>,
}

impl<'r> FromRow<'r, PgRow> for Attempt {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        Ok(Self { update: Update::from_row(row)?, due: row.try_get("due")? })
    }
}

impl Registry {
    /// Writes the tombstone: from here on the registry alone is enough to deprovision the tenant. If the operator's clock
    /// is behind the registry's, the grace period starts by the registry's clock and keeps its length.
    pub async fn begin_deprovisioning(
        &self,
        id: TenantId,
        tombstone: &Tombstone,
        correlation: Option<Uuid>,
    ) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET status = 'deprovisioning', status_reason = $2, offboarding_trigger = $3,
                     deprovisioned_at = greatest($4, now()),
                     purge_after = greatest($5, now() + ($5::timestamptz - $4::timestamptz)),
                     deletion_policy = $6, status_updated_by = $7, purge_held = $9, rolling_back = false,
                     status_generation = $10, holds_changed_by = NULL
                 WHERE id = $1 AND status NOT IN ('deprovisioning', 'deprovisioned') RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
                 SELECT id, 'DeprovisioningBegun', $7, $2, $8, jsonb_build_object(
                     'trigger', offboarding_trigger, 'purgeAfter', purge_after, 'deletionPolicy', deletion_policy)
                 FROM changed)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(&tombstone.reason)
        .bind(tombstone.trigger.as_str())
        .bind(tombstone.at.to_sqlx())
        .bind(tombstone.terms.purge_after.to_sqlx())
        .bind(deletion_policy(tombstone.terms.retain))
        .bind(&tombstone.actor)
        .bind(correlation)
        .bind(tombstone.terms.held.then_some(HELD_BY_SPEC))
        .bind(tombstone.generation)
        .fetch_optional(&self.pool)
        .await?;
        settle(id, Deprovisioning, &[Deprovisioning], update)
    }

    /// Changes the terms of a tombstone whose purge has not begun.
    pub async fn change_terms(
        &self,
        id: TenantId,
        terms: PurgeTerms,
        actor: &str,
        correlation: Uuid,
    ) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET purge_after = $2, deletion_policy = $3, purge_held = $4
                 WHERE id = $1 AND status = 'deprovisioning' AND purge_started_at IS NULL
                   AND (purge_after, deletion_policy, purge_held) IS DISTINCT FROM ($2, $3, $4) RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT id, 'TermsChanged', $6, $5, jsonb_build_object(
                     'purgeAfter', purge_after, 'deletionPolicy', deletion_policy, 'heldBy', purge_held)
                 FROM changed)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(terms.purge_after.to_sqlx())
        .bind(deletion_policy(terms.retain))
        .bind(terms.held.then_some(HELD_BY_SPEC))
        .bind(correlation)
        .bind(actor)
        .fetch_optional(&self.pool)
        .await?;
        settle(id, Deprovisioning, &[Deprovisioning], update)
    }

    /// The access to a tombstone's database was found granted although it is recorded as revoked: its access level is
    /// unknown. Returns none, and writes nothing, if the tenant was reinstated meanwhile.
    pub async fn doubt_revocation(&self, id: TenantId) -> Result<Option<TenantRecord>> {
        let record = sqlx::query_as(concat!(
            "WITH changed AS (
                 UPDATE tenants SET access = 'Unknown'
                 WHERE id = $1 AND status = 'deprovisioning' AND access = 'Blocked' RETURNING *)
             SELECT ",
            columns!(),
            " FROM changed AS tenants"
        ))
        .bind(id.0)
        .fetch_optional(&self.pool)
        .await?;
        Ok(record)
    }

    /// Removes the tombstone: the tenant is suspended until its access is evaluated, or is provisioned on if it was never
    /// activated. Refused once the purge has begun.
    pub async fn reinstate(&self, id: TenantId, actor: &str, correlation: Uuid) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET
                     status = CASE WHEN activated_at IS NULL THEN 'provisioning' ELSE 'suspended' END,
                     suspended_at = CASE WHEN activated_at IS NOT NULL THEN deprovisioned_at END,
                     status_reason = NULL, status_updated_by = $3, offboarding_trigger = NULL,
                     deprovisioned_at = NULL, purge_after = NULL, purge_held = NULL, status_generation = NULL
                 WHERE id = $1 AND status = 'deprovisioning' RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT id, 'Reinstated', $3, $2, jsonb_build_object('status', status) FROM changed)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(correlation)
        .bind(actor)
        .fetch_optional(&self.pool)
        .await?;
        settle(id, Active, &[Active, Trial, Suspended, Provisioning], update)
    }

    /// Records the point of no return, just before it is passed. `uid` is that of the Tenant for which the purge was
    /// decided. The registry's own clock must agree that the grace period is over, so that no single wrong clock drops a
    /// database. `ahead` is how far the operator's clock was set ahead on purpose (zero outside of tests).
    pub async fn begin_purge(
        &self,
        id: TenantId,
        uid: &str,
        ahead: SignedDuration,
        correlation: Uuid,
    ) -> Result<Deadline> {
        let attempt: Option<Attempt> = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET purge_started_at = now()
                 WHERE id = $1 AND status = 'deprovisioning' AND resource_uid = $2 AND purge_started_at IS NULL
                   AND deletion_policy <> 'Retain' AND purge_held IS NULL AND NOT legal_hold
                   AND purge_after <= now() + make_interval(secs => $3) RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id)
                 SELECT id, 'PurgeBegun', 'tenantry', $4 FROM changed)
             SELECT changed, coalesce(purge_after <= now() + make_interval(secs => $3), true) AS due, ",
            columns!(),
            row_afterwards!()
        ))
        .bind(id.0)
        .bind(uid)
        .bind(allowance(ahead))
        .bind(correlation)
        .fetch_optional(&self.pool)
        .await?;
        Ok(attempt.map_or(Deadline::Changed, |Attempt { update, due }| {
            let begun = update.record.purge_started_at.is_some();
            deadline(begun, due, update.record)
        }))
    }

    /// Whether a tombstone may be closed without a purge, as its database is kept. Asked before anything of it is
    /// deleted; [`Registry::close`] checks again.
    pub async fn may_close(&self, id: TenantId, uid: &str, ahead: SignedDuration) -> Result<Deadline> {
        let row = sqlx::query(concat!(
            "SELECT status = 'deprovisioning' AND resource_uid = $2 AND purge_held IS NULL AND NOT legal_hold
                     AND purge_after IS NOT NULL AS open,
                 coalesce(purge_after <= now() + make_interval(secs => $3), true) AS due, ",
            columns!(),
            " FROM tenants WHERE id = $1"
        ))
        .bind(id.0)
        .bind(uid)
        .bind(allowance(ahead))
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(Deadline::Changed) };
        let (open, due): (bool, bool) = (row.try_get("open")?, row.try_get("due")?);
        Ok(deadline(open && due, due, TenantRecord::from_row(&row)?))
    }

    /// Closes the row and writes the receipt, under the rules of [`Registry::begin_purge`]. Refused unless the tenant is
    /// being deprovisioned and its database is either dropped or retained.
    pub async fn close(
        &self,
        id: TenantId,
        uid: &str,
        ahead: SignedDuration,
        correlation: Uuid,
    ) -> Result<Closing> {
        let row: Option<PgRow> = sqlx::query(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET status = 'deprovisioned', closed_at = now(), access = 'Blocked',
                     password_verifier = NULL, password_digest = NULL, previous_login = NULL, previous_login_oid = NULL,
                     previous_verifier = NULL, previous_login_since = NULL, previous_login_until = NULL,
                     reader_login = NULL, reader_login_oid = NULL, reader_verifier = NULL, reader_digest = NULL,
                     reader_issued_at = NULL, status_updated_by = 'tenantry'
                 WHERE id = $1 AND status = 'deprovisioning' AND resource_uid = $3
                   AND (purge_started_at IS NOT NULL
                     OR purge_held IS NULL AND NOT legal_hold
                       AND purge_after <= now() + make_interval(secs => $4))
                 RETURNING *),
             -- Only the object's finalizer is left; a process that is killed now leaves no open workflow.
             ended AS (
                 UPDATE workflows SET finished_at = now(), outcome = 'Succeeded'
                 WHERE tenant_id IN (SELECT id FROM changed) AND finished_at IS NULL),
             receipt AS (
                 INSERT INTO deletion_receipts (tenant_id, slug, server, database_name, schema_name,
                     database_retained, offboarding_trigger, requested_by, reason, requested_at, correlation_id)
                 SELECT c.id, c.slug, c.server, c.database_name, c.schema_name, c.database_exists,
                     c.offboarding_trigger, b.status_updated_by, c.status_reason, c.deprovisioned_at, $2
                 FROM before b, changed c),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT id, 'Deprovisioned', 'tenantry', $2,
                     jsonb_build_object('database', database_name, 'retained', database_exists)
                 FROM changed)
             SELECT changed, purge_started_at IS NOT NULL
                 OR coalesce(purge_after <= now() + make_interval(secs => $4), true) AS due,
                 -- As this statement's snapshot has it: before the row is closed.
                 ARRAY(SELECT h.slug FROM slug_history h WHERE h.tenant_id = $1 AND h.reserved) AS slugs, ",
            own_columns!(),
            // This statement's snapshot does not show that it ends the workflow.
            workflow_columns!(" AND NOT changed"),
            usage_columns!(),
            row_afterwards!()
        ))
        .bind(id.0)
        .bind(correlation)
        .bind(uid)
        .bind(allowance(ahead))
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Err(Error::NotFound(id)) };
        let (Attempt { update, due }, slugs) = (Attempt::from_row(&row)?, row.try_get("slugs")?);
        if update.record.status == Deprovisioning {
            let deadline = if due { Deadline::Changed } else { Deadline::NotDue };
            return Ok(Closing { deadline, slugs });
        }
        let update = settle(id, Deprovisioned, &[Deprovisioned], Some(update))?;
        Ok(Closing { deadline: Deadline::Passed(Box::new(update.record)), slugs })
    }
}

/// By how many seconds the registry's clock may be behind.
fn allowance(ahead: SignedDuration) -> f64 {
    (CLOCK_TOLERANCE + ahead).as_secs_f64()
}

fn deadline(passed: bool, due: bool, record: TenantRecord) -> Deadline {
    match (passed, due) {
        (true, _) => Deadline::Passed(Box::new(record)),
        (false, false) => Deadline::NotDue,
        (false, true) => Deadline::Changed,
    }
}
