//! Changes of a tenant's status, each with its row in the activity log, by one statement.
//!
//! Each can be repeated: where the tenant is already what it should become, nothing is written and `false` is
//! returned. A transition that a tenant's life does not have is an [`Error::Transition`].

use serde_json::Value;
use uuid::Uuid;

use super::{Error, Registry, Result};
use crate::domain::identity::TenantId;

/// An entry of the activity log.
#[derive(Clone, Debug)]
pub struct Activity<'a> {
    /// Whose.
    pub tenant: Option<TenantId>,
    /// What was done: one CamelCase word.
    pub action: &'a str,
    /// By whom.
    pub actor: &'a str,
    /// Why.
    pub reason: Option<&'a str>,
    /// What else is worth knowing: an object, without secrets.
    pub details: Value,
    /// The workflow that did it.
    pub correlation: Option<Uuid>,
}

/// What a statement of this module returns: the status it found, and whether it changed it.
pub(super) type Found = Option<(String, bool)>;

impl Registry {
    /// The tenant is handed out.
    pub async fn activate(&self, id: TenantId, correlation: Uuid) -> Result<bool> {
        let found = sqlx::query_as(
            "WITH before AS (SELECT status FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET status = 'active', status_reason = NULL, status_updated_by = 'tenantry'
                 WHERE id = $1 AND status = 'provisioning' RETURNING id),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id)
                 SELECT id, 'Activated', 'tenantry', $2 FROM changed)
             SELECT status, EXISTS (SELECT FROM changed) FROM before",
        )
        .bind(id.0)
        .bind(correlation)
        .fetch_optional(&self.pool)
        .await?;
        settle(id, "active", &["active", "trial", "suspended"], found)
    }

    /// The first provisioning met a permanent error. `roll_back`: what it made is to be removed.
    pub async fn fail(&self, id: TenantId, reason: &str, roll_back: bool, correlation: Uuid) -> Result<bool> {
        let found = sqlx::query_as(
            "WITH before AS (SELECT status FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET status = 'failed', status_reason = $2, status_updated_by = 'tenantry',
                     rolling_back = $4
                 WHERE id = $1 AND status = 'provisioning' RETURNING id),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, correlation_id)
                 SELECT id, 'Failed', 'tenantry', $2, $3 FROM changed)
             SELECT status, EXISTS (SELECT FROM changed) FROM before",
        )
        .bind(id.0)
        .bind(reason)
        .bind(correlation)
        .bind(roll_back)
        .fetch_optional(&self.pool)
        .await?;
        settle(id, "failed", &["failed"], found)
    }

    /// What a failed first provisioning made is gone: nothing is recorded of it any more but that it was.
    pub async fn rolled_back(&self, id: TenantId, correlation: Uuid) -> Result<bool> {
        let found = sqlx::query_as(
            "WITH before AS (SELECT status FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET rolling_back = false, database_exists = false, access = 'Blocked',
                     password_verifier = NULL, password_digest = NULL, module_versions = '{}', seed_digest = NULL
                 WHERE id = $1 AND rolling_back RETURNING id, database_name),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT id, 'RolledBack', 'tenantry', $2, jsonb_build_object('database', database_name) FROM changed)
             SELECT status, EXISTS (SELECT FROM changed) FROM before",
        )
        .bind(id.0)
        .bind(correlation)
        .fetch_optional(&self.pool)
        .await?;
        settle(id, "failed", &["failed"], found)
    }

    /// The first provisioning is tried again after a permanent error.
    pub async fn retry(&self, id: TenantId, correlation: Uuid) -> Result<bool> {
        let found = sqlx::query_as(
            "WITH before AS (SELECT status FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET status = 'provisioning', status_reason = NULL, status_updated_by = 'tenantry'
                 WHERE id = $1 AND status = 'failed' AND NOT rolling_back RETURNING id),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id)
                 SELECT id, 'Retried', 'tenantry', $2 FROM changed)
             SELECT status, EXISTS (SELECT FROM changed) FROM before",
        )
        .bind(id.0)
        .bind(correlation)
        .fetch_optional(&self.pool)
        .await?;
        settle(id, "provisioning", &["provisioning"], found)
    }

    /// Writes to the activity log.
    pub async fn activity(&self, entry: &Activity<'_>) -> Result<()> {
        sqlx::query(
            "INSERT INTO activity (tenant_id, action, actor, reason, details, correlation_id)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(entry.tenant.map(|id| id.0))
        .bind(entry.action)
        .bind(entry.actor)
        .bind(entry.reason)
        .bind(&entry.details)
        .bind(entry.correlation)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

pub(super) fn settle(id: TenantId, to: &'static str, already: &[&str], found: Found) -> Result<bool> {
    match found {
        None => Err(Error::NotFound(id)),
        Some((_, true)) => Ok(true),
        Some((from, false)) if already.contains(&from.as_str()) => Ok(false),
        Some((from, false)) => Err(Error::Transition { tenant: id, from, to }),
    }
}
