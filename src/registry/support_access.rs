//! Support accesses. Each change and its activity row are one statement; a change that was made before makes no further row.

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx;
use serde_json::{Value, json};
use sqlx::{FromRow, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    Registry, Result,
    deletions::{DeletedObject, is_of_deletion},
};
use crate::domain::{
    identity::TenantId,
    support::{EndReason, Grant, SupportRecord, SupportRequest},
};

/// The end of a support access.
#[derive(Clone, Debug)]
pub struct SupportEnd<'a> {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// Who is named, unless the webhook recorded who deleted the object.
    pub actor: String,
    /// The object, if it was deleted.
    pub deleted: Option<&'a DeletedObject>,
    /// What could not be taken away.
    pub left: Option<&'a str>,
}

/// The columns of `support_accesses`.
macro_rules! support_columns {
    () => {
        "id, tenant_id, namespace, name, reason, extract(epoch FROM duration)::bigint AS seconds, requires_approval, \
         requested_by, requested_at, approved_by, granted_at, expires_at, server, login, published_at, first_used_at, \
         ended_at, end_reason"
    };
}

impl FromRow<'_, PgRow> for SupportRecord {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let time = |column: &str| -> sqlx::Result<Option<Timestamp>> {
            Ok(row.try_get::<Option<jiff_sqlx::Timestamp>, _>(column)?.map(jiff_sqlx::Timestamp::to_jiff))
        };
        let grant = match (time("granted_at")?, time("expires_at")?) {
            (Some(at), Some(expires_at)) => {
                Some(Grant { at, expires_at, server: row.try_get("server")?, login: row.try_get("login")? })
            }
            _ => None,
        };
        let end_reason: Option<String> = row.try_get("end_reason")?;
        // A reason of a later release: it has ended, for whatever reason.
        let end_reason = end_reason.map(|text| EndReason::parse(&text).unwrap_or(EndReason::Expired));
        Ok(Self {
            request: SupportRequest {
                id: row.try_get("id")?,
                namespace: row.try_get("namespace")?,
                name: row.try_get("name")?,
                reason: row.try_get("reason")?,
                duration: SignedDuration::from_secs(row.try_get("seconds")?),
                requires_approval: row.try_get("requires_approval")?,
                requested_by: row.try_get("requested_by")?,
            },
            tenant: TenantId(row.try_get("tenant_id")?),
            requested_at: row.try_get::<jiff_sqlx::Timestamp, _>("requested_at")?.to_jiff(),
            approved_by: row.try_get("approved_by")?,
            grant,
            published_at: time("published_at")?,
            first_used_at: time("first_used_at")?,
            ended: time("ended_at")?.zip(end_reason),
        })
    }
}

impl Registry {
    /// The support access of the object with this uid.
    pub async fn support_access(&self, id: Uuid) -> Result<Option<SupportRecord>> {
        let query = concat!("SELECT ", support_columns!(), " FROM support_accesses WHERE id = $1");
        Ok(sqlx::query_as(query).bind(id).fetch_optional(&self.pool).await?)
    }

    /// The support accesses that were granted and have not ended.
    pub async fn support_in_force(&self) -> Result<Vec<SupportRecord>> {
        let query = concat!(
            "SELECT ",
            support_columns!(),
            " FROM support_accesses WHERE granted_at IS NOT NULL AND ended_at IS NULL"
        );
        Ok(sqlx::query_as(query).fetch_all(&self.pool).await?)
    }

    /// Records a request, with its activity row.
    pub async fn request_support(
        &self,
        tenant: TenantId,
        request: &SupportRequest,
        at: Timestamp,
    ) -> Result<()> {
        sqlx::query(
            "WITH added AS (
                 INSERT INTO support_accesses (id, tenant_id, namespace, name, reason, duration, requires_approval,
                     requested_by, requested_at)
                 VALUES ($1, $2, $3, $4, $5, make_interval(secs => $6), $7, $8, $9)
                 ON CONFLICT (id) DO NOTHING RETURNING *)
             INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
             SELECT tenant_id, 'SupportAccessRequested', requested_by, reason, id, jsonb_build_object(
                 'object', namespace || '/' || name, 'seconds', extract(epoch FROM duration)::int,
                 'approval', CASE WHEN requires_approval THEN 'Required' ELSE 'NotRequired' END) FROM added",
        )
        .bind(request.id)
        .bind(tenant.0)
        .bind(&request.namespace)
        .bind(&request.name)
        .bind(&request.reason)
        .bind(request.duration.as_secs_f64())
        .bind(request.requires_approval)
        .bind(&request.requested_by)
        .bind(at.to_sqlx())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Records a grant, before the login is made, with its activity row.
    pub async fn grant_support(&self, id: Uuid, grant: &Grant, approved_by: Option<&str>) -> Result<()> {
        sqlx::query(
            "WITH granted AS (
                 UPDATE support_accesses SET granted_at = $2, expires_at = $3, server = $4, login = $5, approved_by = $6
                 WHERE id = $1 AND granted_at IS NULL AND ended_at IS NULL RETURNING *)
             INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
             SELECT tenant_id, 'SupportAccessGranted', coalesce(approved_by, 'tenantry'), reason, id, jsonb_build_object(
                 'requestedBy', requested_by, 'approvedBy', approved_by, 'login', login, 'expiresAt', expires_at)
             FROM granted",
        )
        .bind(id)
        .bind(grant.at.to_sqlx())
        .bind(grant.expires_at.to_sqlx())
        .bind(&grant.server)
        .bind(&grant.login)
        .bind(approved_by)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Records that the login and its Secret are complete.
    pub async fn publish_support(&self, id: Uuid, at: Timestamp) -> Result<()> {
        sqlx::query(
            "UPDATE support_accesses SET published_at = $2
             WHERE id = $1 AND published_at IS NULL AND granted_at IS NOT NULL AND ended_at IS NULL",
        )
        .bind(id)
        .bind(at.to_sqlx())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Records that the login or its Secret was lost: it is made again, with another password, until the same time.
    pub async fn withdraw_support(&self, id: Uuid) -> Result<()> {
        sqlx::query("UPDATE support_accesses SET published_at = NULL WHERE id = $1 AND ended_at IS NULL")
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Records when a session of the login was seen first, with its activity row. Returns whether it was the first.
    pub async fn use_support(&self, id: Uuid, at: Timestamp) -> Result<bool> {
        let recorded = sqlx::query(
            "WITH used AS (
                 UPDATE support_accesses SET first_used_at = $2
                 WHERE id = $1 AND first_used_at IS NULL AND granted_at IS NOT NULL AND ended_at IS NULL RETURNING *)
             INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
             SELECT tenant_id, 'SupportAccessUsed', requested_by, reason, id, jsonb_build_object('login', login)
             FROM used",
        )
        .bind(id)
        .bind(at.to_sqlx())
        .execute(&self.pool)
        .await?;
        Ok(recorded.rows_affected() > 0)
    }

    /// Records that an access has ended, or was refused, with its activity row.
    pub async fn end_support(&self, id: Uuid, end: &SupportEnd<'_>) -> Result<()> {
        let details: Value = end.left.map_or_else(|| json!({}), |left| json!({"left": left}));
        sqlx::query(concat!(
            "WITH ended AS (
                 UPDATE support_accesses SET ended_at = $2, end_reason = $3
                 WHERE id = $1 AND ended_at IS NULL RETURNING *)
             INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
             SELECT tenant_id,
                 CASE WHEN granted_at IS NULL THEN 'SupportAccessRefused' ELSE 'SupportAccessEnded' END,
                 coalesce((SELECT actor FROM deletion_actors WHERE ",
            is_of_deletion!("$5", "$6"),
            "), $7),
                 reason, id, jsonb_build_object('cause', end_reason, 'login', login) || $4
             FROM ended"
        ))
        .bind(id)
        .bind(end.at.to_sqlx())
        .bind(end.reason.as_str())
        .bind(details)
        .bind(end.deleted.map(|deleted| &deleted.uid))
        .bind(end.deleted.and_then(DeletedObject::time))
        .bind(&end.actor)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
