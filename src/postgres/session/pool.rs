//! The sessions on one server, all under one cap.
//!
//! Half of the cap is for admin sessions, which are kept and used again, the other half for sessions in tenant
//! databases, which are closed after one operation. One or two of the admin sessions are only for operations that restrict
//! a tenant's access. One of the others is the standing session (`standing.rs`). An operation holds at most one session at
//! a time, so that waiting for a session cannot deadlock. A session counts until its server process has ended
//! (`closing.rs`).

use std::{
    collections::{HashMap, VecDeque},
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use sqlx::{Connection, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    fence::Fence,
    postgres::error::{Error, Result},
};

use super::{
    blocked::{AskedToEnd, Blocked, while_unblocking},
    connect::{
        ANSWER_LIMIT, ConnectAs, GRANT_OPTIONS_SINCE, MAINTENANCE_DATABASE, ServerConfig, connect_to,
        identifier_of, is_full_or_starting, with_timeout, with_version,
    },
    slots::{Waiting, take_either, take_slot},
};

/// How long the preflight waits for a slot before it opens a session without one.
const SLOT_TIMEOUT: Duration = Duration::from_secs(20);
/// An admin session that was idle for this long is closed instead of being used again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a cancelled operation may go on inside the server before its session is abandoned.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);
/// How many of the admin sessions are for operations that restrict access only.
const MOST_FOR_RESTRICTIONS: usize = 2;

/// All sessions of one server.
#[derive(Debug)]
pub(in crate::postgres) struct Sessions {
    pub(in crate::postgres) config: ServerConfig,
    fence: Fence,
    admin: Arc<Semaphore>,
    tenant: Arc<Semaphore>,
    /// For operations that restrict access, while all others are in use.
    restriction: Arc<Semaphore>,
    idle: Mutex<Vec<(PgConnection, Option<i32>, Instant)>>,
    pub(super) closing: Mutex<Vec<Closing>>,
    pub(super) waiting: AtomicUsize,
    pub(super) reaping: tokio::sync::Mutex<()>,
    opened: AtomicU64,
    /// The number of those in each tenant database.
    opened_in: Mutex<HashMap<String, i64>>,
    pub(super) identifier: OnceLock<String>,
    pub(super) standing: tokio::sync::Mutex<Option<StandingConnection>>,
    unblock: Unblock,
    /// Databases through which the server is reached when `postgres` is locked.
    pub(super) detours: Mutex<VecDeque<String>>,
    /// What was asked to end because it blocked a statement, until it is reported.
    pub(super) asked_to_end: Mutex<Vec<AskedToEnd>>,
    /// Prepared transactions are rolled back by one task at a time.
    pub(in crate::postgres) rolling_back: tokio::sync::Mutex<()>,
    /// The version of the server, once a session was opened.
    version: AtomicU32,
}

/// Ends what blocks something now.
pub(in crate::postgres) type Unblock = fn(Arc<Sessions>, Blocked) -> BoxFuture<'static, ()>;

/// The standing session.
#[derive(Debug)]
pub(super) struct StandingConnection {
    pub(super) connection: PgConnection,
    /// Whether it is known to be on the server that the other sessions are bound to.
    pub(super) is_verified: bool,
}

#[derive(Debug)]
pub(super) struct Closing {
    pub(super) pid: i32,
    pub(super) since: Instant,
    pub(super) _slot: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Admin,
    Tenant,
}

/// A session in use. When it is dropped before it was released or closed (the operation was cancelled, or failed), it is
/// closed in the background once the server has finished its statement, and counts until then.
#[derive(Debug)]
pub(in crate::postgres) struct Session {
    connection: Option<PgConnection>,
    slot: Option<OwnedSemaphorePermit>,
    sessions: Arc<Sessions>,
    kind: Kind,
    /// The server process, once it is known: sessions in tenant databases read it with their first statement, the others
    /// when they first change something.
    pub(in crate::postgres) pid: Option<i32>,
    /// Whether its process is ended when it is dropped: what it does need not be finished.
    pub(super) ends_at_once: bool,
}

impl Sessions {
    pub(in crate::postgres) fn new(config: ServerConfig, fence: Fence, unblock: Unblock) -> Self {
        let cap = config.max_connections.clamp(4, 1000) as usize;
        let admin = cap.div_ceil(2);
        let restriction = (admin / 3).clamp(1, MOST_FOR_RESTRICTIONS);
        Self {
            config,
            fence,
            admin: Arc::new(Semaphore::new(admin - restriction)),
            restriction: Arc::new(Semaphore::new(restriction)),
            // One of these is the standing session.
            tenant: Arc::new(Semaphore::new(cap - admin - 1)),
            idle: Mutex::default(),
            closing: Mutex::default(),
            waiting: AtomicUsize::new(0),
            reaping: tokio::sync::Mutex::default(),
            opened: AtomicU64::new(0),
            opened_in: Mutex::default(),
            identifier: OnceLock::new(),
            standing: tokio::sync::Mutex::default(),
            unblock,
            detours: Mutex::default(),
            asked_to_end: Mutex::default(),
            rolling_back: tokio::sync::Mutex::default(),
            version: AtomicU32::new(0),
        }
    }

    /// Binds all admin sessions to the server with this identifier: an address may lead to another server at any time.
    /// Returns false if they are bound to another one already.
    pub(in crate::postgres) fn bind_to(&self, identifier: &str) -> bool {
        self.identifier.get_or_init(|| identifier.to_owned()) == identifier
    }

    /// The number of sessions opened so far.
    pub(in crate::postgres) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// The number of sessions opened in a tenant's database so far.
    pub(in crate::postgres) fn opened_in(&self, database: &str) -> i64 {
        lock(&self.opened_in).get(database).copied().unwrap_or_default()
    }

    /// Forgets their number, of a database that is dropped.
    pub(in crate::postgres) fn forget_opened_in(&self, database: &str) {
        lock(&self.opened_in).remove(database);
    }

    /// An admin session in the maintenance database: an idle one, if one still responds.
    pub(in crate::postgres) async fn admin(self: &Arc<Self>) -> Result<Session> {
        self.admin_in(take_slot(&self.admin).await).await
    }

    /// As [`Self::admin`], for an operation that restricts access: it waits for no other operation.
    pub(in crate::postgres) async fn admin_for_restriction(self: &Arc<Self>) -> Result<Session> {
        self.admin_in(take_either(&self.admin, &self.restriction).await).await
    }

    /// An admin session that stays open for good, beyond the cap.
    pub(in crate::postgres) async fn admin_beyond_cap(self: &Arc<Self>) -> Result<Session> {
        let slot = take_slot(&Arc::new(Semaphore::new(1))).await;
        self.open(&ConnectAs::Admin(MAINTENANCE_DATABASE), slot, Kind::Admin, "connect").await
    }

    async fn admin_in(self: &Arc<Self>, slot: OwnedSemaphorePermit) -> Result<Session> {
        self.check_fence()?;
        loop {
            let idle = self.pop_idle();
            let Some((mut connection, pid, since)) = idle else { break };
            let fresh = since.elapsed() < IDLE_TIMEOUT;
            let answers = fresh
                && tokio::time::timeout(Duration::from_secs(5), connection.ping())
                    .await
                    .is_ok_and(|answer| answer.is_ok());
            if answers {
                let mut session = self.session(connection, slot, Kind::Admin);
                session.pid = pid;
                return Ok(session);
            }
            let _ = tokio::time::timeout(Duration::from_secs(1), connection.close()).await;
        }
        self.open(&ConnectAs::Admin(MAINTENANCE_DATABASE), slot, Kind::Admin, "connect").await
    }

    /// A session that is not kept for reuse: in a tenant's database, or as another role.
    pub(in crate::postgres) async fn single(
        self: &Arc<Self>,
        connect_as: &ConnectAs<'_>,
        doing: &'static str,
    ) -> Result<Session> {
        let slot = self.tenant_slot().await;
        self.single_in(slot, connect_as, doing).await
    }

    /// Waits for the slot of a session in a tenant's database.
    pub(in crate::postgres) async fn tenant_slot(self: &Arc<Self>) -> OwnedSemaphorePermit {
        let _waiting = Waiting::counted_in(&self.waiting);
        match self.tenant.clone().try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => {
                self.reap_in_background();
                take_slot(&self.tenant).await
            }
        }
    }

    /// As [`Self::single`], in this slot.
    pub(in crate::postgres) async fn single_in(
        self: &Arc<Self>,
        slot: OwnedSemaphorePermit,
        connect_as: &ConnectAs<'_>,
        doing: &'static str,
    ) -> Result<Session> {
        self.open(connect_as, slot, Kind::Tenant, doing).await
    }

    /// As [`Self::tenant_slot`], for an operation that restricts access: it waits for no other operation.
    pub(in crate::postgres) async fn slot_for_restriction(&self) -> OwnedSemaphorePermit {
        take_either(&self.tenant, &self.restriction).await
    }

    /// As [`Self::single`], for the preflight. It opens a session without a slot when none becomes free in time: the
    /// sessions that hold the slots may not respond.
    pub(in crate::postgres) async fn single_even_when_full(
        self: &Arc<Self>,
        connect_as: &ConnectAs<'_>,
        doing: &'static str,
    ) -> Result<Session> {
        match tokio::time::timeout(SLOT_TIMEOUT, self.single(connect_as, doing)).await {
            Ok(session) => session,
            Err(_) => {
                let extra_slot = take_slot(&Arc::new(Semaphore::new(1))).await;
                self.open(connect_as, extra_slot, Kind::Tenant, doing).await
            }
        }
    }

    /// As [`Self::single`], for what must not wait for other operations: without a free slot, it opens a session without
    /// one.
    pub(in crate::postgres) async fn single_at_once(
        self: &Arc<Self>,
        connect_as: &ConnectAs<'_>,
        doing: &'static str,
    ) -> Result<Session> {
        let slot = match self.tenant.clone().try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => take_slot(&Arc::new(Semaphore::new(1))).await,
        };
        self.open(connect_as, slot, Kind::Tenant, doing).await
    }

    /// A process that was suspended while another one took over the Lease stops here.
    pub(in crate::postgres) fn check_fence(&self) -> Result<()> {
        if self.fence.is_open() { Ok(()) } else { Err(Error::Fenced) }
    }

    async fn open(
        self: &Arc<Self>,
        connect_as: &ConnectAs<'_>,
        slot: OwnedSemaphorePermit,
        kind: Kind,
        doing: &'static str,
    ) -> Result<Session> {
        let version = self.version.load(Ordering::Relaxed);
        let options = with_version(self.config.options(connect_as), version);
        let mut attempt = 0;
        loop {
            self.check_fence()?;
            let blocked = Blocked::connections_to(connect_as.database());
            // In a box: it would be in the future of every operation several times.
            let connecting = Box::pin(connect_to(&self.config, &options, doing));
            match self.while_unblocking(&blocked, connecting).await {
                Ok(mut connection) => {
                    self.opened.fetch_add(1, Ordering::Relaxed);
                    self.version.store(connection.server_version_num().unwrap_or(version), Ordering::Relaxed);
                    if let Some(database) = connect_as.tenant_database() {
                        *lock(&self.opened_in).entry(database.to_owned()).or_default() += 1;
                    }
                    if kind == Kind::Admin {
                        self.check_identifier(&mut connection).await?;
                    }
                    return Ok(self.session(connection, slot, kind));
                }
                // The server may be closing another client's session, or have just started.
                Err(Error::Sql { source, .. }) if attempt < 3 && is_full_or_starting(&source) => {
                    attempt += 1;
                    tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Runs something that may be blocked, and ends what blocks it until it is done.
    pub(in crate::postgres) async fn while_unblocking<T>(
        self: &Arc<Self>,
        blocked: &Blocked,
        work: impl Future<Output = T>,
    ) -> T {
        while_unblocking(blocked, || self.unblock(blocked), work).await
    }

    /// Ends what blocks something now.
    pub(in crate::postgres) fn unblock(self: &Arc<Self>, blocked: &Blocked) -> BoxFuture<'static, ()> {
        (self.unblock)(Arc::clone(self), blocked.clone())
    }

    /// Checks that a session is on the server that the others are bound to.
    pub(super) async fn check_identifier(&self, connection: &mut PgConnection) -> Result<()> {
        let Some(expected) = self.identifier.get() else { return Ok(()) };
        let found = identifier_of(connection).await?;
        if found == *expected {
            return Ok(());
        }
        Err(Error::ServerReplaced { expected: expected.clone(), found })
    }

    fn session(
        self: &Arc<Self>,
        connection: PgConnection,
        slot: OwnedSemaphorePermit,
        kind: Kind,
    ) -> Session {
        Session {
            connection: Some(connection),
            slot: Some(slot),
            sessions: Arc::clone(self),
            kind,
            pid: None,
            ends_at_once: false,
        }
    }

    /// Closes the idle admin sessions.
    pub(in crate::postgres) fn drop_idle(&self) {
        lock(&self.idle).clear();
    }

    fn pop_idle(&self) -> Option<(PgConnection, Option<i32>, Instant)> {
        lock(&self.idle).pop()
    }
}

impl Session {
    /// All sessions on the server.
    pub(in crate::postgres) fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// Whether GRANT has the options INHERIT and SET.
    pub(in crate::postgres) fn has_grant_options(&self) -> bool {
        self.server_version_num().is_some_and(|version| version >= GRANT_OPTIONS_SINCE)
    }

    /// Reads the process that serves the session: the session counts until that process has ended.
    pub(in crate::postgres) async fn learn_pid(&mut self) {
        let query = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut **self);
        self.pid = with_timeout(ANSWER_LIMIT, "ask for the process", query).await.ok();
    }

    /// The session, with its process.
    pub(super) async fn with_pid(mut self) -> Self {
        self.learn_pid().await;
        self
    }

    /// Returns an admin session to the pool.
    pub(in crate::postgres) fn release(mut self) {
        if self.kind == Kind::Admin
            && let Some(connection) = self.connection.take()
        {
            lock(&self.sessions.idle).push((connection, self.pid, Instant::now()));
            self.slot = None;
        }
    }

    /// Closes a session. Returns whether it had no statement to finish: else its process may go on for some time.
    pub(in crate::postgres) async fn close(mut self) -> bool {
        let is_idle = match self.connection.take() {
            Some(connection) => {
                matches!(tokio::time::timeout(Duration::from_secs(5), connection.close()).await, Ok(Ok(())))
            }
            None => true,
        };
        if let Some(slot) = self.slot.take() {
            self.sessions.free_slot(slot, self.kind, self.pid);
        }
        is_idle
    }

    /// Closes a session and waits until its process has ended: it would block a rename or a copy of the database that
    /// follows (PostgreSQL checks again only after 100 ms).
    pub(in crate::postgres) async fn close_and_wait(self) -> bool {
        let sessions = Arc::clone(&self.sessions);
        let is_idle = self.close().await;
        sessions.reap().await;
        is_idle
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("a session has its connection until it is released or closed")
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("a session has its connection until it is released or closed")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (Some(mut connection), Some(slot)) = (self.connection.take(), self.slot.take()) else { return };
        // Outside a runtime, no task can wait for the server; the closed socket ends the session.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (sessions, kind, pid) = (Arc::clone(&self.sessions), self.kind, self.pid);
        let ended = pid.filter(|_| self.ends_at_once);
        runtime.spawn(async move {
            if let Some(pid) = ended {
                sessions.end(pid).await;
            }
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, connection.ping()).await;
            let _ = tokio::time::timeout(Duration::from_secs(5), connection.close()).await;
            sessions.free_slot(slot, kind, pid);
        });
    }
}

pub(in crate::postgres) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
