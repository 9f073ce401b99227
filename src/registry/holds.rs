//! Holds on a tenant, and the end of a trial or validity that was warned about.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::json;
use sqlx::types::Json;

use super::{Error, Registry, Result, record::*};
use crate::domain::{access::holds::Hold, identity::TenantId, record::TenantRecord};

/// A change of a tenant's holds.
#[derive(Clone, Copy, Debug)]
pub struct HoldChange<'a> {
    /// All holds, as they were read.
    pub before: &'a [Hold],
    /// All holds after the change.
    pub after: &'a [Hold],
    /// The hold that is placed or lifted.
    pub hold: &'a Hold,
    /// Who changes it.
    pub actor: &'a str,
}

impl Registry {
    /// Places or lifts a hold, with its row in the activity log. Returns none, and writes nothing, if the holds are not
    /// those that were read.
    pub async fn change_holds(&self, id: TenantId, change: &HoldChange<'_>) -> Result<Option<TenantRecord>> {
        let placed = change.after.iter().any(|hold| hold.name == change.hold.name);
        let action = if placed { "HoldPlaced" } else { "HoldLifted" };
        let details =
            json!({"hold": change.hold.name, "mode": change.hold.mode, "trigger": change.hold.trigger});
        let record = sqlx::query_as(concat!(
            "WITH changed AS (
                 UPDATE tenants SET holds = $3
                 WHERE id = $1 AND holds = $2 AND status <> 'deprovisioned' RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, details)
                 SELECT id, $4, $5, $6, $7 FROM changed)
             SELECT ",
            columns!(),
            " FROM changed AS tenants"
        ))
        .bind(id.0)
        .bind(Json(change.before))
        .bind(Json(change.after))
        .bind(action)
        .bind(change.actor)
        .bind(&change.hold.reason)
        .bind(details)
        .fetch_optional(&self.pool)
        .await?;
        Ok(record)
    }

    /// Records the end, of a trial or of the validity, that the user was warned about.
    pub async fn record_end_warning(&self, id: TenantId, end: Timestamp) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1),
             changed AS (
                 UPDATE tenants SET warned_of = $2 WHERE id = $1 AND warned_of IS DISTINCT FROM $2 RETURNING *)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(end.to_sqlx())
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }
}
