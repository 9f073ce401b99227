//! What the admission webhook asks of the registry, and records there. It has sessions of its own, beside the pool: it is served
//! by replicas that do not lead, and a request to the API server waits for it, so that an answer comes at once or not at all.

use std::{sync::Arc, time::Duration};

use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::time::timeout;

use super::{Error, Registry, Result, slugs::slug_owner};
use crate::{
    domain::{record::TenantRecord, slug::Slug},
    own_authority::Relay,
};

/// How long anything may take.
const ANSWER: Duration = Duration::from_secs(1);

/// The most sessions. They end when they were idle for a minute.
const SESSIONS: u32 = 2;

/// The registry, for admission. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AdmissionRegistry {
    pool: PgPool,
    _relay: Option<Arc<Relay>>,
}

impl Registry {
    /// The same registry, for admission. No session is opened before the first question.
    pub fn for_admission(&self) -> AdmissionRegistry {
        let options = (*self.options).clone().options([("statement_timeout", "1s"), ("lock_timeout", "1s")]);
        let pool = PgPoolOptions::new()
            .max_connections(SESSIONS)
            .acquire_timeout(ANSWER)
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(options);
        AdmissionRegistry { pool, _relay: self._relay.clone() }
    }
}

impl AdmissionRegistry {
    /// The tenant that has a slug, or for which it is reserved.
    pub async fn slug_owner(&self, slug: &Slug) -> Result<Option<TenantRecord>> {
        answer(slug_owner(&self.pool, slug)).await
    }

    /// Whether a tenant whose Tenant has or had this name is not closed.
    pub async fn has_tenant(&self, namespace: &str, name: &str) -> Result<bool> {
        let found = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM tenants
             WHERE resource_namespace = $1 AND resource_name = $2 AND status <> 'deprovisioned')",
        )
        .bind(namespace)
        .bind(name)
        .fetch_one(&self.pool);
        answer(found).await
    }

    /// Records who deletes an object. The last request counts: those before it were refused after all.
    pub async fn record_deletion(&self, uid: &str, actor: &str) -> Result<()> {
        let recorded = sqlx::query(
            "INSERT INTO deletion_actors (object_uid, actor) VALUES ($1, $2)
             ON CONFLICT (object_uid) DO UPDATE SET actor = excluded.actor, at = now()",
        )
        .bind(uid)
        .bind(actor)
        .execute(&self.pool);
        answer(recorded).await.map(drop)
    }

    /// Closes the sessions.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

async fn answer<T>(question: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    Ok(timeout(ANSWER, question).await.map_err(|_| Error::NoAnswer)??)
}
