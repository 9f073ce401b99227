//! What a plan gives a tenant, and what the tenant uses of it.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Error, Registry, Result};
use crate::domain::{
    gates::Gate,
    identity::TenantId,
    limits::{Amounts, Entitlements},
};

/// What a spec declares, as the registry mirrors it.
#[derive(Clone, Copy, Debug)]
pub struct Declared<'a> {
    /// The customer's name for people.
    pub name: &'a str,
    /// The settings, an object.
    pub settings: &'a Value,
    /// Whether the database outlives the tenant.
    pub retain: bool,
    /// The gates that count, by name.
    pub gates: &'a [Gate],
    /// When there are some and all are done: now. The first such time is kept.
    pub gates_done_at: Option<Timestamp>,
}

/// A plan that was put in force.
#[derive(Clone, Copy, Debug)]
pub struct NewPlan<'a> {
    /// What it gives.
    pub entitlements: &'a Entitlements,
    /// What is used of it.
    pub usage: &'a Amounts,
    /// When that was measured.
    pub at: Timestamp,
    /// Who led to it.
    pub actor: &'a str,
}

impl Registry {
    /// Records what is in force in the tenant's database from now on, with one row in the activity log that has the old
    /// and the new, and what is used of it; returns whether anything else than the usage differs. The first plan of a
    /// tenant replaces none, and is not logged.
    pub async fn record_entitlements(
        &self,
        id: TenantId,
        new: &NewPlan<'_>,
        correlation: Uuid,
    ) -> Result<bool> {
        let (changed, _): (bool, bool) = sqlx::query_as(
            "WITH before AS (SELECT entitlements FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET plan = $2, entitlements = $3
                 WHERE id = $1 AND (plan, entitlements) IS DISTINCT FROM ($2, $3) RETURNING id),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT c.id, 'PlanChanged', $7, $4, jsonb_build_object('from', b.entitlements, 'to', $3::jsonb)
                 FROM changed c, before b WHERE b.entitlements IS NOT NULL)
             SELECT EXISTS (SELECT FROM changed), record_usage($1, $5, $6) FROM before",
        )
        .bind(id.0)
        .bind(&new.entitlements.plan)
        .bind(Json(new.entitlements))
        .bind(correlation)
        .bind(Json(new.usage))
        .bind(new.at.to_sqlx())
        .bind(new.actor)
        .fetch_optional(&self.pool)
        .await?
        .ok_or(Error::NotFound(id))?;
        Ok(changed)
    }

    /// Forgets what was put into a database that is about to be made anew: its seed and its limits. Of a tenant that was
    /// handed out nothing is.
    pub async fn forget_contents(&self, id: TenantId) -> Result<()> {
        sqlx::query(
            "UPDATE tenants SET seed_digest = NULL, entitlements = NULL WHERE id = $1 AND activated_at IS NULL",
        )
        .bind(id.0)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Records the digest of what was seeded, and what the tenant uses since.
    pub async fn record_seed(
        &self,
        id: TenantId,
        digest: &str,
        usage: &Amounts,
        at: Timestamp,
    ) -> Result<()> {
        sqlx::query(
            "WITH seeded AS (UPDATE tenants SET seed_digest = $2 WHERE id = $1 AND seed_digest IS DISTINCT FROM $2)
             SELECT record_usage($1, $3, $4)",
        )
        .bind(id.0)
        .bind(digest)
        .bind(Json(usage))
        .bind(at.to_sqlx())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// How many rows had been written in each tenant's database when its counters were read; none of those whose never
    /// were.
    pub async fn counted(&self) -> Result<HashMap<TenantId, i64>> {
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT u.tenant_id, u.counted_at_writes FROM usage u JOIN tenants t ON t.id = u.tenant_id
             WHERE t.status <> 'deprovisioned' AND u.counted_at_writes IS NOT NULL",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|(id, writes)| (TenantId(id), writes)).collect())
    }

    /// Records how many rows had been written in several tenants' databases when their counters were read.
    pub async fn record_counted(&self, writes: &[(TenantId, i64)]) -> Result<()> {
        if writes.is_empty() {
            return Ok(());
        }
        let (ids, writes): (Vec<Uuid>, Vec<i64>) = writes.iter().map(|(id, writes)| (id.0, *writes)).unzip();
        sqlx::query(
            "UPDATE usage u SET counted_at_writes = n.writes
             FROM unnest($1::uuid[], $2::bigint[]) AS n (id, writes)
             WHERE u.tenant_id = n.id AND u.counted_at_writes IS DISTINCT FROM n.writes",
        )
        .bind(ids)
        .bind(writes)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Records what several tenants use, by one statement: what is measured replaces what was, by name, and counts for
    /// the day.
    pub async fn record_usage(&self, measured: &[(TenantId, Amounts)], at: Timestamp) -> Result<()> {
        if measured.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = measured.iter().map(|(id, _)| id.0).collect();
        let amounts: Vec<_> = measured.iter().map(|(_, amounts)| Json(amounts)).collect();
        sqlx::query(
            // One that the registry does not know spoils nothing for the others.
            "SELECT record_usage(t.id, n.amounts, $3)
             FROM unnest($1::uuid[], $2::jsonb[]) AS n (id, amounts) JOIN tenants t USING (id) ORDER BY t.id",
        )
        .bind(ids)
        .bind(amounts)
        .bind(at.to_sqlx())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
