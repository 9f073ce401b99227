//! What decides on a tenant's access beside its spec: holds, and the use that is made of it.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::json;
use sqlx::types::Json;

use super::{Registry, Result};
use crate::domain::{hold::Hold, identity::TenantId};

/// A change of a tenant's holds.
#[derive(Clone, Copy, Debug)]
pub struct HoldChange<'a> {
    /// Them all, as they were read.
    pub before: &'a [Hold],
    /// Them all, as they are to be.
    pub after: &'a [Hold],
    /// The one that differs.
    pub hold: &'a Hold,
    /// Who changes it.
    pub actor: &'a str,
}

/// What was seen of the sessions in one tenant's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionsSeen {
    /// Whose.
    pub tenant: TenantId,
    /// How many PostgreSQL has counted.
    pub sessions: i64,
    /// Whether the time since which nobody uses it begins anew: somebody did, or it is looked at for the first time.
    pub used: bool,
}

impl Registry {
    /// Puts or lifts a hold, with its row in the activity log. `false`: the holds are not what they were read as, and
    /// nothing was written.
    pub async fn change_holds(&self, id: TenantId, change: &HoldChange<'_>) -> Result<bool> {
        let placed = change.after.iter().any(|hold| hold.name == change.hold.name);
        let action = if placed { "HoldPlaced" } else { "HoldLifted" };
        let details =
            json!({"hold": change.hold.name, "mode": change.hold.mode, "trigger": change.hold.trigger});
        let (changed,) = sqlx::query_as(
            "WITH changed AS (
                 UPDATE tenants SET holds = $3
                 WHERE id = $1 AND holds = $2 AND status <> 'deprovisioned' RETURNING id),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, details)
                 SELECT id, $4, $5, $6, $7 FROM changed)
             SELECT EXISTS (SELECT FROM changed)",
        )
        .bind(id.0)
        .bind(Json(change.before))
        .bind(Json(change.after))
        .bind(action)
        .bind(change.actor)
        .bind(&change.hold.reason)
        .bind(details)
        .fetch_one(&self.pool)
        .await?;
        Ok(changed)
    }

    /// Records of which end somebody was warned.
    pub async fn warned_of(&self, id: TenantId, end: Timestamp) -> Result<()> {
        sqlx::query("UPDATE tenants SET warned_of = $2 WHERE id = $1 AND warned_of IS DISTINCT FROM $2")
            .bind(id.0)
            .bind(end.to_sqlx())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Records when somebody was warned that nobody uses these tenants.
    pub async fn warned_of_inactivity(&self, id: TenantId, at: Timestamp) -> Result<()> {
        sqlx::query("UPDATE tenants SET inactivity_warned_at = $2 WHERE id = $1")
            .bind(id.0)
            .bind(at.to_sqlx())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Records what was seen of the sessions of several tenants, by one statement.
    pub async fn record_sessions(&self, seen: &[SessionsSeen], at: Timestamp) -> Result<()> {
        if seen.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = seen.iter().map(|seen| seen.tenant.0).collect();
        let sessions: Vec<_> = seen.iter().map(|seen| seen.sessions).collect();
        let used: Vec<_> = seen.iter().map(|seen| seen.used).collect();
        sqlx::query(
            "UPDATE tenants t SET sessions_seen = n.sessions,
                 last_session_at = CASE WHEN n.used THEN $4 ELSE t.last_session_at END,
                 inactivity_warned_at = CASE WHEN NOT n.used THEN t.inactivity_warned_at END
             FROM unnest($1::uuid[], $2::bigint[], $3::boolean[]) AS n (id, sessions, used)
             WHERE t.id = n.id",
        )
        .bind(ids)
        .bind(sessions)
        .bind(used)
        .bind(at.to_sqlx())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
