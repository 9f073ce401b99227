//! The sessions in tenants' databases, as PostgreSQL counts them: one query for a whole server, and no session in any of
//! them.

use std::collections::HashMap;

use sqlx::FromRow;

use crate::{
    domain::{names::building_name, placement::Placement},
    postgres::{
        error::{Error, Result},
        server::Server,
    },
};

/// The sessions in one database.
#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct SessionCount {
    /// The number opened since the statistics of the database were last reset.
    pub sessions: i64,
    /// The roles with an open session.
    pub connected: Vec<String>,
}

#[derive(FromRow)]
struct SessionCountRow {
    name: String,
    #[sqlx(flatten)]
    count: SessionCount,
}

impl Server {
    /// Counts the sessions in every database.
    pub async fn session_counts(&self) -> Result<HashMap<String, SessionCount>> {
        let doing = "count sessions";
        // Without pg_read_all_stats, another role's session is listed without its backend type.
        let mut session = self.admin().await?;
        let rows: Vec<SessionCountRow> = sqlx::query_as(
            "SELECT s.datname::text AS name, s.sessions, coalesce(a.connected, '{}') AS connected
             FROM pg_stat_database AS s LEFT JOIN (
                 SELECT datid, array_agg(DISTINCT usename::text) AS connected
                 FROM pg_stat_activity
                 WHERE coalesce(backend_type, 'client backend') = 'client backend' AND usename IS NOT NULL
                 GROUP BY datid) AS a USING (datid)
             WHERE s.datname IS NOT NULL",
        )
        .fetch_all(&mut *session)
        .await
        .map_err(Error::sql(doing))?;
        session.release();
        Ok(rows.into_iter().map(|row| (row.name, row.count)).collect())
    }

    /// The number of sessions that this process has opened in a tenant's database, also while it was being built: they do
    /// not count as usage.
    pub fn own_sessions(&self, placement: &Placement) -> i64 {
        let sessions = &self.inner.sessions;
        sessions.opened_in(&placement.database) + sessions.opened_in(&building_name(placement.tenant))
    }
}
