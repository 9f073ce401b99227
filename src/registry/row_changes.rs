//! Changes of a tenant's row that leave its status as it is: what the spec declares, what was proven, what the database
//! contains. Each writes only what differs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Error, Registry, Result, deletion_policy, record::*};
use crate::domain::{
    access::{AccessLevel, gates::EffectiveGate},
    identity::TenantId,
    record::ModuleVersion,
    usage::entitlements::{Amounts, Entitlements},
};

/// The fields of a spec that the registry mirrors.
#[derive(Clone, Copy, Debug)]
pub struct Declared<'a> {
    /// The customer's display name.
    pub name: &'a str,
    /// The settings, an object.
    pub settings: &'a BTreeMap<String, Value>,
    /// Whether the database is kept when the tenant is deprovisioned.
    pub retain: bool,
    /// The gates in force, by name.
    pub gates: &'a [EffectiveGate],
    /// The current time if there are gates and all are done. The first such time is kept.
    pub gates_done_at: Option<Timestamp>,
    /// Who changed the gates, if they changed.
    pub gates_changed_by: &'a str,
}

/// A plan that was put in force.
#[derive(Clone, Copy, Debug)]
pub struct NewPlan<'a> {
    /// The entitlements in force from now on.
    pub entitlements: &'a Entitlements,
    /// The usage that was measured with it.
    pub usage: &'a Amounts,
    /// When it was measured.
    pub at: Timestamp,
    /// Who changed the plan.
    pub actor: &'a str,
    /// The Tenant's generation.
    pub generation: Option<i64>,
}

/// A statement that sets columns of the tenant `$1` if they differ.
macro_rules! set {
    ($columns:literal, $different:literal) => {
        concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1), changed AS (UPDATE tenants SET ",
            $columns,
            " WHERE id = $1 AND ",
            $different,
            " RETURNING *)",
            select_updated_row!()
        )
    };
}

/// The end of a statement that also records the usage `$measured` at `$at` of the tenant `$1`: returns an [`Update`].
macro_rules! update_with_usage {
    ($measured:literal, $at:literal) => {
        concat!(
            " SELECT changed, ",
            own_columns!(),
            workflow_columns!(),
            usage_columns!($measured, $at),
            ", record_usage($1, ",
            $measured,
            "::jsonb, ",
            $at,
            "::timestamptz) ",
            row_afterwards!()
        )
    };
}

impl Registry {
    /// Records what the spec declares, except the plan, which is recorded once it is in force.
    pub async fn update_declared(&self, id: TenantId, declared: &Declared<'_>) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1),
             changed AS (
                 UPDATE tenants SET name = $2, settings = $3, deletion_policy = $4, gates = $5,
                     gates_done_at = coalesce(gates_done_at, $6)
                 WHERE id = $1 AND (name, settings, deletion_policy, gates) IS DISTINCT FROM ($2, $3, $4, $5)
                 RETURNING *),
             gates AS (
                 SELECT name, o.done AS before, n.done AS after
                 FROM (SELECT g.* FROM before, jsonb_to_recordset(before.gates) AS g (name text, done boolean)) AS o
                 FULL JOIN jsonb_to_recordset($5) AS n (name text, done boolean) USING (name)
                 WHERE o.done IS DISTINCT FROM n.done AND EXISTS (SELECT FROM changed)),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, details)
                 SELECT $1, 'GateChanged', $7,
                     jsonb_build_object('gate', name, 'from', before, 'to', after) FROM gates)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(declared.name)
        .bind(Json(declared.settings))
        .bind(deletion_policy(declared.retain))
        .bind(Json(declared.gates))
        .bind(declared.gates_done_at.map(ToSqlx::to_sqlx))
        .bind(declared.gates_changed_by)
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Records the access level that was proven to be in force; none while it is not known.
    pub async fn set_access(&self, id: TenantId, access: Option<AccessLevel>) -> Result<Update> {
        let update = sqlx::query_as(set!("access = $2", "access <> $2"))
            .bind(id.0)
            .bind(access.map_or("Unknown", AccessLevel::as_str))
            .fetch_optional(&self.pool)
            .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Records the login's SCRAM verifier, and the keyed digest of its password.
    pub async fn set_credential(
        &self,
        id: TenantId,
        verifier: Option<&str>,
        digest: Option<&[u8]>,
    ) -> Result<Update> {
        let update = sqlx::query_as(set!(
            "password_verifier = $2, password_digest = $3",
            "(password_verifier, password_digest) IS DISTINCT FROM ($2, $3)"
        ))
        .bind(id.0)
        .bind(verifier)
        .bind(digest)
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Records the versions of the tenant's modules.
    pub async fn set_modules(&self, id: TenantId, versions: &[ModuleVersion]) -> Result<Update> {
        let update = sqlx::query_as(set!("module_versions = $2", "module_versions <> $2"))
            .bind(id.0)
            .bind(Json(versions))
            .fetch_optional(&self.pool)
            .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Records whether the tenant's database exists on the server. While it does, no other tenant gets its name.
    pub async fn record_database_exists(&self, id: TenantId, exists: bool) -> Result<Update> {
        let update = sqlx::query_as(set!("database_exists = $2", "database_exists <> $2"))
            .bind(id.0)
            .bind(exists)
            .fetch_optional(&self.pool)
            .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Records whether the tenant's database has to be verified.
    pub async fn set_verification_required(&self, id: TenantId, required: bool) -> Result<Update> {
        let update = sqlx::query_as(set!("verification_required = $2", "verification_required <> $2"))
            .bind(id.0)
            .bind(required)
            .fetch_optional(&self.pool)
            .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Records the entitlements in force in the tenant's database, and its usage, with one row in the activity log that
    /// has the old and the new entitlements. The first plan of a tenant replaces none, and is not logged. `changed`
    /// says whether plan or entitlements changed.
    pub async fn record_entitlements(
        &self,
        id: TenantId,
        new: &NewPlan<'_>,
        correlation: Uuid,
    ) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET plan = $2, entitlements = $3, entitlements_generation = $8
                 WHERE id = $1 AND (plan, entitlements) IS DISTINCT FROM ($2, $3) RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT c.id, 'PlanChanged', $7, $4, jsonb_build_object('from', b.entitlements, 'to', $3::jsonb)
                 FROM before b, changed c WHERE b.entitlements IS NOT NULL)",
            update_with_usage!("$5", "$6")
        ))
        .bind(id.0)
        .bind(&new.entitlements.plan)
        .bind(Json(new.entitlements))
        .bind(correlation)
        .bind(Json(new.usage))
        .bind(new.at.to_sqlx())
        .bind(new.actor)
        .bind(new.generation)
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Clears what is recorded of the contents of a database that is about to be recreated: its seed and its
    /// entitlements. Of a tenant that was activated, nothing is cleared.
    pub async fn forget_contents(&self, id: TenantId) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1),
             changed AS (
                 UPDATE tenants SET seed_digest = NULL, entitlements = NULL
                 WHERE id = $1 AND activated_at IS NULL RETURNING *)",
            select_updated_row!()
        ))
        .bind(id.0)
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }

    /// Records the digest of the seed, and the tenant's usage with it. `changed` is about the digest alone.
    pub async fn record_seed(
        &self,
        id: TenantId,
        digest: &str,
        usage: &Amounts,
        at: Timestamp,
    ) -> Result<Update> {
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1),
             changed AS (
                 UPDATE tenants SET seed_digest = $2 WHERE id = $1 AND seed_digest IS DISTINCT FROM $2 RETURNING *)",
            update_with_usage!("$3", "$4")
        ))
        .bind(id.0)
        .bind(digest)
        .bind(Json(usage))
        .bind(at.to_sqlx())
        .fetch_optional(&self.pool)
        .await?;
        update.ok_or(Error::NotFound(id))
    }
}
