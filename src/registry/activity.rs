//! The activity log.

use serde_json::Value;
use uuid::Uuid;

use super::{Registry, Result};
use crate::domain::identity::TenantId;

/// An entry of the activity log.
#[derive(Clone, Debug)]
pub struct Activity<'a> {
    /// The tenant it is about.
    pub tenant: Option<TenantId>,
    /// What was done, in CamelCase.
    pub action: &'a str,
    /// Who did it.
    pub actor: &'a str,
    /// Why.
    pub reason: Option<&'a str>,
    /// Further facts: an object, without secrets.
    pub details: Value,
    /// The workflow that did it.
    pub correlation: Option<Uuid>,
}

impl Registry {
    /// Adds an entry to the activity log.
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
