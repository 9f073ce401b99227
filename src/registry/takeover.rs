//! Databases that existed before their tenant: what they were, and how far their takeover is.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::types::Json;

use super::{Error, Registry, Result, record::*};
use crate::domain::{
    identity::TenantId,
    record::{ModuleVersion, TenantRecord},
    takeover::Former,
};

impl Registry {
    /// The slug of the tenant that has, or had, the database of this name on this server, also if the server is known by
    /// another name too.
    pub async fn tenant_of_database(&self, server: &str, database: &str) -> Result<Option<String>> {
        let query = "\
            SELECT slug FROM tenants t
            WHERE t.database_name = $2 AND (t.database_exists OR t.status <> 'deprovisioned')
              AND (t.server = $1 OR EXISTS (
                  SELECT FROM servers a JOIN servers b USING (system_identifier)
                  WHERE a.name = $1 AND b.name = t.server))
            LIMIT 1";
        Ok(sqlx::query_scalar(query).bind(server).bind(database).fetch_optional(&self.pool).await?)
    }

    /// Records what a database was before its takeover, which changes it from now on. A login that is kept is the tenant's previous
    /// one; its role is not yet, so that its oid is recorded with the end of the takeover.
    pub async fn begin_takeover(
        &self,
        id: TenantId,
        former: &Former,
        kept_until: Option<Timestamp>,
        at: Timestamp,
        actor: &str,
    ) -> Result<TenantRecord> {
        let kept = former.login.as_ref().zip(kept_until);
        let row = sqlx::query_as(concat!(
            "WITH changed AS (
                 UPDATE tenants SET taken_over_from = $2, database_exists = true, previous_login = $4,
                     previous_login_since = CASE WHEN $4 IS NOT NULL THEN $6 END, previous_login_until = $5
                 WHERE id = $1 AND takeover = 'pending' AND activated_at IS NULL RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, details)
                 SELECT id, 'TakeoverBegun', $7, jsonb_build_object('database', database_name, 'owner', $3::text)
                 FROM changed)
             SELECT ",
            columns!(),
            " FROM changed AS tenants"
        ))
        .bind(id.0)
        .bind(Json(former))
        .bind(&former.owner)
        .bind(kept.map(|(login, _)| &login.name))
        .bind(kept.map(|(_, until)| until.to_sqlx()))
        .bind(at.to_sqlx())
        .bind(actor)
        .fetch_optional(&self.pool)
        .await?;
        row.ok_or(Error::NotFound(id))
    }

    /// What the database of a tenant was before its takeover; none if nothing was changed yet.
    pub async fn former_database(&self, id: TenantId) -> Result<Option<Former>> {
        let query = sqlx::query_scalar::<_, Option<Json<Former>>>(
            "SELECT taken_over_from FROM tenants WHERE id = $1",
        );
        let found = query.bind(id.0).fetch_optional(&self.pool).await?;
        Ok(found.flatten().map(|Json(former)| former))
    }

    /// Records that a database is taken over, and the versions of its modules. It is verified before the tenant is active.
    pub async fn finish_takeover(&self, id: TenantId, baseline: &[ModuleVersion]) -> Result<TenantRecord> {
        let row = sqlx::query_as(concat!(
            "WITH changed AS (
                 UPDATE tenants SET takeover = 'done', module_versions = $2, verification_required = true,
                     previous_login_oid = (taken_over_from -> 'login' ->> 'oid')::bigint
                 WHERE id = $1 AND takeover = 'pending' RETURNING *)
             SELECT ",
            columns!(),
            " FROM changed AS tenants"
        ))
        .bind(id.0)
        .bind(Json(baseline))
        .fetch_optional(&self.pool)
        .await?;
        row.ok_or(Error::NotFound(id))
    }

    /// Records that a database was given back, and that nothing is known of its contents. A takeover begins again.
    pub async fn record_given_back(&self, id: TenantId) -> Result<TenantRecord> {
        let row = sqlx::query_as(concat!(
            "WITH changed AS (
                 UPDATE tenants SET takeover = 'pending', taken_over_from = NULL, database_exists = false,
                     database_oid = NULL, module_versions = '{}', seed_digest = NULL, entitlements = NULL,
                     verification_required = false, previous_login = NULL, previous_login_oid = NULL,
                     previous_verifier = NULL, previous_login_since = NULL, previous_login_until = NULL
                 WHERE id = $1 AND takeover IS NOT NULL AND activated_at IS NULL RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, details)
                 SELECT id, 'TakeoverUndone', 'tenantry', jsonb_build_object('database', database_name) FROM changed)
             SELECT ",
            columns!(),
            " FROM changed AS tenants"
        ))
        .bind(id.0)
        .fetch_optional(&self.pool)
        .await?;
        row.ok_or(Error::NotFound(id))
    }
}
