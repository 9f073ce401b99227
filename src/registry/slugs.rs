//! Changes of a tenant's slug. Its former slugs stay reserved for it in `slug_history`, whose unique index decides who has a
//! slug.

use sqlx::PgPool;
use uuid::Uuid;

use super::{Error, Registry, Result, record::*};
use crate::domain::{identity::TenantId, record::TenantRecord, slug::Slug};

/// The indexes that allow a slug for one tenant only.
const SLUG_INDEXES: [&str; 2] = ["tenants_slug", "slug_history_reserved"];

/// The condition that a tenant has a slug, or that it is reserved for it: the unique indexes on both refuse it to others.
macro_rules! has_slug {
    ($slug:literal) => {
        concat!(
            "(slug = ",
            $slug,
            " AND status <> 'deprovisioned' OR id = (SELECT tenant_id FROM slug_history WHERE slug = ",
            $slug,
            " AND reserved))"
        )
    };
}
pub(super) use has_slug;

/// The tenant that has a slug, or for which it is reserved.
pub(super) async fn slug_owner(pool: &PgPool, slug: &Slug) -> sqlx::Result<Option<TenantRecord>> {
    sqlx::query_as(concat!("SELECT ", columns!(), " FROM tenants WHERE ", has_slug!("$1")))
        .bind(slug.as_str())
        .fetch_optional(pool)
        .await
}

/// A change of a slug.
#[derive(Clone, Debug)]
pub struct SlugChange<'a> {
    /// The slug in force, as it was read.
    pub from: &'a str,
    /// The new one.
    pub to: &'a Slug,
    /// Who changed it.
    pub actor: &'a str,
    /// The reason that was given with this change.
    pub reason: Option<&'a str>,
    /// The workflow.
    pub correlation: Option<Uuid>,
}

/// The result of a change of a slug.
#[derive(Clone, Debug, PartialEq)]
pub enum SlugChanged {
    /// The tenant has the new slug.
    Changed(Box<TenantRecord>),
    /// Another tenant, with this row, has the slug, or had it before: nothing was changed.
    Taken(Box<TenantRecord>),
    /// The row is not as it was read, or its purge has begun: nothing was changed.
    Outdated,
}

impl Registry {
    /// Gives a tenant another slug, and keeps its slug reserved for it. One that it had before is its own again. If it has
    /// the new one already, nothing is written.
    pub async fn change_slug(&self, id: TenantId, change: &SlugChange<'_>) -> Result<SlugChanged> {
        // The tenant that has the slug may be deprovisioned before its row is read: then the change is tried again.
        for _ in 0..5 {
            let update: sqlx::Result<Option<Update>> = sqlx::query_as(concat!(
                "WITH before AS (SELECT * FROM tenants WHERE id = $1 FOR UPDATE),
                 changed AS (
                     UPDATE tenants SET slug = $3
                     WHERE id = $1 AND slug = $2 AND slug <> $3
                       AND status <> 'deprovisioned' AND purge_started_at IS NULL
                       AND NOT EXISTS (
                           SELECT FROM slug_history h WHERE h.slug = $3 AND h.reserved AND h.tenant_id <> $1)
                       AND NOT EXISTS (
                           SELECT FROM tenants o WHERE o.slug = $3 AND o.status <> 'deprovisioned' AND o.id <> $1)
                     RETURNING *),
                 logged AS (
                     INSERT INTO activity (tenant_id, action, actor, reason, correlation_id, details)
                     SELECT id, 'SlugChanged', $4, $5, $6, jsonb_build_object('from', $2::text, 'to', slug)
                     FROM changed)",
                select_updated_row!()
            ))
            .bind(id.0)
            .bind(change.from)
            .bind(change.to.as_str())
            .bind(change.actor)
            .bind(change.reason)
            .bind(change.correlation)
            .fetch_optional(&self.pool)
            .await;
            let update = match update {
                // Another tenant got the slug at the same moment.
                Err(error) if is_slug_conflict(&error) => continue,
                other => other?,
            };
            let Update { record, changed } = update.ok_or(Error::NotFound(id))?;
            if changed || record.slug == change.to.as_str() {
                return Ok(SlugChanged::Changed(Box::new(record)));
            }
            if record.slug != change.from || record.purge_started_at.is_some() || record.closed_at.is_some() {
                return Ok(SlugChanged::Outdated);
            }
            if let Some(owner) = slug_owner(&self.pool, change.to).await? {
                return Ok(SlugChanged::Taken(Box::new(owner)));
            }
        }
        Ok(SlugChanged::Outdated)
    }
}

/// Whether a statement failed because another tenant has a slug.
pub(super) fn is_slug_conflict(error: &sqlx::Error) -> bool {
    let refusal = error.as_database_error().filter(|refusal| refusal.is_unique_violation());
    refusal.and_then(|refusal| refusal.constraint()).is_some_and(|index| SLUG_INDEXES.contains(&index))
}
