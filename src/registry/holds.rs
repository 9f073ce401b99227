//! Holds on a tenant, and the end of a trial or validity that was warned about.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::json;
use sqlx::types::Json;

use super::{
    Error, Registry, Result,
    deletions::{DeletedObject, is_of_deletion},
    record::*,
};
use crate::domain::{
    access::holds::{Hold, HoldActor},
    identity::TenantId,
    record::TenantRecord,
};

/// A change of a tenant's holds.
#[derive(Clone, Copy, Debug)]
pub struct HoldChange<'a> {
    /// All holds, as they were read.
    pub before: &'a [Hold],
    /// All holds after the change.
    pub after: &'a [Hold],
    /// The hold that is placed or lifted.
    pub hold: &'a Hold,
    /// Who changes it, unless the webhook recorded who deleted the object.
    pub actor: &'a str,
    /// The TenantHold whose deletion lifts it.
    pub deletion: Option<&'a DeletedObject>,
    /// Who placed it, if it is placed.
    pub placed_by: Option<&'a str>,
}

/// The holds of each column: those that restrict access, and the others.
pub(super) fn columns_of(holds: &[Hold]) -> (Vec<&Hold>, Vec<&Hold>) {
    holds.iter().partition(|hold| !hold.is_unrestricting())
}

impl Registry {
    /// Places or lifts a hold, with its row in the activity log. Returns none, and writes nothing, if the holds are not
    /// those that were read, or if a legal hold is placed and the purge has begun.
    pub async fn change_holds(&self, id: TenantId, change: &HoldChange<'_>) -> Result<Option<TenantRecord>> {
        let placed = change.after.iter().any(|hold| hold.name == change.hold.name);
        let action = if placed { "HoldPlaced" } else { "HoldLifted" };
        let mut details = json!({"hold": change.hold.name, "mode": change.hold.mode, "trigger": change.hold.trigger,
                "preserve": change.hold.preserve.is_some()});
        if !placed {
            // It is why the hold was placed, and not why it is lifted.
            details["placedFor"] = json!(change.hold.reason);
        }
        let recorded = change.after.iter().find(|hold| hold.name == change.hold.name);
        let placed_by = recorded.zip(change.placed_by);
        let placed_by = placed_by.map(|(hold, by)| Json(HoldActor { by: by.to_owned(), since: hold.since }));
        let (before, before_unrestricting) = columns_of(change.before);
        let (after, after_unrestricting) = columns_of(change.after);
        let record = sqlx::query_as(concat!(
            "WITH who AS (
                 SELECT coalesce((SELECT actor FROM deletion_actors WHERE ",
            is_of_deletion!("$14", "$15"),
            "), $5) AS actor),
             changed AS (
                 UPDATE tenants SET holds = $3, unrestricting_holds = $9,
                     hold_actors = CASE WHEN $12::jsonb IS NULL THEN hold_actors - $11::text
                         ELSE hold_actors || jsonb_build_object($11::text, $12::jsonb) END,
                     holds_changed_by = CASE WHEN $13 THEN (SELECT actor FROM who) ELSE holds_changed_by END
                 WHERE id = $1 AND holds = $2 AND unrestricting_holds = $8 AND status <> 'deprovisioned'
                   AND (purge_started_at IS NULL OR NOT $10) RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, details)
                 SELECT id, $4, who.actor, $6, $7 FROM changed, who)
             SELECT ",
            columns!(),
            " FROM changed AS tenants"
        ))
        .bind(id.0)
        .bind(Json(before))
        .bind(Json(after))
        .bind(action)
        .bind(change.actor)
        .bind(placed.then_some(&change.hold.reason))
        .bind(details)
        .bind(Json(before_unrestricting))
        .bind(Json(after_unrestricting))
        .bind(placed && change.hold.preserve.is_some())
        .bind(&change.hold.name)
        .bind(placed_by)
        .bind(!change.hold.is_unrestricting())
        .bind(change.deletion.map(|deleted| &deleted.uid))
        .bind(change.deletion.and_then(DeletedObject::time))
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
