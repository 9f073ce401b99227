//! What use is made of tenants' databases, as PostgreSQL itself counts it: one query for a whole server, and no session
//! in any of them.

use std::collections::HashMap;

use sqlx::FromRow;

use crate::domain::{identity::TenantId, names::building_name};

use super::{
    error::{Error, Result},
    server::Server,
};

/// The sessions in one database.
#[derive(Clone, Debug, FromRow, PartialEq, Eq)]
pub struct SessionCount {
    /// How many were ever opened, since its statistics were last reset.
    pub sessions: i64,
    /// Who has one now.
    pub connected: Vec<String>,
}

#[derive(FromRow)]
struct Row {
    name: String,
    #[sqlx(flatten)]
    count: SessionCount,
}

impl Server {
    /// Counts the sessions in every database.
    pub async fn session_counts(&self) -> Result<HashMap<String, SessionCount>> {
        let doing = "count sessions";
        // Without pg_read_all_stats, another's session is listed without its kind.
        let mut session = self.admin().await?;
        let rows: Vec<Row> = sqlx::query_as(
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
        session.give_back();
        Ok(rows.into_iter().map(|row| (row.name, row.count)).collect())
    }

    /// How many sessions this process itself has opened in a tenant's database, also while it was being built: they are
    /// no use that anybody makes of it.
    pub fn own_sessions(&self, id: TenantId, database: &str) -> i64 {
        let sessions = &self.inner.sessions;
        sessions.opened_in(database) + sessions.opened_in(&building_name(id))
    }
}
