//! The registry: the system database with one row per tenant, deprovisioned ones included, the history of workflows and the
//! activity log.
//!
//! One statement per change: a status, its activity row and a receipt are written together, so that no change is half
//! written and each step costs one round trip. A change of a tenant's row returns the row as it is afterwards ([`Update`]).
//! The rules that no program may break are constraints and triggers of `migrations/system`; this module reports their
//! refusals as [`Error`].
//!
//! Every session runs as the role `tenantry_admin` and carries this process's identity as `application_name`. The same
//! name is the holder of its workflows: the database refuses to change a tenant while another live process runs its
//! workflow.

mod accounts;
mod activity;
mod admission;
mod audit;
mod breaker;
mod claim;
mod declarations;
mod declared_objects;
mod deletions;
mod error;
mod holds;
mod inactivity;
mod lifecycle;
mod migrate;
mod migration_runs;
mod module_purges;
mod modules;
mod reader_login;
mod record;
mod registration;
mod restored;
mod retention;
mod rotation;
mod row_changes;
mod servers;
mod slugs;
mod support_access;
mod takeover;
mod tenants;
mod tombstones;
mod usage;
mod workflows;

use std::{sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;
use uuid::Uuid;

use self::claim::Claim;
pub use self::{
    activity::Activity,
    admission::AdmissionRegistry,
    audit::{ActivityFilter, AuditSnapshot},
    breaker::{Count, Opening},
    deletions::DeletedObject,
    error::Error,
    holds::HoldChange,
    inactivity::SessionSample,
    lifecycle::NewState,
    module_purges::DroppedModule,
    record::Update,
    registration::{NewTenant, Registration},
    restored::LostRow,
    retention::Removed,
    rotation::NewCredentials,
    row_changes::{Declared, NewPlan},
    servers::{ServerIdentity, ServerMatch},
    slugs::{SlugChange, SlugChanged},
    support_access::SupportEnd,
    tenants::KnownTenant,
    tombstones::{Closing, Deadline, Tombstone},
    workflows::{StepHistory, WorkflowOutcome},
};
use crate::{
    domain::record::Hidden,
    fence::Fence,
    own_authority::{OwnAuthority, Relay},
    traces::with_traced_statements,
};

/// The result of this module's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The role that owns the registry; the operator's login is a member of it.
const ROLE: &str = "tenantry_admin";

/// A pooled connection that was idle for longer than this is tested before use.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How long a statement waits for a free or a new connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The system database. Cheap to clone: all clones share one small pool.
#[derive(Clone, Debug)]
pub struct Registry {
    pool: PgPool,
    options: Arc<PgConnectOptions>,
    claim: Arc<Claim>,
    /// Open as long as a clone of this one exists.
    _relay: Option<Arc<Relay>>,
}

/// The identity of this installation.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Recorded on the servers that belong to this installation.
    pub id: Uuid,
    /// The key of the digests by which a Secret's password is compared with the one in force.
    pub digest_key: Hidden<Vec<u8>>,
}

impl Registry {
    /// Connects. `application_name` is this process's identity: unique, at most 63 bytes of printable ASCII. At most
    /// `max_connections` sessions are open at a time, including the one that holds this process's claims. The migrations
    /// need not have run yet.
    pub async fn connect(url: &str, application_name: &str, max_connections: u32) -> Result<Self> {
        Self::connect_fenced(url, application_name, max_connections, Fence::default()).await
    }

    /// As `connect`; once the fence is closed, no further statement is sent.
    pub async fn connect_fenced(
        url: &str,
        application_name: &str,
        max_connections: u32,
        fence: Fence,
    ) -> Result<Self> {
        let (idle, fresh) = (fence.clone(), fence);
        let options = with_traced_statements(options(url, application_name)?, true);
        error::set_address(&options);
        let (options, relay) = match OwnAuthority::of(&options)? {
            Some(authority) => {
                let relay = timeout(ACQUIRE_TIMEOUT, authority.relay(&options)).await;
                let (options, relay) = relay.map_err(|_| Error::NoAnswer)??;
                (options, Some(Arc::new(relay)))
            }
            None => (options, None),
        };
        let pool = PgPoolOptions::new()
            .max_connections(max_connections.saturating_sub(1).max(1))
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(Duration::from_secs(300))
            // A test of the connection before every statement would double the round trips.
            .test_before_acquire(false)
            .after_connect(move |_, _| {
                let open = fresh.is_open();
                Box::pin(async move { if open { Ok(()) } else { Err(fenced()) } })
            })
            .before_acquire(move |connection, meta| {
                let open = idle.is_open();
                Box::pin(async move {
                    if !open {
                        return Err(fenced());
                    }
                    if meta.idle_for > TRUSTED_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options.clone());
        // Not through the pool, which retries until its timeout and then hides the cause.
        options.connect().await?.close().await?;
        let options = Arc::new(options);
        let claim = Arc::new(Claim::new(Arc::clone(&options)));
        Ok(Self { pool, options, claim, _relay: relay })
    }

    /// Refuses a registry whose schema this release cannot use. One that is not migrated yet is not refused.
    pub async fn check_schema(&self) -> Result<()> {
        let mut connection = self.pool.acquire().await?;
        migrate::check(&mut connection).await
    }

    /// Migrates the registry's schema. Only a leader does: another release may lead, and be rolled back to. Processes that
    /// migrate at the same time wait for each other.
    pub async fn migrate(&self) -> Result<()> {
        migrate::run(&self.options).await
    }

    /// The identity of this installation.
    pub async fn installation(&self) -> Result<Installation> {
        let (id, key) =
            sqlx::query_as("SELECT id, digest_key FROM installation").fetch_one(&self.pool).await?;
        Ok(Installation { id, digest_key: Hidden(key) })
    }

    /// The name of the system database.
    pub fn database(&self) -> Option<&str> {
        self.options.get_database()
    }

    /// Checks that the registry responds.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Ends the registry sessions of other processes, and with them their claims. Returns the number of sessions. Called by
    /// a new leader for the leaders before it: such a process can connect again, but its workflows are taken over.
    pub async fn end_sessions_of(&self, holders: &[String]) -> Result<i64> {
        let mut transaction = self.pool.begin().await?;
        // The login may end its own sessions. tenantry_admin can neither see nor end the login's if it was not granted
        // pg_read_all_stats and pg_signal_backend.
        sqlx::query("SET LOCAL ROLE NONE").execute(&mut *transaction).await?;
        let ended = sqlx::query_scalar(
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
             WHERE application_name = ANY ($1) AND datname = current_database() AND pid <> pg_backend_pid()",
        )
        .bind(holders)
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(ended)
    }

    /// Closes all sessions. Claims end with them.
    pub async fn disconnect(&self) {
        self.claim.close().await;
        self.pool.close().await;
    }
}

fn fenced() -> sqlx::Error {
    sqlx::Error::Protocol("this operator no longer holds the Lease; the new leader goes on".into())
}

fn options(url: &str, application_name: &str) -> Result<PgConnectOptions> {
    let options: PgConnectOptions = url.parse().map_err(Error::Url)?;
    Ok(options.application_name(application_name).options([
        ("role", ROLE),
        // pg_catalog is searched first, implicitly. Temporary objects are never used.
        ("search_path", "public,pg_temp"),
        ("statement_timeout", "30s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "30s"),
        // The session that holds the claims is always idle.
        ("idle_session_timeout", "0"),
        // The claims of a machine that disappeared end within a minute.
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
    ]))
}

/// `tenants.deletion_policy`.
fn deletion_policy(retain: bool) -> &'static str {
    if retain { "Retain" } else { "Purge" }
}
