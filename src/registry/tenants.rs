//! Tenants' rows: reading, registering, and what changes without a change of status.

use std::collections::{BTreeMap, HashSet};

use jiff_sqlx::ToSqlx;
use serde_json::Value;
use sqlx::types::Json;

use super::{Declared, Error, NewTenant, Registration, Registry, Result, TenantRow, row::columns};
use crate::domain::{access::AccessLevel, identity::TenantId, names, observed::RegistryStatus};

/// How many names are tried for one slug: those that retained databases keep are not given again.
const OCCURRENCES: u32 = 99;

/// Updates a tenant's row where that changes something, and tells an unchanged row from a missing one.
macro_rules! change {
    ($set:literal, $different:literal) => {
        concat!(
            "WITH found AS (SELECT FROM tenants WHERE id = $1), changed AS (UPDATE tenants SET ",
            $set,
            " WHERE id = $1 AND ",
            $different,
            " RETURNING 1) SELECT EXISTS (SELECT FROM found), EXISTS (SELECT FROM changed)"
        )
    };
}

impl Registry {
    /// The row of this very Tenant: the living one, else the last one that was closed, so that a deletion that is
    /// finished is seen as finished.
    pub async fn by_resource(&self, namespace: &str, name: &str, uid: &str) -> Result<Option<TenantRow>> {
        let row = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM tenants WHERE resource_uid = $3 AND resource_namespace = $1 AND resource_name = $2
              ORDER BY status = 'deprovisioned', created_at DESC LIMIT 1"
        ))
        .bind(namespace)
        .bind(name)
        .bind(uid)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row)
    }

    /// The row of a Tenant that was applied again and is not registered anew yet: the same tenant by namespace, name and
    /// slug, under its former object.
    pub async fn former(&self, namespace: &str, name: &str, slug: &str) -> Result<Option<TenantRow>> {
        let row = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM tenants WHERE slug = $3 AND resource_namespace = $1 AND resource_name = $2
              AND status <> 'deprovisioned'"
        ))
        .bind(namespace)
        .bind(name)
        .bind(slug)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row)
    }

    /// The row with this id.
    pub async fn by_id(&self, id: TenantId) -> Result<Option<TenantRow>> {
        let row = sqlx::query_as(concat!("SELECT ", columns!(), " FROM tenants WHERE id = $1"))
            .bind(id.0)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row)
    }

    /// All rows that are not closed, for the start.
    pub async fn all_living(&self) -> Result<Vec<TenantRow>> {
        let rows =
            sqlx::query_as(concat!("SELECT ", columns!(), " FROM tenants WHERE status <> 'deprovisioned'"))
                .fetch_all(&self.pool)
                .await?;
        Ok(rows)
    }

    /// The closed rows whose database is kept.
    pub async fn all_retained(&self) -> Result<Vec<TenantRow>> {
        let rows = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM tenants WHERE status = 'deprovisioned' AND database_exists"
        ))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }

    /// Those of the given tenants that are gone with their database.
    pub async fn gone(&self, ids: &[TenantId]) -> Result<HashSet<TenantId>> {
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        let gone: Vec<uuid::Uuid> = sqlx::query_scalar(
            "SELECT id FROM tenants WHERE id = ANY ($1) AND status = 'deprovisioned' AND NOT database_exists",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await?;
        Ok(gone.into_iter().map(TenantId).collect())
    }

    /// Registers a tenant: its slug and the names of what it will have are its own from here on. A Tenant that was
    /// registered before gets its row, a closed one too; so does one of the same namespace, name and slug whose
    /// object was made anew: a tombstone too, as long as its purge has not begun.
    pub async fn register(&self, new: &NewTenant) -> Result<Registration> {
        let databases: Vec<String> =
            (1..=OCCURRENCES).map(|n| names::database_name(&new.prefix, &new.slug, n)).collect();
        let logins: Vec<String> = databases.iter().map(|name| names::login_name(name)).collect();
        let id = uuid::Uuid::new_v4();
        // What stood in the way of the insert can be gone when it is looked for: then it is tried again.
        for _ in 0..5 {
            let created: Option<TenantRow> = sqlx::query_as(concat!(
                "WITH free AS (
                     SELECT n.database, n.login
                     FROM unnest($11::text[], $12::text[]) WITH ORDINALITY AS n (database, login, occurrence)
                     WHERE NOT EXISTS (
                         SELECT FROM tenants t WHERE t.server = $6 AND t.database_name = n.database
                         AND (t.database_exists OR t.status <> 'deprovisioned'))
                     ORDER BY n.occurrence LIMIT 1),
                 created AS (
                     INSERT INTO tenants (id, slug, name, plan, settings, server, database_name, login_name,
                         resource_namespace, resource_name, resource_uid, deletion_policy, status_updated_by)
                     SELECT $1, $2, $3, $4, $5, $6, free.database, free.login, $7, $8, $9, $10, $13 FROM free
                     WHERE NOT EXISTS (SELECT FROM tenants WHERE resource_uid = $9)
                     ON CONFLICT DO NOTHING RETURNING *),
                 logged AS (
                     INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                     SELECT id, 'Registered', $13, $14,
                         jsonb_build_object('slug', slug, 'server', server, 'database', database_name)
                     FROM created)
                 SELECT ",
                columns!(),
                " FROM created AS tenants"
            ))
            .bind(id)
            .bind(new.slug.as_str())
            .bind(&new.name)
            .bind(&new.plan)
            .bind(&new.settings)
            .bind(&new.server)
            .bind(&new.resource_namespace)
            .bind(&new.resource_name)
            .bind(&new.resource_uid)
            .bind(policy(new.retain))
            .bind(&databases)
            .bind(&logins)
            .bind(&new.actor)
            .bind(new.correlation)
            .fetch_optional(&self.pool)
            .await?;
            if let Some(row) = created {
                return Ok(Registration::Created(row));
            }
            if let Some(found) = self.registered(new).await? {
                return Ok(found);
            }
        }
        Err(Error::NamesExhausted(new.slug.to_string()))
    }

    /// Which row stood in the way of a registration.
    async fn registered(&self, new: &NewTenant) -> Result<Option<Registration>> {
        let row: Option<TenantRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM tenants WHERE resource_uid = $1 OR slug = $2 AND status <> 'deprovisioned'
              ORDER BY resource_uid = $1 DESC, status = 'deprovisioned', created_at DESC LIMIT 1"
        ))
        .bind(&new.resource_uid)
        .bind(new.slug.as_str())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        if row.resource_uid == new.resource_uid {
            return Ok(Some(Registration::Existing(row)));
        }
        let same_name =
            row.resource_namespace == new.resource_namespace && row.resource_name == new.resource_name;
        if !same_name || row.purge_started_at.is_some() {
            return Ok(Some(Registration::SlugTaken {
                namespace: row.resource_namespace,
                name: row.resource_name,
                status: row.status,
            }));
        }
        // The object was lost or deleted, and made anew: the tenant is the same.
        let rebound = sqlx::query_as(concat!(
            "WITH rebound AS (
                 UPDATE tenants SET resource_uid = $3
                 WHERE id = $1 AND resource_uid = $2 AND status <> 'deprovisioned' AND purge_started_at IS NULL
                 RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT id, 'ObjectReplaced', $4, $5, jsonb_build_object('from', $2::text, 'to', $3::text)
                 FROM rebound)
             SELECT ",
            columns!(),
            " FROM rebound AS tenants"
        ))
        .bind(row.id.0)
        .bind(&row.resource_uid)
        .bind(&new.resource_uid)
        .bind(&new.actor)
        .bind(new.correlation)
        .fetch_optional(&self.pool)
        .await?;
        Ok(rebound.map(Registration::Existing))
    }

    /// Mirrors what the spec declares, the plan apart, which is recorded when it is in force. Like the functions that
    /// follow, it writes only what differs, and returns whether anything did.
    pub async fn update_declared(&self, id: TenantId, declared: &Declared<'_>) -> Result<bool> {
        let outcome = sqlx::query_as(
            "WITH found AS (SELECT name, settings, deletion_policy, gates FROM tenants WHERE id = $1),
             changed AS (
                 UPDATE tenants SET name = $2, settings = $3, deletion_policy = $4, gates = $5,
                     gates_done_at = coalesce(gates_done_at, $6)
                 WHERE id = $1 AND (name, settings, deletion_policy, gates) IS DISTINCT FROM ($2, $3, $4, $5)
                 RETURNING 1),
             fields AS (
                 -- Which fields, not what is in them: settings may be the customer's secrets.
                 SELECT to_jsonb(array_remove(ARRAY[
                     CASE WHEN name <> $2 THEN 'name' END,
                     CASE WHEN settings <> $3 THEN 'settings' END,
                     CASE WHEN deletion_policy <> $4 THEN 'deletionPolicy' END], NULL)) AS fields
                 FROM found WHERE EXISTS (SELECT FROM changed)),
             gates AS (
                 SELECT name, o.done AS before, n.done AS after
                 FROM (SELECT g.* FROM found, jsonb_to_recordset(found.gates) AS g (name text, done boolean)) AS o
                 FULL JOIN jsonb_to_recordset($5) AS n (name text, done boolean) USING (name)
                 WHERE o.done IS DISTINCT FROM n.done AND EXISTS (SELECT FROM changed)),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, details)
                 SELECT $1, 'DeclarationChanged', 'unknown', jsonb_build_object('fields', fields)
                 FROM fields WHERE fields <> '[]'
                 UNION ALL
                 SELECT $1, 'GateChanged', 'unknown',
                     jsonb_build_object('gate', name, 'from', before, 'to', after) FROM gates)
             SELECT EXISTS (SELECT FROM found), EXISTS (SELECT FROM changed)",
        )
        .bind(id.0)
        .bind(declared.name)
        .bind(declared.settings)
        .bind(policy(declared.retain))
        .bind(Json(declared.gates))
        .bind(declared.gates_done_at.map(ToSqlx::to_sqlx))
        .fetch_one(&self.pool)
        .await?;
        changed(id, outcome)
    }

    /// Records the access level that was seen in force; none where that is not known.
    pub async fn set_access(&self, id: TenantId, access: Option<AccessLevel>) -> Result<bool> {
        let outcome = sqlx::query_as(change!("access = $2", "access <> $2"))
            .bind(id.0)
            .bind(access.map_or("Unknown", AccessLevel::as_str))
            .fetch_one(&self.pool)
            .await?;
        changed(id, outcome)
    }

    /// Records the verifier that the login has, and the keyed digest of its password.
    pub async fn set_credential(
        &self,
        id: TenantId,
        verifier: Option<&str>,
        digest: Option<&[u8]>,
    ) -> Result<bool> {
        let outcome = sqlx::query_as(change!(
            "password_verifier = $2, password_digest = $3",
            "(password_verifier, password_digest) IS DISTINCT FROM ($2, $3)"
        ))
        .bind(id.0)
        .bind(verifier)
        .bind(digest)
        .fetch_one(&self.pool)
        .await?;
        changed(id, outcome)
    }

    /// Records the modules' versions, an object of name and version.
    pub async fn set_modules(&self, id: TenantId, versions: &Value) -> Result<bool> {
        let outcome = sqlx::query_as(change!("module_versions = $2", "module_versions <> $2"))
            .bind(id.0)
            .bind(versions)
            .fetch_one(&self.pool)
            .await?;
        changed(id, outcome)
    }

    /// Records whether the tenant's database is on the server. While it is, its name is nobody else's.
    pub async fn database_exists(&self, id: TenantId, exists: bool) -> Result<bool> {
        let outcome = sqlx::query_as(change!("database_exists = $2", "database_exists <> $2"))
            .bind(id.0)
            .bind(exists)
            .fetch_one(&self.pool)
            .await?;
        changed(id, outcome)
    }

    /// Records the oids under which databases and logins were seen with their marks: of all those that differ, by one
    /// statement.
    pub async fn record_oids(&self, seen: &[(TenantId, i64, i64)]) -> Result<()> {
        if seen.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = seen.iter().map(|(id, _, _)| id.0).collect();
        let databases: Vec<_> = seen.iter().map(|(_, database, _)| *database).collect();
        let logins: Vec<_> = seen.iter().map(|(_, _, login)| *login).collect();
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

    /// How many tenants have, or will have, a database on this server; retained ones count.
    pub async fn count_by_server(&self, server: &str) -> Result<i64> {
        let count = sqlx::query_scalar(
            "SELECT count(*) FROM tenants WHERE server = $1 AND (database_exists OR status <> 'deprovisioned')",
        )
        .bind(server)
        .fetch_one(&self.pool)
        .await?;
        Ok(count)
    }

    /// How many tenants are in each status; none is left out.
    pub async fn count_by_status(&self) -> Result<BTreeMap<&'static str, i64>> {
        let counted: Vec<(String, i64)> =
            sqlx::query_as("SELECT status, count(*) FROM tenants GROUP BY status")
                .fetch_all(&self.pool)
                .await?;
        let mut counts: BTreeMap<_, _> =
            RegistryStatus::ALL.into_iter().map(|status| (status.as_str(), 0)).collect();
        for (status, count) in counted {
            if let Some(entry) = counts.get_mut(status.as_str()) {
                *entry = count;
            }
        }
        Ok(counts)
    }
}

/// `tenants.deletion_policy`.
pub(super) fn policy(retain: bool) -> &'static str {
    if retain { "Retain" } else { "Purge" }
}

fn changed(id: TenantId, (found, changed): (bool, bool)) -> Result<bool> {
    if found { Ok(changed) } else { Err(Error::NotFound(id)) }
}
