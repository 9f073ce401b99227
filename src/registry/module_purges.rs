//! What became of the names in `spec.purgeModules`.

use serde_json::json;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Error, Registry, Result, record::*};
use crate::domain::{identity::TenantId, record::ModuleVersion, recorded_purge::RecordedPurge};

impl Registry {
    /// Before a module is dropped: from now on, the tenant has no version of it on record, so that none is reported that its
    /// database lacks.
    pub async fn begin_module_purge(
        &self,
        id: TenantId,
        module: &str,
        purge: &RecordedPurge,
    ) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1),
             changed AS (
                 UPDATE tenants SET module_purges = module_purges || jsonb_build_object($2::text, $3::jsonb),
                     module_versions = CASE WHEN module_versions = '{}' THEN '{}' ELSE jsonb_path_query_array(
                         module_versions, '$[*] ? (@.name != $name)', jsonb_build_object('name', $2::text)) END
                 WHERE id = $1 RETURNING *)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(module)
        .bind(Json(purge))
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// A module was dropped, or was not there: with one row in the activity log, and without the usage of the limits of which
    /// no table is counted any more. `version`: what was in force.
    pub async fn end_module_purge(
        &self,
        id: TenantId,
        module: &str,
        dropped: &DroppedModule<'_>,
        correlation: Uuid,
    ) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1),
             changed AS (
                 UPDATE tenants SET module_purges = module_purges || jsonb_build_object($2::text, $3::jsonb)
                 WHERE id = $1 RETURNING *),
             measured AS (UPDATE usage SET amounts = amounts - $4::text[] WHERE tenant_id = $1),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT id, 'ModulePurged', $7, $5, $6 FROM changed)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(module)
        .bind(Json(RecordedPurge::Purged))
        .bind(dropped.limits)
        .bind(correlation)
        .bind(json!({"module": module, "version": dropped.version, "objects": dropped.objects}))
        .bind(dropped.actor)
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// A module stays, with the version that is in force.
    pub async fn refuse_module_purge(
        &self,
        id: TenantId,
        module: &str,
        why: &str,
        versions: &[ModuleVersion],
        correlation: Uuid,
    ) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1),
             changed AS (
                 UPDATE tenants SET module_purges = module_purges || jsonb_build_object($2::text, $3::jsonb),
                     module_versions = $4
                 WHERE id = $1 RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
                 SELECT id, 'ModulePurgeRefused', 'tenantry', $5, $6, jsonb_build_object('module', $2::text) FROM changed)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(module)
        .bind(Json(RecordedPurge::Refused { why: why.to_owned() }))
        .bind(Json(versions))
        .bind(why)
        .bind(correlation)
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Forgets the names that are not written any more.
    pub async fn keep_module_purges(&self, id: TenantId, named: &[String]) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1),
             changed AS (
                 UPDATE tenants SET module_purges = (
                     SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(module_purges) WHERE key = ANY ($2))
                 WHERE id = $1 AND EXISTS (SELECT FROM jsonb_object_keys(module_purges) AS key WHERE key <> ALL ($2))
                 RETURNING *)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(named)
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }
}

/// A module that was dropped from a tenant's database.
#[derive(Clone, Copy, Debug)]
pub struct DroppedModule<'a> {
    /// The version that was in force; none if it was not there.
    pub version: Option<i32>,
    /// What it had.
    pub objects: &'a [String],
    /// The limits of which no table is counted any more.
    pub limits: &'a [String],
    /// Who requested it.
    pub actor: &'a str,
}
