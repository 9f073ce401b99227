//! Runs of applications' own migration tools.

use sqlx::types::Json;
use uuid::Uuid;

use super::{Registry, Result};
use crate::domain::{migration_login::MigrationOwner, stored_run::StoredRun};

impl Registry {
    /// The runs that have not been wound up, or whose failure was not reported yet.
    pub async fn migration_runs(&self) -> Result<Vec<StoredRun>> {
        let rows: Vec<Json<StoredRun>> =
            sqlx::query_scalar("SELECT detail FROM migration_runs ORDER BY started_at")
                .fetch_all(&self.pool)
                .await?;
        Ok(rows.into_iter().map(|Json(run)| run).collect())
    }

    /// Records a run before its login is made, and after each change.
    pub async fn record_migration_run(&self, run: &StoredRun) -> Result<()> {
        let tenant = match &run.owner {
            MigrationOwner::Tenant(id) => Some(id.0),
            MigrationOwner::Template(_) => None,
        };
        sqlx::query(
            "INSERT INTO migration_runs (run, tenant_id, detail) VALUES ($1, $2, $3)
             ON CONFLICT (run) DO UPDATE SET detail = excluded.detail",
        )
        .bind(run.run)
        .bind(tenant)
        .bind(Json(run))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Forgets a run: nothing of it is left.
    pub async fn forget_migration_run(&self, run: Uuid) -> Result<()> {
        sqlx::query("DELETE FROM migration_runs WHERE run = $1").bind(run).execute(&self.pool).await?;
        Ok(())
    }
}
