//! Reading tenants' rows.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::{FromRow, Row};

use super::{Registry, Result, record::*};
use crate::domain::{
    identity::TenantId,
    known_rows::{CHECKSUM_MODULUS, ChangedRows},
    observed::RegistryStatus,
    record::TenantRecord,
};

impl Registry {
    /// The row of the Tenant with this uid: the open one, else the last closed one, so that a finished deletion is
    /// recognized as finished.
    pub async fn by_resource(&self, namespace: &str, name: &str, uid: &str) -> Result<Option<TenantRecord>> {
        let row = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM tenants WHERE resource_uid = $3 AND resource_namespace = $1 AND resource_name = $2
              ORDER BY status = 'deprovisioned', created_at DESC LIMIT 1"
        ))
        .bind(namespace)
        .bind(name)
        .bind(uid)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row)
    }

    /// The open row of a Tenant that was applied again and is not registered yet: the same namespace, name and slug, with
    /// the uid of the former object.
    pub async fn former(&self, namespace: &str, name: &str, slug: &str) -> Result<Option<TenantRecord>> {
        let row = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM tenants WHERE slug = $3 AND resource_namespace = $1 AND resource_name = $2
              AND status <> 'deprovisioned'"
        ))
        .bind(namespace)
        .bind(name)
        .bind(slug)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row)
    }

    /// The rows of the Tenants that have or had this name, the newest first: all open ones, else the last closed one.
    pub async fn by_name(&self, namespace: &str, name: &str) -> Result<Vec<TenantRecord>> {
        let mut rows: Vec<TenantRecord> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM tenants WHERE resource_namespace = $1 AND resource_name = $2
              ORDER BY status = 'deprovisioned', created_at DESC"
        ))
        .bind(namespace)
        .bind(name)
        .fetch_all(&self.pool)
        .await?;
        let open = rows.iter().filter(|row| row.status != RegistryStatus::Deprovisioned).count();
        rows.truncate(open.max(1));
        Ok(rows)
    }

    /// The row with this id.
    pub async fn by_id(&self, id: TenantId) -> Result<Option<TenantRecord>> {
        let row = sqlx::query_as(concat!("SELECT ", columns!(), " FROM tenants WHERE id = $1"))
            .bind(id.0)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row)
    }

    /// All rows that are not closed.
    pub async fn all_registered(&self) -> Result<Vec<TenantRecord>> {
        let rows =
            sqlx::query_as(concat!("SELECT ", columns!(), " FROM tenants WHERE status <> 'deprovisioned'"))
                .fetch_all(&self.pool)
                .await?;
        Ok(rows)
    }

    /// The rows that were changed since then, closed ones included; with `None`, those that are not closed, or whose
    /// database is retained. One statement, so that the numbers are those of the same moment.
    pub async fn changed_since(&self, since: Option<Timestamp>) -> Result<ChangedRows> {
        let read = sqlx::query(concat!(
            "SELECT e.read_at, e.rows_in_all, e.checksum, tenants.id IS NOT NULL AS is_row, ",
            columns!(),
            " FROM (SELECT now() AS read_at, count(*) AS rows_in_all, coalesce(sum(
                        (extract(epoch FROM updated_at) * 1000000)::bigint % $2), 0)::bigint AS checksum
                    FROM tenants WHERE status <> 'deprovisioned' OR database_exists) AS e
              LEFT JOIN tenants ON tenants.updated_at >= coalesce($1, '-infinity'::timestamptz)
                  AND ($1 IS NOT NULL OR status <> 'deprovisioned' OR database_exists)"
        ))
        .bind(since.map(|since| since.to_sqlx()))
        .bind(CHECKSUM_MODULUS)
        .fetch_all(&self.pool)
        .await?;
        let first = read.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(ChangedRows {
            at: first.try_get::<jiff_sqlx::Timestamp, _>("read_at")?.to_jiff(),
            count: first.try_get("rows_in_all")?,
            checksum: first.try_get("checksum")?,
            rows: match first.try_get("is_row")? {
                true => read.iter().map(TenantRecord::from_row).collect::<sqlx::Result<_>>()?,
                false => Vec::new(),
            },
        })
    }

    /// Those of the given tenants that have a row.
    pub async fn known(&self, ids: &[TenantId]) -> Result<HashMap<TenantId, KnownTenant>> {
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        let known: Vec<(uuid::Uuid, bool)> = sqlx::query_as(
            "SELECT id, status = 'deprovisioned' AND NOT database_exists FROM tenants WHERE id = ANY ($1)",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await?;
        let kind = |dropped| if dropped { KnownTenant::Dropped } else { KnownTenant::Other };
        Ok(known.into_iter().map(|(id, dropped)| (TenantId(id), kind(dropped))).collect())
    }

    /// The number of tenants that have, or will have, a database on this server. Retained databases count.
    pub async fn count_by_server(&self, server: &str) -> Result<i64> {
        let count = sqlx::query_scalar(
            "SELECT count(*) FROM tenants WHERE server = $1 AND (database_exists OR status <> 'deprovisioned')",
        )
        .bind(server)
        .fetch_one(&self.pool)
        .await?;
        Ok(count)
    }

    /// Some of the tenants' databases on this server, in any order.
    pub async fn some_databases_on(&self, server: &str) -> Result<Vec<String>> {
        let databases = sqlx::query_scalar(
            "SELECT database_name FROM tenants WHERE server = $1 AND database_exists ORDER BY random() LIMIT 60",
        )
        .bind(server)
        .fetch_all(&self.pool)
        .await?;
        Ok(databases)
    }

    /// The number of tenants in each status; every status is included.
    pub async fn count_by_status(&self) -> Result<BTreeMap<&'static str, i64>> {
        let counted: Vec<(String, i64)> =
            sqlx::query_as("SELECT status, count(*) FROM tenants GROUP BY status")
                .fetch_all(&self.pool)
                .await?;
        let mut counts: BTreeMap<_, _> =
            RegistryStatus::ALL.into_iter().map(|status| (status.as_str(), 0)).collect();
        for (status, count) in counted {
            if let Some(entry) = counts.get_mut(status.as_str()) {
                *entry = count;
            }
        }
        Ok(counts)
    }
}

/// What the registry knows of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownTenant {
    /// It is deprovisioned, and its database is dropped.
    Dropped,
    /// It has, or may have, a database.
    Other,
}
