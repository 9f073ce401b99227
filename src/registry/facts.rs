//! Changes of a tenant's row that leave its status as it is. Each writes only what differs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::Value;
use sqlx::types::Json;

use super::{Error, Registry, Result, deletion_policy, record::*};
use crate::domain::{
    access::AccessLevel, access::gates::EffectiveGate, identity::TenantId, record::ModuleVersion,
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
            update_columns!()
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
             fields AS (
                 -- The names of the fields, not their values: settings may hold the customer's secrets.
                 SELECT to_jsonb(array_remove(ARRAY[
                     CASE WHEN name <> $2 THEN 'name' END,
                     CASE WHEN settings <> $3 THEN 'settings' END,
                     CASE WHEN deletion_policy <> $4 THEN 'deletionPolicy' END], NULL)) AS fields
                 FROM before WHERE EXISTS (SELECT FROM changed)),
             gates AS (
                 SELECT name, o.done AS before, n.done AS after
                 FROM (SELECT g.* FROM before, jsonb_to_recordset(before.gates) AS g (name text, done boolean)) AS o
                 FULL JOIN jsonb_to_recordset($5) AS n (name text, done boolean) USING (name)
                 WHERE o.done IS DISTINCT FROM n.done AND EXISTS (SELECT FROM changed)),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, details)
                 SELECT $1, 'DeclarationChanged', 'unknown', jsonb_build_object('fields', fields)
                 FROM fields WHERE fields <> '[]'
                 UNION ALL
                 SELECT $1, 'GateChanged', 'unknown',
                     jsonb_build_object('gate', name, 'from', before, 'to', after) FROM gates)",
            update_columns!()
        ))
        .bind(id.0)
        .bind(declared.name)
        .bind(Json(declared.settings))
        .bind(deletion_policy(declared.retain))
        .bind(Json(declared.gates))
        .bind(declared.gates_done_at.map(ToSqlx::to_sqlx))
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

    /// The server was restored: the databases of all its tenants have to be verified.
    pub async fn require_verification(&self, server: &str) -> Result<()> {
        sqlx::query(
            "UPDATE tenants SET verification_required = true
             WHERE server = $1 AND status <> 'deprovisioned' AND NOT verification_required",
        )
        .bind(server)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Records the OIDs of databases and logins that were read with their ownership comments: of all tenants for which
    /// they differ, in one statement.
    pub async fn record_oids(&self, read: &[(TenantId, i64, i64)]) -> Result<()> {
        if read.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = read.iter().map(|(id, _, _)| id.0).collect();
        let databases: Vec<_> = read.iter().map(|(_, database, _)| *database).collect();
        let logins: Vec<_> = read.iter().map(|(_, _, login)| *login).collect();
        sqlx::query(
            "UPDATE tenants t SET database_oid = n.database, login_oid = n.login
             FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS n (id, database, login)
             WHERE t.id = n.id AND (t.database_oid, t.login_oid) IS DISTINCT FROM (n.database, n.login)",
        )
        .bind(ids)
        .bind(databases)
        .bind(logins)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
