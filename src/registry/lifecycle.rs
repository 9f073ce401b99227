//! Changes of a tenant's status, each with its row in the activity log, in one statement.
//!
//! Each can be repeated: if the tenant already has the requested status, nothing is written and the [`Update`] is not
//! `changed`. A transition that the lifecycle does not have is an [`Error::Transition`].

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use uuid::Uuid;

use super::{Error, Registry, Result, record::*};
use crate::domain::{
    access::AccessLevel,
    identity::TenantId,
    observed::RegistryStatus::{self, Active, Failed, Provisioning, Suspended, Trial},
};

/// The status of a tenant in use.
#[derive(Clone, Copy, Debug)]
pub struct NewState<'a> {
    /// `Trial`, `Active` or `Suspended`.
    pub to: RegistryStatus,
    /// Why the tenant is suspended.
    pub why: Option<&'a str>,
    /// The access level that was proven to be in force.
    pub access: AccessLevel,
    /// Who changed the status.
    pub actor: &'a str,
    /// The Tenant's generation, up to which the status accounts for its spec.
    pub generation: Option<i64>,
    /// When.
    pub at: Timestamp,
}

impl Registry {
    /// Activates the tenant, in the status that its access evaluation results in, and with the names of the gates that
    /// its plan has now. Activated tenants keep their `activated_at`.
    pub async fn activate(
        &self,
        id: TenantId,
        new: &NewState<'_>,
        default_gates: &[String],
        correlation: Uuid,
    ) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET status = $2, status_reason = $3, status_updated_by = 'tenantry',
                     suspended_at = CASE WHEN $2 = 'suspended' THEN $4 END, activated_at = $4, status_generation = $7,
                     holds_changed_by = NULL,
                     default_gates = to_jsonb($6::text[]),
                     -- A tenant without an open gate has done them all: a gate that is added later starts no trial.
                     gates_done_at = coalesce(gates_done_at,
                         CASE WHEN NOT jsonb_path_exists(gates, '$[*] ? (@.done == false)') THEN $4 END)
                 WHERE id = $1 AND status = 'provisioning' RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
                 SELECT id, 'Activated', 'tenantry', $3, $5, jsonb_build_object('status', $2::text) FROM changed)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(new.to.as_str())
        .bind(new.why)
        .bind(new.at.to_sqlx())
        .bind(correlation)
        .bind(default_gates)
        .bind(new.generation)
        .fetch_optional(&self.pool)
        .await?;
        settle(id, Active, &[Active, Trial, Suspended], update)
    }

    /// Records the status of a tenant in use after its access was evaluated and enforced. The same status with another
    /// reason is recorded too.
    pub async fn record_state(&self, id: TenantId, new: &NewState<'_>, correlation: Uuid) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET status = $2, status_reason = $3, status_updated_by = $5,
                     suspended_at = CASE WHEN $2 = 'suspended' THEN coalesce(suspended_at, $4) END,
                     status_generation = $8, holds_changed_by = NULL
                 WHERE id = $1 AND status IN ('trial', 'active', 'suspended')
                   AND (status, status_reason) IS DISTINCT FROM ($2, $3) RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
                 SELECT c.id, CASE WHEN b.status = $2 THEN 'SuspensionChanged' WHEN $2 = 'suspended' THEN 'Suspended'
                         WHEN b.status = 'suspended' THEN 'Resumed' WHEN $2 = 'trial' THEN 'TrialBegun'
                         ELSE 'TrialEnded' END,
                     $5, $3, $6, jsonb_build_object('from', b.status, 'to', $2::text, 'access', $7::text)
                 FROM before b, changed c)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(new.to.as_str())
        .bind(new.why)
        .bind(new.at.to_sqlx())
        .bind(new.actor)
        .bind(correlation)
        .bind(new.access.as_str())
        .bind(new.generation)
        .fetch_optional(&self.pool)
        .await?;
        settle(id, Active, &[Active, Trial, Suspended], update)
    }

    /// The first provisioning failed with a permanent error. `roll_back`: what it created has to be removed.
    pub async fn fail(
        &self,
        id: TenantId,
        reason: &str,
        roll_back: bool,
        correlation: Uuid,
    ) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET status = 'failed', status_reason = $2, status_updated_by = 'tenantry',
                     rolling_back = $4
                 WHERE id = $1 AND status = 'provisioning' RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, correlation_id)
                 SELECT id, 'Failed', 'tenantry', $2, $3 FROM changed)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(reason)
        .bind(correlation)
        .bind(roll_back)
        .fetch_optional(&self.pool)
        .await?;
        settle(id, Failed, &[Failed], update)
    }

    /// Everything that a failed first provisioning created is deleted: only its history stays recorded.
    pub async fn rolled_back(&self, id: TenantId, correlation: Uuid) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET rolling_back = false, database_exists = false, access = 'Blocked',
                     password_verifier = NULL, password_digest = NULL, module_versions = '{}', seed_digest = NULL,
                     entitlements = NULL
                 WHERE id = $1 AND rolling_back RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT id, 'RolledBack', 'tenantry', $2, jsonb_build_object('database', database_name) FROM changed)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(correlation)
        .fetch_optional(&self.pool)
        .await?;
        settle(id, Failed, &[Failed], update)
    }

    /// The first provisioning is tried again after a permanent error.
    pub async fn retry(&self, id: TenantId, correlation: Uuid) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET status = 'provisioning', status_reason = NULL, status_updated_by = 'tenantry'
                 WHERE id = $1 AND status = 'failed' AND NOT rolling_back RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id)
                 SELECT id, 'Retried', 'tenantry', $2 FROM changed)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(correlation)
        .fetch_optional(&self.pool)
        .await?;
        settle(id, Provisioning, &[Provisioning], update)
    }
}

/// Distinguishes a repeated request from one that the tenant's status does not allow. `already` are the statuses of a tenant for
/// which the request was fulfilled before.
pub(super) fn settle(
    id: TenantId,
    to: RegistryStatus,
    already: &[RegistryStatus],
    update: Option<Update>,
) -> Result<Update> {
    match update {
        None => Err(Error::NotFound(id)),
        Some(update) if update.changed || already.contains(&update.record.status) => Ok(update),
        Some(update) => Err(Error::Transition { tenant: id, from: update.record.status, to }),
    }
}
