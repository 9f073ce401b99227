//! The registry: the system database with one row per tenant that ever was, the history of workflows and the
//! activity log.
//!
//! One statement per change: what belongs together (a status, its activity row, a receipt) is written by one
//! statement, so that nothing is ever half-written and each step costs one round trip. The rules that must hold
//! whatever a program does are constraints and triggers of `migrations/system`; this module asks in a way that
//! does not break them, and tells their refusals apart ([`Error`]).
//!
//! Every session runs as the role `tenantry_admin` and carries this process's identity as `application_name`. The
//! same name is the holder of its workflows: the database refuses to change a tenant whose workflow is held by
//! another process that is alive.

mod breaker;
mod claim;
mod error;
mod lifecycle;
mod limits;
mod migrate;
mod row;
mod servers;
mod standing;
mod tenants;
mod tombstones;
mod workflows;

use std::{sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use self::claim::Claim;
pub use self::{
    breaker::Opening,
    error::Error,
    lifecycle::{Activity, NewState},
    limits::{Declared, NewPlan},
    row::{Hidden, NewTenant, Registration, TenantRow},
    standing::{HoldChange, SessionsSeen},
    tombstones::{Deadline, Tombstone, Written},
    workflows::{Outcome, StepRecord, Workflow},
};
use crate::fence::Fence;

/// What a function of this module returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The role that owns the registry; the operator's login is a member of it.
const ROLE: &str = "tenantry_admin";

/// A connection that waited for longer than this is tried before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How long a statement waits for a connection, to come free or to be made.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The system database. Cheap to clone: all clones share one small pool.
#[derive(Clone, Debug)]
pub struct Registry {
    pool: PgPool,
    options: Arc<PgConnectOptions>,
    claim: Arc<Claim>,
}

/// Who this installation is.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Marks the servers that belong to this installation.
    pub id: Uuid,
    /// The key of the digests by which a Secret's password is compared with the one in force.
    pub digest_key: Hidden<Vec<u8>>,
}

impl Registry {
    /// Connects. `application_name` is this process's identity: unlike any other process's, at most 63 bytes of
    /// printable ASCII. At most `max_connections` sessions are ever open, one of which is the one that holds this
    /// process's claims. The migrations need not have run yet.
    pub async fn connect(url: &str, application_name: &str, max_connections: u32) -> Result<Self> {
        Self::connect_fenced(url, application_name, max_connections, Fence::default()).await
    }

    /// As `connect`; once the fence is shut, no statement is sent any more.
    pub async fn connect_fenced(
        url: &str,
        application_name: &str,
        max_connections: u32,
        fence: Fence,
    ) -> Result<Self> {
        let (idle, fresh) = (fence.clone(), fence);
        let options = options(url, application_name)?;
        let pool = PgPoolOptions::new()
            .max_connections(max_connections.saturating_sub(1).max(1))
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(Duration::from_secs(300))
            // A round trip per statement only to see whether the server is there would double all of them.
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
        // Not through the pool, which would try for a while and then only say that it did.
        options.connect().await?.close().await?;
        let options = Arc::new(options);
        let claim = Arc::new(Claim::new(Arc::clone(&options)));
        Ok(Self { pool, options, claim })
    }

    /// Brings the registry's schema up to date. Processes that start at the same time wait for each other.
    pub async fn migrate(&self) -> Result<()> {
        migrate::run(&self.options).await
    }

    /// Who this installation is.
    pub async fn installation(&self) -> Result<Installation> {
        let (id, key) =
            sqlx::query_as("SELECT id, digest_key FROM installation").fetch_one(&self.pool).await?;
        Ok(Installation { id, digest_key: Hidden(key) })
    }

    /// Whether the registry answers.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Ends the registry sessions of other processes, with which their claims end, and returns how many there were.
    /// For a new leader, of those before it. A process that is alive will connect again, but finds its workflows
    /// taken over.
    pub async fn end_sessions_of(&self, holders: &[String]) -> Result<i64> {
        let mut transaction = self.pool.begin().await?;
        // The login may end its own sessions and has tenantry_admin's rights besides; tenantry_admin alone may
        // neither see nor end the login's where pg_signal_backend and pg_read_all_stats were not to be had.
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
        // First of all, implicitly: pg_catalog. Nothing of ours is ever temporary.
        ("search_path", "public,pg_temp"),
        ("statement_timeout", "30s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "30s"),
        // The session that holds the claims is idle all the time.
        ("idle_session_timeout", "0"),
        // So that the claims of a machine that is gone end within a minute.
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
    ]))
}
