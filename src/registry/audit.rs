//! Reading the activity log with its archive, for checks and exports, and linking the rows from before there were chains.
//! What the chain consists of is in `migrations/system/0022_activity_chain.sql`.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::{FromRow, Postgres, Row, Transaction, postgres::PgRow};
use uuid::Uuid;

use super::{Registry, Result};
use crate::domain::activity_chain::{ChainHead, ChainLink, LoggedActivity};

/// The number of rows of one page, and of rows that one statement links.
const ROWS: i32 = 1000;

/// What is selected of a row of either table.
macro_rules! logged_columns {
    ($archived:literal) => {
        concat!(
            "id, tenant_id,
             coalesce(to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), at::text) AS at,
             CASE WHEN isfinite(at) THEN (extract(epoch FROM at) * 1000000)::bigint END AS at_micros,
             action, actor, reason, details::text AS details, correlation_id, position, previous_hash, hash, ",
            $archived,
            " AS archived, coalesce(tenant_id, '00000000-0000-0000-0000-000000000000') AS chain"
        )
    };
}

/// Rows of both tables, with a condition and an order that both have an index for.
macro_rules! logged_rows {
    ($condition:literal, $order:literal) => {
        concat!(
            "SELECT * FROM ((SELECT ",
            logged_columns!("false"),
            " FROM activity WHERE ",
            $condition,
            " ORDER BY ",
            $order,
            " LIMIT $1) UNION ALL (SELECT ",
            logged_columns!("true"),
            " FROM activity_archive WHERE ",
            $condition,
            " ORDER BY ",
            $order,
            " LIMIT $1)) AS logged ORDER BY ",
            $order,
            " LIMIT $1"
        )
    };
}

/// Which rows are exported.
#[derive(Clone, Debug, Default)]
pub struct ActivityFilter {
    /// Those of these tenants. None: all.
    pub tenants: Option<Vec<Uuid>>,
    /// Those written at this time or later.
    pub since: Option<Timestamp>,
}

/// The log as it is at one moment, while others append to it.
pub struct AuditSnapshot {
    transaction: Transaction<'static, Postgres>,
}

impl AuditSnapshot {
    /// The heads of all chains.
    pub async fn heads(&mut self) -> Result<Vec<ChainHead>> {
        let heads: Vec<StoredChainHead> = sqlx::query_as(HEADS).fetch_all(&mut *self.transaction).await?;
        Ok(heads.into_iter().map(|head| head.0).collect())
    }

    /// The chains with rows that have no position, and how many.
    pub async fn unlinked(&mut self) -> Result<Vec<(Uuid, i64)>> {
        let rows = sqlx::query_as(
            "SELECT coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'), count(*)
             FROM (SELECT tenant_id FROM activity WHERE position IS NULL
                   UNION ALL SELECT tenant_id FROM activity_archive WHERE position IS NULL) AS unlinked
             GROUP BY 1 ORDER BY 1",
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(rows)
    }

    /// The rows with a position that come after this one, by chain and position. Empty at the end.
    pub async fn linked_after(&mut self, last: Option<&LoggedActivity>) -> Result<Vec<LoggedActivity>> {
        let rows: Vec<Logged> = sqlx::query_as(logged_rows!(
            "position IS NOT NULL
             AND (coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'), position, id) > ($2, $3, $4)",
            "coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'), position, id"
        ))
        .bind(ROWS)
        .bind(last.map_or(Uuid::nil(), LoggedActivity::chain))
        .bind(last.and_then(|row| row.link.as_ref()).map_or(i64::MIN, |link| link.position))
        .bind(last.map_or(i64::MIN, |row| row.id))
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }
}

const HEADS: &str =
    "SELECT h.chain, t.slug, h.position, h.hash, h.removed_position, h.removed_hash, h.pending,
         coalesce(t.status = 'deprovisioned', false) AS is_closed
     FROM activity_heads h LEFT JOIN tenants t ON t.id = h.chain ORDER BY h.chain";

impl Registry {
    /// Whether the registry has the chains: a leader of this release has migrated it.
    pub async fn has_activity_chains(&self) -> Result<bool> {
        let found = sqlx::query_scalar("SELECT to_regclass('public.activity_heads') IS NOT NULL")
            .fetch_one(&self.pool)
            .await?;
        Ok(found)
    }

    /// The log as it is now. A snapshot that is not read for 30 s is closed by the server.
    pub async fn audit_snapshot(&self) -> Result<AuditSnapshot> {
        let transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
        Ok(AuditSnapshot { transaction })
    }

    /// The heads of all chains.
    pub async fn activity_heads(&self) -> Result<Vec<ChainHead>> {
        let heads: Vec<StoredChainHead> = sqlx::query_as(HEADS).fetch_all(&self.pool).await?;
        Ok(heads.into_iter().map(|head| head.0).collect())
    }

    /// The next rows after this id, in the order in which they were written. Empty at the end.
    pub async fn activity_after(&self, id: i64, filter: &ActivityFilter) -> Result<Vec<LoggedActivity>> {
        let rows: Vec<Logged> = sqlx::query_as(logged_rows!(
            "id > $2 AND ($3::uuid[] IS NULL OR tenant_id = ANY ($3)) AND ($4::timestamptz IS NULL OR at >= $4)",
            "id"
        ))
        .bind(ROWS)
        .bind(id)
        .bind(&filter.tenants)
        .bind(filter.since.map(|since| since.to_sqlx()))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// The tenants that have this slug, or had it.
    pub async fn tenants_with_slug(&self, slug: &str) -> Result<Vec<Uuid>> {
        let tenants =
            sqlx::query_scalar("SELECT DISTINCT tenant_id FROM slug_history WHERE slug = $1 ORDER BY 1")
                .bind(slug)
                .fetch_all(&self.pool)
                .await?;
        Ok(tenants)
    }

    /// Links rows from before there were chains, some of one tenant. Returns whether there may be more.
    pub async fn link_activity(&self) -> Result<bool> {
        let more = sqlx::query_scalar("SELECT link_activity($1)").bind(ROWS).fetch_one(&self.pool).await?;
        Ok(more)
    }
}

struct Logged(LoggedActivity);

impl<'r> FromRow<'r, PgRow> for Logged {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let link = match row.try_get("position")? {
            Some(position) => Some(ChainLink {
                position,
                previous: row.try_get::<Option<_>, _>("previous_hash")?.unwrap_or_default(),
                hash: row.try_get::<Option<_>, _>("hash")?.unwrap_or_default(),
            }),
            None => None,
        };
        Ok(Self(LoggedActivity {
            id: row.try_get("id")?,
            tenant: row.try_get("tenant_id")?,
            at: row.try_get("at")?,
            at_micros: row.try_get("at_micros")?,
            action: row.try_get("action")?,
            actor: row.try_get("actor")?,
            reason: row.try_get("reason")?,
            details: row.try_get("details")?,
            correlation: row.try_get("correlation_id")?,
            archived: row.try_get("archived")?,
            link,
        }))
    }
}

struct StoredChainHead(ChainHead);

impl<'r> FromRow<'r, PgRow> for StoredChainHead {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        Ok(Self(ChainHead {
            chain: row.try_get("chain")?,
            slug: row.try_get("slug")?,
            position: row.try_get("position")?,
            hash: row.try_get("hash")?,
            removed_position: row.try_get("removed_position")?,
            is_closed: row.try_get("is_closed")?,
            removed_hash: row.try_get("removed_hash")?,
            pending: row.try_get("pending")?,
        }))
    }
}
