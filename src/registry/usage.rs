//! The measured usage of tenants.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Registry, Result};
use crate::domain::{
    identity::TenantId,
    usage::{entitlements::Amounts, thresholds::WarnedLimits},
};

impl Registry {
    /// The number of rows that had been written in each tenant's database when its counters were last read. Tenants whose
    /// counters were never read are left out.
    pub async fn counted_writes(&self) -> Result<HashMap<TenantId, i64>> {
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT u.tenant_id, u.counted_at_writes FROM usage u JOIN tenants t ON t.id = u.tenant_id
             WHERE t.status <> 'deprovisioned' AND u.counted_at_writes IS NOT NULL",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|(id, writes)| (TenantId(id), writes)).collect())
    }

    /// Records the number of rows that had been written in several tenants' databases when their counters were read.
    pub async fn record_counted_writes(&self, writes: &[(TenantId, i64)]) -> Result<()> {
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

    /// Records the usage of several tenants in one statement. Each measured amount replaces the recorded one, and counts
    /// for its day.
    pub async fn record_usage(&self, measured: &[(TenantId, Amounts)], at: Timestamp) -> Result<()> {
        if measured.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = measured.iter().map(|(id, _)| id.0).collect();
        let amounts: Vec<_> = measured.iter().map(|(_, amounts)| Json(amounts)).collect();
        sqlx::query(
            // An unknown tenant must not fail the statement for the others.
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

    /// Records the limits that the user was warned about, of a tenant whose usage is recorded. Nothing is written if they
    /// are the same.
    pub async fn record_warned_limits(&self, id: TenantId, warned: &WarnedLimits) -> Result<()> {
        sqlx::query(
            "UPDATE usage SET warned_limits = $2 WHERE tenant_id = $1 AND warned_limits IS DISTINCT FROM $2",
        )
        .bind(id.0)
        .bind(Json(warned))
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
