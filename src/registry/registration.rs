//! Registration: which tenant a slug and its database names belong to.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::{FromRow, Row, postgres::PgRow, types::Json};
use uuid::Uuid;

use super::{
    Error, Registry, Result,
    declarations::change_rows,
    deletion_policy,
    record::*,
    slugs::{has_slug, is_slug_conflict},
};
use crate::domain::{
    declaration::{ChangeRow, Declaration},
    identity::TenantId,
    names::{DatabaseNaming, login_name},
    observed::Takeover,
    record::TenantRecord,
    slug::Slug,
    slug_owner::FormerTenant,
};

/// A tenant to be registered.
#[derive(Clone, Debug)]
pub struct NewTenant {
    /// The slug.
    pub slug: Slug,
    /// The customer's display name.
    pub name: String,
    /// The plan's name.
    pub plan: String,
    /// The tenant's settings, an object.
    pub settings: BTreeMap<String, Value>,
    /// The server of its database.
    pub server: String,
    /// How that server's databases are named.
    pub naming: DatabaseNaming,
    /// The Tenant's namespace.
    pub resource_namespace: String,
    /// The Tenant's name.
    pub resource_name: String,
    /// The Tenant's uid.
    pub resource_uid: String,
    /// Whether the database is kept when the tenant is deprovisioned.
    pub retain: bool,
    /// Who requested it.
    pub actor: String,
    /// What its Tenant declares.
    pub declaration: Declaration,
    /// The rows of the activity log about that.
    pub created: Vec<ChangeRow>,
    /// The correlation id of the provisioning, if there is one already.
    pub correlation: Option<Uuid>,
}

/// The result of a registration.
#[derive(Clone, Debug, PartialEq)]
pub enum Registration {
    /// The row was created.
    Created {
        /// The row.
        row: TenantRecord,
        /// The tenant that had the slug before.
        former: Option<FormerTenant>,
    },
    /// The row existed: this Tenant was registered before, or one of the same namespace, name and slug.
    Existing(TenantRecord),
    /// Another tenant, with this row, has the slug, or had it before.
    SlugTaken(Box<TenantRecord>),
}

/// A row that was created.
struct Created(TenantRecord, Option<FormerTenant>);

impl<'r> FromRow<'r, PgRow> for Created {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let Some(id) = row.try_get::<Option<Uuid>, _>("former_id")? else {
            return Ok(Self(TenantRecord::from_row(row)?, None));
        };
        let former = FormerTenant {
            id: TenantId(id),
            object: row.try_get("former_object")?,
            closed_at: row.try_get::<jiff_sqlx::Timestamp, _>("former_closed_at")?.to_jiff(),
            retained_database: row.try_get("former_database")?,
        };
        Ok(Self(TenantRecord::from_row(row)?, Some(former)))
    }
}

impl Registry {
    /// Registers a tenant, and reserves its slug and the names of its database and login. For a Tenant that was registered
    /// before, the row is returned, even if it is closed. A recreated Tenant of the same namespace, name and slug takes
    /// over the open row, even a tombstone, unless its purge has begun. A former slug of another tenant is taken too.
    pub async fn register(&self, new: &NewTenant) -> Result<Registration> {
        let id = TenantId(Uuid::new_v4());
        let databases = new.naming.candidates(&new.slug, id);
        let exists = matches!(new.naming, DatabaseNaming::Existing { .. });
        let takeover = exists.then_some(Takeover::Pending);
        let logins: Vec<String> = databases.iter().map(|name| login_name(name)).collect();
        // The first workflow of the tenant gets the same id.
        let correlation = new.correlation.unwrap_or_else(Uuid::new_v4);
        // The row that blocked the insert may be closed before it is read: then the insert is tried again.
        for _ in 0..5 {
            let created: sqlx::Result<Option<Created>> = sqlx::query_as(concat!(
                "WITH free AS (
                     SELECT n.database, n.login
                     FROM unnest($11::text[], $12::text[]) WITH ORDINALITY AS n (database, login, occurrence)
                     WHERE NOT EXISTS (
                         SELECT FROM tenants t WHERE t.server = $6 AND t.database_name = n.database
                         AND (t.database_exists OR t.status <> 'deprovisioned'))
                     ORDER BY n.occurrence LIMIT 1),
                 created AS (
                     INSERT INTO tenants (id, slug, name, plan, settings, server, database_name, login_name,
                         resource_namespace, resource_name, resource_uid, deletion_policy, status_updated_by, takeover,
                         declaration)
                     SELECT $1, $2, $3, $4, $5, $6, free.database, free.login, $7, $8, $9, $10, $13, $15, $16 FROM free
                     WHERE NOT EXISTS (SELECT FROM tenants WHERE resource_uid = $9)
                       AND NOT EXISTS (SELECT FROM slug_history WHERE slug = $2 AND reserved)
                     ON CONFLICT DO NOTHING RETURNING *),
                 logged AS (
                     INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
                     SELECT id, action, actor, reason, $14, details
                     FROM (
                         SELECT c.id, r.* FROM created c, ",
                change_rows!("$17"),
                "
                         UNION ALL
                         SELECT id, action, $13, NULL, details, number FROM created, LATERAL (VALUES
                             (1000, 'Requested', jsonb_build_object('object', resource_namespace || '/' || resource_name,
                                 'plan', plan)),
                             (1001, 'Registered',
                                 jsonb_build_object('slug', slug, 'server', server, 'database', database_name))
                         ) AS entry (number, action, details)) AS rows
                     ORDER BY number)
                 SELECT ",
                columns!(),
                ", former_id, former_object, former_closed_at, former_database
                 FROM created AS tenants LEFT JOIN LATERAL (
                     SELECT t.id AS former_id, t.resource_namespace || '/' || t.resource_name AS former_object,
                         t.closed_at AS former_closed_at,
                         CASE WHEN t.database_exists THEN t.database_name END AS former_database
                     FROM slug_history h JOIN tenants t ON t.id = h.tenant_id
                     WHERE h.slug = $2 AND t.status = 'deprovisioned' AND t.activated_at IS NOT NULL
                     ORDER BY t.closed_at DESC LIMIT 1) AS former ON true"
            ))
            .bind(id.0)
            .bind(new.slug.as_str())
            .bind(&new.name)
            .bind(&new.plan)
            .bind(Json(&new.settings))
            .bind(&new.server)
            .bind(&new.resource_namespace)
            .bind(&new.resource_name)
            .bind(&new.resource_uid)
            .bind(deletion_policy(new.retain))
            .bind(&databases)
            .bind(&logins)
            .bind(&new.actor)
            .bind(correlation)
            .bind(takeover.map(Takeover::as_str))
            .bind(Json(&new.declaration))
            .bind(Json(&new.created))
            .fetch_optional(&self.pool)
            .await;
            let created = match created {
                // Another tenant got the slug at the same moment.
                Err(error) if is_slug_conflict(&error) => None,
                other => other?,
            };
            if let Some(Created(row, former)) = created {
                return Ok(Registration::Created { row, former });
            }
            if let Some(found) = self.registered(new).await? {
                return Ok(found);
            }
        }
        Err(Error::NamesExhausted(new.slug.to_string()))
    }

    /// The result of a registration that an existing row blocked; none if that row does not exist any more.
    async fn registered(&self, new: &NewTenant) -> Result<Option<Registration>> {
        let row: Option<TenantRecord> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM tenants WHERE resource_uid = $1 OR ",
            has_slug!("$2"),
            " ORDER BY resource_uid = $1 DESC, status = 'deprovisioned', created_at DESC LIMIT 1"
        ))
        .bind(&new.resource_uid)
        .bind(new.slug.as_str())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let same_name =
            row.resource_namespace == new.resource_namespace && row.resource_name == new.resource_name;
        let same_slug = row.slug == new.slug.as_str();
        // A row that was moved keeps the uid of the former object until the new one is registered.
        if same_name && row.resource_uid == new.resource_uid {
            return Ok(Some(Registration::Existing(row)));
        }
        if !same_name || !same_slug || row.purge_started_at.is_some() {
            return Ok(Some(Registration::SlugTaken(Box::new(row))));
        }
        // The object was lost or deleted, and recreated: the tenant is the same.
        let rebound = sqlx::query_as(concat!(
            "WITH rebound AS (
                 UPDATE tenants SET resource_uid = $3, vanished = NULL, status_generation = NULL,
                     entitlements_generation = NULL
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
}
