//! Changes of a tenant's status, each with its row in the activity log, by one statement.
//!
//! Each can be repeated: where the tenant is already what it should become, nothing is written and `false` is
//! returned. A transition that a tenant's life does not have is an [`Error::Transition`].

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::Value;
use uuid::Uuid;

use super::{Error, Registry, Result};
use crate::domain::{access::AccessLevel, identity::TenantId, observed::RegistryStatus};

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

/// A state that a tenant in use comes to.
#[derive(Clone, Copy, Debug)]
pub struct NewState<'a> {
    /// `Trial`, `Active` or `Suspended`.
    pub to: RegistryStatus,
    /// Why, while it is suspended.
    pub why: Option<&'a str>,
    /// What it may do, proven.
    pub access: AccessLevel,
    /// Who led to it.
    pub actor: &'a str,
    /// When.
    pub at: Timestamp,
}

/// What a statement of this module returns: the status it found, and whether it changed it.
pub(super) type Found = Option<(String, bool)>;

impl Registry {
    /// The tenant is handed out, in the state that its standing comes to, with the gates that its plan began it with;
    /// returns since when it is.
    pub async fn activate(
        &self,
        id: TenantId,
        new: &NewState<'_>,
        default_gates: &[String],
        correlation: Uuid,
    ) -> Result<Timestamp> {
        let row: Option<(String, bool, jiff_sqlx::Timestamp)> = sqlx::query_as(
            "WITH before AS (SELECT status, activated_at FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET status = $2, status_reason = $3, status_updated_by = 'tenantry',
                     suspended_at = CASE WHEN $2 = 'suspended' THEN $4 END, activated_at = $4,
                     default_gates = to_jsonb($6::text[]),
                     -- Who is let in without any gate was let in: one that comes later begins no trial anew.
                     gates_done_at = coalesce(gates_done_at,
                         CASE WHEN NOT jsonb_path_exists(gates, '$[*] ? (@.done == false)') THEN $4 END)
                 WHERE id = $1 AND status = 'provisioning' RETURNING id),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
                 SELECT id, 'Activated', 'tenantry', $3, $5, jsonb_build_object('status', $2::text) FROM changed)
             SELECT status, EXISTS (SELECT FROM changed), coalesce(activated_at, $4) FROM before",
        )
        .bind(id.0)
        .bind(new.to.as_str())
        .bind(new.why)
        .bind(new.at.to_sqlx())
        .bind(correlation)
        .bind(default_gates)
        .fetch_optional(&self.pool)
        .await?;
        let since = row.as_ref().map_or(new.at, |(_, _, since)| since.to_jiff());
        let found = row.map(|(status, changed, _)| (status, changed));
        settle(id, "active", &["active", "trial", "suspended"], found).map(|_| since)
    }

    /// What a tenant in use may do was judged anew and put in force. A state that stays, for another reason, is recorded
    /// too.
    pub async fn record_state(&self, id: TenantId, new: &NewState<'_>, correlation: Uuid) -> Result<bool> {
        let found = sqlx::query_as(
            "WITH before AS (SELECT status, status_reason, suspended_at FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET status = $2, status_reason = $3, status_updated_by = $5,
                     suspended_at = CASE WHEN $2 = 'suspended' THEN coalesce(suspended_at, $4) END
                 WHERE id = $1 AND status IN ('trial', 'active', 'suspended')
                   AND (status, status_reason) IS DISTINCT FROM ($2, $3) RETURNING id),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
                 SELECT c.id, CASE WHEN b.status = $2 THEN 'SuspensionChanged' WHEN $2 = 'suspended' THEN 'Suspended'
                         WHEN b.status = 'suspended' THEN 'Resumed' WHEN $2 = 'trial' THEN 'TrialBegun'
                         ELSE 'TrialEnded' END,
                     $5, $3, $6, jsonb_build_object('from', b.status, 'to', $2::text, 'access', $7::text)
                 FROM changed c, before b)
             SELECT status, EXISTS (SELECT FROM changed) FROM before",
        )
        .bind(id.0)
        .bind(new.to.as_str())
        .bind(new.why)
        .bind(new.at.to_sqlx())
        .bind(new.actor)
        .bind(correlation)
        .bind(new.access.as_str())
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
                     password_verifier = NULL, password_digest = NULL, module_versions = '{}', seed_digest = NULL,
                     entitlements = NULL
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
