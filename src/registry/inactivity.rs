//! When tenants were last used, and when the user was warned that one is inactive.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;

use super::{Error, Registry, Result, record::*};
use crate::domain::{identity::TenantId, record::TenantRecord};

/// The sessions that PostgreSQL has counted in one tenant's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSample {
    /// The tenant.
    pub tenant: TenantId,
    /// The number of sessions since the statistics began.
    pub sessions: i64,
    /// Whether the tenant counts as used now: it had sessions since the last sample, or this is the first sample.
    pub used: bool,
}

impl Registry {
    /// Records when the user was warned that the tenant is inactive.
    pub async fn record_inactivity_warning(&self, id: TenantId, at: Timestamp) -> Result<TenantRecord> {
        let record = sqlx::query_as(concat!(
            "WITH changed AS (UPDATE tenants SET inactivity_warned_at = $2 WHERE id = $1 RETURNING *) SELECT ",
            columns!(),
            " FROM changed AS tenants"
        ))
        .bind(id.0)
        .bind(at.to_sqlx())
        .fetch_optional(&self.pool)
        .await?;
        record.ok_or(Error::NotFound(id))
    }

    /// Records the sessions of several tenants, in one statement.
    pub async fn record_sessions(&self, seen: &[SessionSample], at: Timestamp) -> Result<()> {
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
