//! A handle on one server.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, Instant},
};

use rand::RngExt;
use sqlx::Connection;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};

use crate::{
    domain::{
        identity::TenantId,
        names::building_name,
        placement::Placement,
        rights::RightsReport,
        structure::SchemaPart,
        tenant_facts::{RecordedOids, TenantFacts},
    },
    fence::Fence,
    keyed_lock::KeyedLock,
};

use super::{
    catalog::inventory::{self, Inventory, Selection},
    error::{Error, Result, code, is_concurrent_update, is_lock_timeout},
    identifier::{Ident, Script},
    session::{
        blocked::Blocked,
        blockers::unblock,
        connect::{DATABASE_LIMIT, STATEMENT_LIMIT, ServerConfig, with_timeout},
        pool::{Session, Sessions, lock},
    },
};

/// How often a statement is retried after a concurrent change of the same catalog row.
const ATTEMPTS: u32 = 6;
/// For how long a statement is retried that waits for locks: each attempt waits up to a second, and other operations wait
/// for its session.
const LOCK_LIMIT: Duration = Duration::from_millis(1900);
/// How often, and at which interval, a former leader's sessions are ended until none is left.
const END_ROUNDS: u32 = 500;
const END_PAUSE: Duration = Duration::from_millis(10);

/// By host and port: two `DatabaseServer`s may be the same server, and must not build one template twice.
static TEMPLATE_LOCKS: LazyLock<Mutex<HashMap<(String, u16), BuildLock>>> = LazyLock::new(Mutex::default);

/// A lock under which one template is built.
type BuildLock = Arc<tokio::sync::Mutex<()>>;

/// A server that hosts tenant databases. Cheap to clone; all clones share the sessions and their cap.
///
/// Every operation is idempotent: it may be cancelled at any await and run again.
#[derive(Clone, Debug)]
pub struct Server {
    pub(super) inner: Arc<Inner>,
    /// Whether this handle is for operations that restrict access.
    restricts: bool,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) sessions: Arc<Sessions>,
    /// One template is built at a time, across all handles on the server.
    pub(super) template_lock: BuildLock,
    /// One module is rehearsed at a time: its holder may use and drop the scratch databases.
    pub(super) scratch_lock: tokio::sync::Mutex<()>,
    /// One database is dropped at a time.
    pub(super) drop_lock: tokio::sync::Mutex<()>,
    /// One tenant's tables are vacuumed at a time.
    pub(super) reclaim_lock: tokio::sync::Mutex<()>,
    /// The session that ends those of tenants that use too much, opened when it is needed first.
    pub(super) excess_watch: tokio::sync::Mutex<Option<Session>>,
    /// Shared roles are prepared by one task at a time.
    pub(super) prepare_lock: tokio::sync::Mutex<()>,
    /// One task at a time changes the rights of a tenant.
    tenant_locks: KeyedLock<TenantId>,
    /// Rights in tenants' databases that were found to differ, until they are reported.
    pub(super) rights: Mutex<HashMap<TenantId, RightsReport>>,
    /// What templates have, by digest, once it was read.
    pub(super) structures: Mutex<HashMap<String, Arc<Vec<SchemaPart>>>>,
}

impl Server {
    /// A handle. No session is opened yet.
    pub fn new(config: ServerConfig) -> Self {
        Self::fenced(config, Fence::default())
    }

    /// A handle that opens and uses no session once the fence is closed.
    pub fn fenced(config: ServerConfig, fence: Fence) -> Self {
        let address = (config.host.clone(), config.port);
        let template_lock = Arc::clone(lock(&TEMPLATE_LOCKS).entry(address).or_default());
        Self {
            inner: Arc::new(Inner {
                sessions: Arc::new(Sessions::new(config, fence, unblock)),
                template_lock,
                scratch_lock: tokio::sync::Mutex::default(),
                drop_lock: tokio::sync::Mutex::default(),
                reclaim_lock: tokio::sync::Mutex::default(),
                excess_watch: tokio::sync::Mutex::default(),
                prepare_lock: tokio::sync::Mutex::default(),
                tenant_locks: KeyedLock::default(),
                rights: Mutex::default(),
                structures: Mutex::default(),
            }),
            restricts: false,
        }
    }

    /// A handle for operations that restrict a tenant's access: they have sessions of their own, and wait for no other
    /// operation. Not for anything that may take long.
    #[must_use]
    pub fn for_restriction(&self) -> Self {
        Self { restricts: true, ..self.clone() }
    }

    /// Sets the databases through which the operator reaches the server when a tenant keeps it from `postgres`, and no
    /// session is open.
    pub fn set_detours(&self, databases: Vec<String>) {
        self.inner.sessions.set_detours(databases);
    }

    /// How the server is reached.
    pub fn config(&self) -> &ServerConfig {
        &self.inner.sessions.config
    }

    /// Binds the handle to the server with this identifier, even if its address leads to another one later. Returns false
    /// if it is bound to another server already.
    #[must_use]
    pub fn bind_to(&self, identifier: &str) -> bool {
        self.inner.sessions.bind_to(identifier)
    }

    /// The number of sessions opened so far.
    pub fn sessions_opened(&self) -> u64 {
        self.inner.sessions.opened()
    }

    /// The facts of one tenant: one query.
    pub async fn observe(&self, placement: &Placement) -> Result<TenantFacts> {
        self.observe_recorded(placement, RecordedOids::default()).await
    }

    /// The facts of one tenant whose objects have these oids, also where they lost their comments: one query.
    pub async fn observe_recorded(
        &self,
        placement: &Placement,
        recorded: RecordedOids,
    ) -> Result<TenantFacts> {
        let selection = Selection {
            databases: &[placement.database.as_str(), &building_name(placement.tenant)],
            roles: &placement.logins().collect::<Vec<_>>(),
            roles_of: Some((placement.tenant, recorded.login)),
        };
        let mut session = self.admin().await?;
        let inventory = inventory::read_selected(&mut session, Some(selection)).await?;
        session.release();
        Ok(inventory.facts_recorded(placement, recorded))
    }

    /// The inventory of the whole server: one query.
    pub async fn observe_all(&self) -> Result<Inventory> {
        self.read(None).await
    }

    /// As `observe_all`. If the server is as it was `before`, it returns only that.
    pub async fn observe_changes(&self, before: Option<&Inventory>) -> Result<Inventory> {
        let mut session = self.admin().await?;
        let inventory = inventory::read_unless_same(&mut session, None, before).await?;
        session.release();
        Ok(inventory)
    }

    /// Ends all sessions with the given `application_name`s, which belong to former holders of the Lease, and waits until
    /// none is left. Returns how many there were.
    pub async fn end_sessions_of(&self, holders: &[String]) -> Result<usize> {
        let doing = "end the sessions of the former leader";
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE application_name = ANY ($1) AND pid <> pg_backend_pid()";
        let mut session = self.admin().await?;
        let mut ended = 0;
        for round in 0..END_ROUNDS {
            let mut transaction = session.begin().await.map_err(Error::sql(doing))?;
            // Without pg_signal_backend, `tenantry_admin` may not end the operator's own sessions, but the login may:
            // the two alternate.
            if round % 2 == 1 {
                let own = "SET LOCAL ROLE NONE";
                sqlx::raw_sql(own).execute(&mut *transaction).await.map_err(Error::sql(doing))?;
            }
            let found = sqlx::query_scalar::<_, i64>(end).bind(holders).fetch_one(&mut *transaction).await;
            transaction.rollback().await.map_err(Error::sql(doing))?;
            match found {
                Ok(0) => {
                    session.release();
                    return Ok(ended);
                }
                Ok(found) => ended = ended.max(usize::try_from(found).unwrap_or(usize::MAX)),
                Err(error) if code(&error) == Some("42501") => ended = ended.max(1),
                Err(error) => return Err(Error::sql(doing)(error)),
            }
            tokio::time::sleep(END_PAUSE).await;
        }
        Err(Error::SessionsInTheWay {
            database: self.config().name.clone(),
            count: ended,
            who: format!("application_name {}", holders.join(", ")),
        })
    }

    /// Reads the given databases and roles from the catalogs, or everything. It waits for a free session, but not for a
    /// server that does not respond.
    pub(super) async fn read(&self, only: Option<(&[&str], &[&str])>) -> Result<Inventory> {
        let mut session = self.admin().await?;
        let inventory = inventory::read(&mut session, only).await?;
        session.release();
        Ok(inventory)
    }

    /// An admin session.
    pub(super) async fn admin(&self) -> Result<Session> {
        match self.restricts {
            true => self.inner.sessions.admin_for_restriction().await,
            false => self.inner.sessions.admin().await,
        }
    }

    /// The slot of a session in a tenant's database.
    pub(super) async fn tenant_slot(&self) -> OwnedSemaphorePermit {
        match self.restricts {
            true => self.inner.sessions.slot_for_restriction().await,
            false => self.inner.sessions.tenant_slot().await,
        }
    }

    /// Runs a script as `tenantry_admin`, in one round trip and one transaction.
    pub(super) async fn run(&self, doing: &'static str, script: &Script) -> Result<()> {
        let mut session = self.admin().await?;
        let result = run_on(&mut session, doing, script).await;
        // After a statement that the server refused, the session can be used again.
        match result.as_ref().err().map(Error::sql_state) {
            // The former primary may be a standby now: its idle sessions are useless.
            Some(Some(state)) if state == "25006" => self.inner.sessions.drop_idle(),
            None | Some(Some(_)) => session.release(),
            Some(None) => {}
        }
        result
    }

    /// As [`Self::run`], also on a server that is set to read-only: see [`run_despite_read_only`].
    pub(super) async fn run_narrowing(&self, doing: &'static str, script: &Script) -> Result<()> {
        let mut session = self.admin().await?;
        let result = run_despite_read_only(&mut session, doing, script).await;
        if result.as_ref().err().is_none_or(|error| error.sql_state().is_some()) {
            session.release();
        }
        result
    }

    /// The lock for changes of one tenant's roles, database and rights.
    pub(super) async fn lock_tenant(&self, id: TenantId) -> OwnedMutexGuard<()> {
        self.inner.tenant_locks.take(id).await
    }
}

/// As [`run_on`], also on a server that is set to read-only: for statements that revoke access or free disk space. On a
/// standby it fails.
pub(super) async fn run_despite_read_only(
    session: &mut Session,
    doing: &'static str,
    script: &Script,
) -> Result<()> {
    despite_read_only(session, doing, script, None).await
}

async fn despite_read_only(
    session: &mut Session,
    doing: &'static str,
    script: &Script,
    login: Option<&Ident>,
) -> Result<()> {
    match run_against(session, doing, script, login).await {
        Err(error) if error.sql_state().as_deref() == Some("25006") => {}
        other => return other,
    }
    let set = async |session: &mut Session, to| {
        sqlx::raw_sql(to).execute(&mut **session).await.map(drop).map_err(Error::sql(doing))
    };
    set(session, "SET default_transaction_read_only = off").await?;
    let result = run_against(session, doing, script, login).await;
    let reset = set(session, "RESET default_transaction_read_only").await;
    result.and(reset)
}

/// As [`run_despite_read_only`], for a statement that restricts a login's access: its sessions are ended while it waits.
pub(super) async fn run_restricting(
    session: &mut Session,
    doing: &'static str,
    script: &Script,
    login: &Ident,
) -> Result<()> {
    despite_read_only(session, doing, script, Some(login)).await
}

/// Runs a script on a session. What tenants' logins do to block it is ended while it waits. After a concurrent change of a
/// shared catalog row it is run again: PostgreSQL has rolled all of it back.
pub(super) async fn run_on(session: &mut Session, doing: &'static str, script: &Script) -> Result<()> {
    run_against(session, doing, script, None).await
}

async fn run_against(
    session: &mut Session,
    doing: &'static str,
    script: &Script,
    login: Option<&Ident>,
) -> Result<()> {
    if script.is_empty() {
        return Ok(());
    }
    if session.pid.is_none() {
        session.learn_pid().await;
    }
    let sessions = Arc::clone(session.sessions());
    let login = login.map(|login| login.as_str().to_owned());
    let is_slow = script.creates_or_drops_database();
    let blocked = Blocked { pid: session.pid, database: None, login, is_slow };
    let limit = if is_slow { DATABASE_LIMIT } else { STATEMENT_LIMIT };
    let (mut attempt, began) = (1, Instant::now());
    loop {
        let statement = sqlx::raw_sql(script.sql()).execute(&mut **session);
        let statement = Box::pin(with_timeout(limit, doing, statement));
        let source = match sessions.while_unblocking(&blocked, statement).await {
            Ok(_) => return Ok(()),
            Err(Error::Sql { source, .. }) => source,
            Err(error) => return Err(error),
        };
        let in_time = began.elapsed() < LOCK_LIMIT;
        if is_concurrent_update(&source) && (attempt < ATTEMPTS || blocked.login.is_some() && in_time) {
            if attempt > 1 && blocked.login.is_some() {
                // The login changes its own row all the time.
                sessions.unblock(&blocked).await;
            } else {
                let wait = rand::rng().random_range(2..=15) * u64::from(attempt);
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
        } else if !(is_lock_timeout(&source) && in_time) {
            return Err(Error::Sql { doing: doing.into(), source });
        }
        attempt += 1;
    }
}
