//! The entitlements in force in a tenant's database, and the contents that it was seeded with.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Error, Registry, Result, record::*};
use crate::domain::{
    identity::TenantId,
    usage::entitlements::{Amounts, Entitlements},
};

/// A plan that was put in force.
#[derive(Clone, Copy, Debug)]
pub struct NewPlan<'a> {
    /// The entitlements in force from now on.
    pub entitlements: &'a Entitlements,
    /// The usage that was measured with it.
    pub usage: &'a Amounts,
    /// When it was measured.
    pub at: Timestamp,
    /// Who changed the plan.
    pub actor: &'a str,
}

/// The end of a statement that also records the usage `$measured` at `$at` of the tenant `$1`: returns an [`Update`].
macro_rules! update_with_usage {
    ($measured:literal, $at:literal) => {
        concat!(
            " SELECT changed, ",
            own_columns!(),
            workflow_columns!(),
            usage_columns!($measured, $at),
            ", record_usage($1, ",
            $measured,
            "::jsonb, ",
            $at,
            "::timestamptz) ",
            row_afterwards!()
        )
    };
}

impl Registry {
    /// Records the entitlements in force in the tenant's database, and its usage, with one row in the activity log that
    /// has the old and the new entitlements. The first plan of a tenant replaces none, and is not logged. `changed`
    /// says whether plan or entitlements changed.
    pub async fn record_entitlements(
        &self,
        id: TenantId,
        new: &NewPlan<'_>,
        correlation: Uuid,
    ) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET plan = $2, entitlements = $3
                 WHERE id = $1 AND (plan, entitlements) IS DISTINCT FROM ($2, $3) RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT c.id, 'PlanChanged', $7, $4, jsonb_build_object('from', b.entitlements, 'to', $3::jsonb)
                 FROM before b, changed c WHERE b.entitlements IS NOT NULL)",
            update_with_usage!("$5", "$6")
        ))
        .bind(id.0)
        .bind(&new.entitlements.plan)
        .bind(Json(new.entitlements))
        .bind(correlation)
        .bind(Json(new.usage))
        .bind(new.at.to_sqlx())
        .bind(new.actor)
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Clears what is recorded of the contents of a database that is about to be recreated: its seed and its
    /// entitlements. Of a tenant that was activated, nothing is cleared.
    pub async fn forget_contents(&self, id: TenantId) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1),
             changed AS (
                 UPDATE tenants SET seed_digest = NULL, entitlements = NULL
                 WHERE id = $1 AND activated_at IS NULL RETURNING *)",
            update_columns!()
        ))
        .bind(id.0)
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Records the digest of the seed, and the tenant's usage with it. `changed` is about the digest alone.
    pub async fn record_seed(
        &self,
        id: TenantId,
        digest: &str,
        usage: &Amounts,
        at: Timestamp,
    ) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1),
             changed AS (
                 UPDATE tenants SET seed_digest = $2 WHERE id = $1 AND seed_digest IS DISTINCT FROM $2 RETURNING *)",
            update_with_usage!("$3", "$4")
        ))
        .bind(id.0)
        .bind(digest)
        .bind(Json(usage))
        .bind(at.to_sqlx())
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }
}
