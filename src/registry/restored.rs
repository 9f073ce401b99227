//! What a registry that was restored to an older state does not know any more: that a tenant was activated, or its row.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{
    Error, Registration, Registry, Result, deletion_policy,
    holds::columns_of,
    lifecycle::settle,
    record::*,
    slugs::{has_slug, is_slug_conflict},
};
use crate::domain::{
    access::holds::Hold,
    attribution::Actor,
    identity::TenantId,
    observed::RegistryStatus::{Deprovisioning, Suspended},
    placement::Placement,
    record::TenantRecord,
    slug::Slug,
};

/// A row to be written again, from the Tenant and from what its server has.
#[derive(Clone, Debug)]
pub struct LostRow {
    /// Where the tenant's database is.
    pub placement: Placement,
    /// The slug.
    pub slug: Slug,
    /// The customer's display name.
    pub name: String,
    /// The plan's name.
    pub plan: String,
    /// The database's oid.
    pub database_oid: i64,
    /// The login's oid, if it exists.
    pub login_oid: Option<i64>,
    /// The Tenant's namespace.
    pub resource_namespace: String,
    /// The Tenant's name.
    pub resource_name: String,
    /// The Tenant's uid.
    pub resource_uid: String,
    /// The holds that the Tenant's status shows.
    pub holds: Vec<Hold>,
    /// Whether the database is kept when the tenant is deprovisioned.
    pub retain: bool,
}

impl Registry {
    /// Records that a tenant was activated although its row does not say so: it is suspended until its access is evaluated.
    /// A tombstone stays one, with a grace until `purge_after` at least. Returns the row as it is afterwards.
    pub async fn restore_activation(
        &self,
        id: TenantId,
        at: Timestamp,
        purge_after: Timestamp,
        correlation: Uuid,
    ) -> Result<TenantRecord> {
        let mut transaction = self.pool.begin().await?;
        // A failed provisioning becomes a suspended tenant in two transitions.
        sqlx::query(
            "UPDATE tenants SET status = 'provisioning', rolling_back = false
             WHERE id = $1 AND status = 'failed' AND activated_at IS NULL",
        )
        .bind(id.0)
        .execute(&mut *transaction)
        .await?;
        let update = sqlx::query_as(concat!(
            "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
             changed AS (
                 UPDATE tenants SET activated_at = $2, database_exists = true, rolling_back = false,
                     status = CASE WHEN status = 'provisioning' THEN 'suspended' ELSE status END,
                     suspended_at = CASE WHEN status = 'provisioning' THEN $2 END,
                     access = CASE WHEN status = 'provisioning' THEN 'Unknown' ELSE access END,
                     status_reason = CASE WHEN status = 'deprovisioning' THEN status_reason END,
                     purge_after = CASE WHEN status = 'deprovisioning' THEN greatest(purge_after, $3) END,
                     status_updated_by = 'tenantry'
                 WHERE id = $1 AND status IN ('provisioning', 'deprovisioning') AND activated_at IS NULL
                   AND purge_started_at IS NULL RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, correlation_id, details)
                 SELECT id, 'ActivationRestored', 'tenantry', $4, jsonb_build_object('status', status) FROM changed)",
            select_updated_row!()
        ))
        .bind(id.0)
        .bind(at.to_sqlx())
        .bind(purge_after.to_sqlx())
        .bind(correlation)
        .fetch_optional(&mut *transaction)
        .await?;
        let update = settle(id, Suspended, &[Suspended, Deprovisioning], update)?;
        transaction.commit().await?;
        Ok(update.record)
    }

    /// The rows because of which a lost one cannot be written: they have its slug, or the name of its database.
    pub async fn blocking_rows(&self, lost: &LostRow) -> Result<Vec<TenantRecord>> {
        let rows = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM tenants WHERE id <> $1 AND (",
            has_slug!("$2"),
            " OR (server, database_name, coalesce(schema_name, '')) = ($3, $4, coalesce($5, ''))
                      AND (database_exists OR status <> 'deprovisioned'))"
        ))
        .bind(lost.placement.tenant.0)
        .bind(lost.slug.as_str())
        .bind(&lost.placement.server)
        .bind(&lost.placement.database)
        .bind(&lost.placement.schema)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }

    /// Writes a lost row again, as that of an activated tenant that is suspended until its access is evaluated. The rows of
    /// earlier tenants of which nothing is left are closed before, if they are as they were read. Another row of that slug
    /// stays.
    pub async fn adopt_row(
        &self,
        lost: &LostRow,
        superseded: &[TenantRecord],
        at: Timestamp,
    ) -> Result<Registration> {
        let Placement { tenant: id, server, database, schema, login, .. } = &lost.placement;
        let (holds, unrestricting_holds) = columns_of(&lost.holds);
        let mut transaction = self.pool.begin().await?;
        for row in superseded {
            close_superseded(&mut transaction, row, *id, at).await?;
        }
        let inserted = sqlx::query(
            "INSERT INTO tenants (id, slug, name, plan, server, database_name, schema_name, login_name, database_exists,
                 database_oid, login_oid, resource_namespace, resource_name, resource_uid, deletion_policy, holds,
                 unrestricting_holds)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, true, $9, $10, $11, $12, $13, $14, $15, $16)
             ON CONFLICT DO NOTHING",
        )
        .bind(id.0)
        .bind(lost.slug.as_str())
        .bind(&lost.name)
        .bind(&lost.plan)
        .bind(server)
        .bind(database)
        .bind(schema)
        .bind(login)
        .bind(lost.database_oid)
        .bind(lost.login_oid)
        .bind(&lost.resource_namespace)
        .bind(&lost.resource_name)
        .bind(&lost.resource_uid)
        .bind(deletion_policy(lost.retain))
        .bind(Json(holds))
        .bind(Json(unrestricting_holds))
        .execute(&mut *transaction)
        .await;
        let is_written = match inserted {
            // It is a former slug of another tenant.
            Err(error) if is_slug_conflict(&error) => false,
            other => other?.rows_affected() > 0,
        };
        if !is_written {
            transaction.rollback().await?;
            return self.blocking_row(*id, &lost.slug).await;
        }
        let adopted = sqlx::query_as(concat!(
            "WITH adopted AS (
                 UPDATE tenants SET status = 'suspended', activated_at = $2, suspended_at = $2,
                     status_updated_by = $3
                 WHERE id = $1 RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, details)
                 SELECT id, 'RowAdopted', $3,
                     jsonb_build_object('slug', slug, 'server', server, 'database', database_name)
                 FROM adopted)
             SELECT ",
            columns!(),
            " FROM adopted AS tenants"
        ))
        .bind(id.0)
        .bind(at.to_sqlx())
        .bind(Actor::by_annotation().to_string())
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Registration::Created { row: adopted, former: None })
    }

    /// Gives the row of a tenant that is not being deprovisioned to another Tenant. None, and nothing is written, if it is not
    /// as it was read.
    pub async fn take_over(
        &self,
        row: &TenantRecord,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<Option<TenantRecord>> {
        let taken = sqlx::query_as(concat!(
            "WITH taken AS (
                 UPDATE tenants SET resource_namespace = $3, resource_name = $4, resource_uid = $5, vanished = NULL
                 WHERE id = $1 AND updated_at = $2 AND status NOT IN ('deprovisioning', 'deprovisioned') RETURNING *),
             logged AS (
                 INSERT INTO activity (tenant_id, action, actor, details)
                 SELECT id, 'Moved', $7, jsonb_build_object('from', $6::text, 'to', $3 || '/' || $4) FROM taken)
             SELECT ",
            columns!(),
            " FROM taken AS tenants"
        ))
        .bind(row.id.0)
        .bind(row.updated_at.to_sqlx())
        .bind(namespace)
        .bind(name)
        .bind(uid)
        .bind(format!("{}/{}", row.resource_namespace, row.resource_name))
        .bind(Actor::by_annotation().to_string())
        .fetch_optional(&self.pool)
        .await?;
        Ok(taken)
    }

    /// Whether the tenant was moved away from this Tenant, by what the registry knows.
    pub async fn was_moved_from(&self, id: TenantId, namespace: &str, name: &str) -> Result<bool> {
        let moved = sqlx::query_scalar(
            "SELECT EXISTS (
                 SELECT FROM (SELECT tenant_id, action, details FROM activity
                              UNION ALL SELECT tenant_id, action, details FROM activity_archive) AS a
                 WHERE tenant_id = $1 AND action = 'Moved' AND details->>'from' = $2 || '/' || $3)",
        )
        .bind(id.0)
        .bind(namespace)
        .bind(name)
        .fetch_one(&self.pool)
        .await?;
        Ok(moved)
    }

    /// The row because of which a lost one cannot be written again.
    async fn blocking_row(&self, id: TenantId, slug: &Slug) -> Result<Registration> {
        let row: Option<TenantRecord> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM tenants WHERE id = $1 OR ",
            has_slug!("$2"),
            " ORDER BY id = $1 DESC LIMIT 1"
        ))
        .bind(id.0)
        .bind(slug.as_str())
        .fetch_optional(&self.pool)
        .await?;
        match row {
            Some(row) if row.id == id => Ok(Registration::Existing(row)),
            Some(row) => Ok(Registration::SlugTaken(Box::new(row))),
            None => Err(Error::NamesExhausted(slug.to_string())),
        }
    }
}

/// Closes a row of which nothing is left: the registry was restored to a time when its tenant still existed.
async fn close_superseded(
    transaction: &mut PgConnection,
    row: &TenantRecord,
    by: TenantId,
    at: Timestamp,
) -> Result<()> {
    sqlx::query(
        "UPDATE workflows SET finished_at = now(), outcome = 'Failed' WHERE tenant_id = $1 AND finished_at IS NULL",
    )
    .bind(row.id.0)
    .execute(&mut *transaction)
    .await?;
    // A row is closed in two transitions.
    let leaving = sqlx::query(
        "UPDATE tenants SET status = 'deprovisioning', status_reason = $3, status_updated_by = $5,
             offboarding_trigger = coalesce(offboarding_trigger, 'CustomerRequest'), rolling_back = false,
             deprovisioned_at = coalesce(deprovisioned_at, $4), purge_after = coalesce(purge_after, $4)
         WHERE id = $1 AND updated_at = $2",
    )
    .bind(row.id.0)
    .bind(row.updated_at.to_sqlx())
    .bind(format!("nothing is left of it, and tenant {by} has its slug: the registry was restored"))
    .bind(at.to_sqlx())
    .bind(Actor::by_annotation().to_string())
    .execute(&mut *transaction)
    .await?;
    if leaving.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query(
        "WITH closed AS (
             UPDATE tenants SET status = 'deprovisioned', closed_at = now(), access = 'Blocked', database_exists = false,
                 password_verifier = NULL, password_digest = NULL, previous_login = NULL, previous_login_oid = NULL,
                 previous_verifier = NULL, previous_login_since = NULL, previous_login_until = NULL,
                 reader_login = NULL, reader_login_oid = NULL, reader_verifier = NULL, reader_digest = NULL,
                 reader_issued_at = NULL WHERE id = $1 RETURNING *),
         receipt AS (
             INSERT INTO deletion_receipts (tenant_id, slug, server, database_name, schema_name, database_retained,
                 offboarding_trigger, requested_by, reason, requested_at)
             SELECT id, slug, server, database_name, schema_name, false, offboarding_trigger, status_updated_by,
                 status_reason, deprovisioned_at FROM closed)
         INSERT INTO activity (tenant_id, action, actor, reason, details)
         SELECT id, 'RowSuperseded', status_updated_by, status_reason, jsonb_build_object('by', $2::text) FROM closed",
    )
    .bind(row.id.0)
    .bind(by.to_string())
    .execute(&mut *transaction)
    .await?;
    Ok(())
}
