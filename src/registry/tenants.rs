//! Reading tenants' rows.

use std::collections::{BTreeMap, HashMap};

use super::{Registry, Result, record::*};
use crate::domain::{identity::TenantId, observed::RegistryStatus, record::TenantRecord};

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

    /// The closed rows whose database is retained.
    pub async fn all_retained(&self) -> Result<Vec<TenantRecord>> {
        let rows = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM tenants WHERE status = 'deprovisioned' AND database_exists"
        ))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }

    /// Those of the given tenants that have a row.
    pub async fn known(&self, ids: &[TenantId]) -> Result<HashMap<TenantId, Known>> {
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        let known: Vec<(uuid::Uuid, bool)> = sqlx::query_as(
            "SELECT id, status = 'deprovisioned' AND NOT database_exists FROM tenants WHERE id = ANY ($1)",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await?;
        let kind = |dropped| if dropped { Known::Dropped } else { Known::Other };
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
pub enum Known {
    /// It is deprovisioned, and its database is dropped.
    Dropped,
    /// It has, or may have, a database.
    Other,
}
