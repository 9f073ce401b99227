//! The reader login of a tenant, in its row.

use jiff_sqlx::ToSqlx;
use uuid::Uuid;

use super::{Error, Registry, Result, record::*, rotation::NewCredentials};
use crate::domain::identity::TenantId;

impl Registry {
    /// Records that a tenant has a reader login of this name, without a password yet. Nothing is changed if it has one.
    pub async fn add_reader(&self, id: TenantId, login: &str, correlation: Uuid) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET reader_login = $2 WHERE id = $1 AND reader_login IS NULL RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT id, 'ReaderLoginAdded', 'tenantry', $3, jsonb_build_object('login', reader_login) FROM changed)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(login)
        .bind(correlation)
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Records the credentials that the reader login of this oid has now; without any, that its Secret is about to change.
    pub async fn record_reader(
        &self,
        id: TenantId,
        new: Option<&NewCredentials<'_>>,
        oid: Option<i64>,
    ) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1),
             changed AS (
                 UPDATE tenants SET reader_verifier = $2, reader_digest = $3, reader_login_oid = coalesce($4, reader_login_oid),
                     reader_issued_at = coalesce($5, reader_issued_at)
                 WHERE id = $1 AND reader_login IS NOT NULL RETURNING *)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(new.map(|new| new.verifier))
        .bind(new.map(|new| new.digest))
        .bind(oid)
        .bind(new.map(|new| new.at.to_sqlx()))
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Records that the reader login is ended, and how many sessions it had then.
    pub async fn remove_reader(&self, id: TenantId, sessions: i64, correlation: Uuid) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET reader_login = NULL, reader_login_oid = NULL, reader_verifier = NULL, reader_digest = NULL,
                     reader_issued_at = NULL
                 WHERE id = $1 AND reader_login IS NOT NULL RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT c.id, 'ReaderLoginRemoved', 'tenantry', $3,
                     jsonb_build_object('login', b.reader_login, 'sessions', $2) FROM changed c, before b)",
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
