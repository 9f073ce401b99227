//! The rotation of a tenant's credentials, in its row.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use uuid::Uuid;

use super::{Error, Registry, Result, record::*};
use crate::domain::identity::TenantId;

/// Credentials that the login has.
#[derive(Clone, Copy, Debug)]
pub struct NewCredentials<'a> {
    /// The SCRAM verifier.
    pub verifier: &'a str,
    /// The keyed digest of the password.
    pub digest: &'a [u8],
    /// The request for a rotation that they answer, if there is one.
    pub request: Option<&'a str>,
    /// Now.
    pub at: Timestamp,
}

impl Registry {
    /// Records that another login is the tenant's from now on, without a password yet. The login before it becomes the previous
    /// one. The reader login gets a new password too. Nothing is changed while there is a previous login.
    pub async fn begin_rotation(&self, id: TenantId, login: &str, correlation: Uuid) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET login_name = $2, login_oid = NULL, password_verifier = NULL, password_digest = NULL,
                     previous_login = login_name, previous_login_oid = login_oid,
                     previous_verifier = password_verifier, previous_login_since = NULL,
                     previous_login_until = NULL, reader_verifier = NULL, reader_digest = NULL
                 WHERE id = $1 AND previous_login IS NULL AND login_name <> $2 RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT id, 'LoginRotated', 'tenantry', $3,
                     jsonb_build_object('from', previous_login, 'to', login_name) FROM changed)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(login)
        .bind(correlation)
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Records the credentials that the login has now.
    pub async fn record_credentials(&self, id: TenantId, new: &NewCredentials<'_>) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1),
             changed AS (
                 UPDATE tenants SET password_verifier = $2, password_digest = $3, credentials_issued_at = $5,
                     rotation_request = coalesce($4, rotation_request)
                 WHERE id = $1 RETURNING *)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(new.verifier)
        .bind(new.digest)
        .bind(new.request)
        .bind(new.at.to_sqlx())
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Records that the Secret has the credentials after the previous login's: from now on, its time runs.
    pub async fn record_publication(&self, id: TenantId, at: Timestamp) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1),
             changed AS (
                 UPDATE tenants SET previous_login_since = $2
                 WHERE id = $1 AND previous_login IS NOT NULL AND previous_login_since IS NULL RETURNING *)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(at.to_sqlx())
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Records that the previous login is ended, and how many sessions it had then.
    pub async fn end_rotation(&self, id: TenantId, sessions: i64, correlation: Uuid) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET previous_login = NULL, previous_login_oid = NULL, previous_verifier = NULL,
                     previous_login_since = NULL, previous_login_until = NULL
                 WHERE id = $1 AND previous_login IS NOT NULL RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT c.id, 'PreviousLoginEnded', 'tenantry', $3,
                     jsonb_build_object('login', b.previous_login, 'sessions', $2) FROM changed c, before b)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(sessions)
        .bind(correlation)
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }
}
