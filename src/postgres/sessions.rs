//! The sessions on one server, all under one cap.
//!
//! Half of the cap is for admin sessions, which are kept and used again, the other half for sessions in tenant
//! databases, which live for one operation. An operation holds at most one session at a time, so that waiting for
//! one can never be a circle.
//!
//! A session counts until the server says that it is gone: after a client has closed it, its backend lives on for
//! a moment, and under load the next session would be one too many. So the place of a closed session is given
//! away only once `pg_stat_get_activity` does not know its process any more; that is asked only when somebody waits.

use std::{
    collections::HashMap,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fence::Fence;

use super::{
    connect::{MAINTENANCE_DATABASE, Seat, ServerConfig, connect, identifier_of},
    error::{Error, Result, is_transient},
};

/// How long a look at the server waits for a session of the ordinary kind.
const PLACE_PATIENCE: Duration = Duration::from_secs(20);
/// An admin session unused for this long is closed rather than used again.
const IDLE: Duration = Duration::from_secs(300);
/// How long an operation that was cut may go on inside the server before its session is given up.
const DRAIN: Duration = Duration::from_secs(120);
/// How often the server is asked whether closed sessions are gone.
const GONE_POLL: Duration = Duration::from_millis(2);
/// After this long a closed session is taken for gone: its server may be.
const GONE_AT_LAST: Duration = Duration::from_secs(10);

/// All sessions of one server.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) config: ServerConfig,
    fence: Fence,
    admin: Arc<Semaphore>,
    tenant: Arc<Semaphore>,
    idle: Mutex<Vec<(PgConnection, Instant)>>,
    closing: Mutex<Vec<Closing>>,
    waiting: AtomicUsize,
    reaping: tokio::sync::Mutex<()>,
    opened: AtomicU64,
    /// Of those, how many in each tenant database.
    opened_in: Mutex<HashMap<String, i64>>,
    identifier: OnceLock<String>,
}

#[derive(Debug)]
struct Closing {
    pid: i32,
    since: Instant,
    _place: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Admin,
    Tenant,
}

/// A session in use. Dropped without being given back or closed (the operation was cut, or failed), it is closed
/// in the background once the server has finished what it was doing, and counts until then.
pub(super) struct Session {
    connection: Option<PgConnection>,
    place: Option<OwnedSemaphorePermit>,
    home: Arc<Sessions>,
    kind: Kind,
    /// The server's process, once known: sessions in tenant databases learn it with their first statement.
    pub(super) pid: Option<i32>,
}

impl Sessions {
    pub(super) fn new(config: ServerConfig, fence: Fence) -> Self {
        let cap = config.max_connections.clamp(2, 1000) as usize;
        let admin = cap.div_ceil(2);
        Self {
            config,
            fence,
            admin: Arc::new(Semaphore::new(admin)),
            tenant: Arc::new(Semaphore::new(cap - admin)),
            idle: Mutex::default(),
            closing: Mutex::default(),
            waiting: AtomicUsize::new(0),
            reaping: tokio::sync::Mutex::default(),
            opened: AtomicU64::new(0),
            opened_in: Mutex::default(),
            identifier: OnceLock::new(),
        }
    }

    /// From here on, no admin session is on any other server than the one with this identifier: an address may lead
    /// somewhere else at any time.
    pub(super) fn prove(&self, identifier: &str) -> bool {
        self.identifier.get_or_init(|| identifier.to_owned()) == identifier
    }

    /// How many sessions were opened so far.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// How many sessions were opened in a tenant's database so far.
    pub(super) fn opened_in(&self, database: &str) -> i64 {
        lock(&self.opened_in).get(database).copied().unwrap_or_default()
    }

    /// An admin session in the maintenance database, an idle one if there is one that still answers.
    pub(super) async fn admin(self: &Arc<Self>) -> Result<Session> {
        let place = place(&self.admin).await;
        self.pass_fence()?;
        loop {
            let idle = self.pop_idle();
            let Some((mut connection, since)) = idle else { break };
            let fresh = since.elapsed() < IDLE;
            let answers = fresh
                && tokio::time::timeout(Duration::from_secs(5), connection.ping())
                    .await
                    .is_ok_and(|answer| answer.is_ok());
            if answers {
                return Ok(self.session(connection, place, Kind::Admin));
            }
            let _ = tokio::time::timeout(Duration::from_secs(1), connection.close()).await;
        }
        self.open(&Seat::Admin(MAINTENANCE_DATABASE), place, Kind::Admin, "connect").await
    }

    /// A session that is not kept: in a tenant's database, or as somebody else.
    pub(super) async fn single(self: &Arc<Self>, seat: &Seat<'_>, doing: &'static str) -> Result<Session> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let waiting = Waiting(self);
        let place = match self.tenant.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                self.reap_in_background();
                place(&self.tenant).await
            }
        };
        drop(waiting);
        self.open(seat, place, Kind::Tenant, doing).await
    }

    /// As `single`, to look at the server itself: when no place comes free, without one, for what has them may hang.
    pub(super) async fn look(self: &Arc<Self>, seat: &Seat<'_>, doing: &'static str) -> Result<Session> {
        match tokio::time::timeout(PLACE_PATIENCE, self.single(seat, doing)).await {
            Ok(session) => session,
            Err(_) => {
                let beyond = place(&Arc::new(Semaphore::new(1))).await;
                self.open(seat, beyond, Kind::Tenant, doing).await
            }
        }
    }

    /// A process that was frozen, and whose work another does by now, finds out here when it wakes up.
    fn pass_fence(&self) -> Result<()> {
        if self.fence.is_open() { Ok(()) } else { Err(Error::Fenced) }
    }

    async fn open(
        self: &Arc<Self>,
        seat: &Seat<'_>,
        place: OwnedSemaphorePermit,
        kind: Kind,
        doing: &'static str,
    ) -> Result<Session> {
        let options = self.config.options(seat);
        let mut attempt = 0;
        loop {
            self.pass_fence()?;
            match connect(&options, doing).await {
                Ok(mut connection) => {
                    self.opened.fetch_add(1, Ordering::Relaxed);
                    if let Some(database) = seat.tenant_database() {
                        *lock(&self.opened_in).entry(database.to_owned()).or_default() += 1;
                    }
                    if let (Kind::Admin, Some(expected)) = (kind, self.identifier.get()) {
                        let found = identifier_of(&mut connection).await?;
                        if found != *expected {
                            return Err(Error::ServerReplaced { expected: expected.clone(), found });
                        }
                    }
                    return Ok(self.session(connection, place, kind));
                }
                // The server may be about to give up a session of somebody else, or have just started.
                Err(Error::Sql { source, .. }) if attempt < 3 && is_full_or_starting(&source) => {
                    attempt += 1;
                    tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn session(
        self: &Arc<Self>,
        connection: PgConnection,
        place: OwnedSemaphorePermit,
        kind: Kind,
    ) -> Session {
        Session { connection: Some(connection), place: Some(place), home: Arc::clone(self), kind, pid: None }
    }

    /// Closes the admin sessions that nobody uses.
    pub(super) fn forget_idle(&self) {
        lock(&self.idle).clear();
    }

    fn pop_idle(&self) -> Option<(PgConnection, Instant)> {
        lock(&self.idle).pop()
    }

    /// Gives a closed session's place away: at once if nobody waits for it, since the next one to come will ask.
    fn leave(self: &Arc<Self>, place: OwnedSemaphorePermit, kind: Kind, pid: Option<i32>) {
        match (kind, pid) {
            (Kind::Tenant, Some(pid)) => {
                lock(&self.closing).push(Closing { pid, since: Instant::now(), _place: place });
                if self.waiting.load(Ordering::SeqCst) > 0 {
                    self.reap_in_background();
                }
            }
            _ => drop(place),
        }
    }

    fn reap_in_background(self: &Arc<Self>) {
        let home = Arc::clone(self);
        tokio::spawn(async move { home.reap().await });
    }

    /// Asks the server which closed sessions are gone, until all are.
    pub(super) async fn reap(self: &Arc<Self>) {
        let _one = self.reaping.lock().await;
        loop {
            let pids: Vec<i32> = lock(&self.closing).iter().map(|closing| closing.pid).collect();
            if pids.is_empty() {
                return;
            }
            let alive = self.alive(&pids).await;
            lock(&self.closing).retain(|closing| {
                !pids.contains(&closing.pid)
                    || (alive.contains(&closing.pid) && closing.since.elapsed() < GONE_AT_LAST)
            });
            if !alive.is_empty() {
                tokio::time::sleep(GONE_POLL).await;
            }
        }
    }

    /// Those of the given processes that still are. A server that does not answer has none of ours to count.
    async fn alive(self: &Arc<Self>, pids: &[i32]) -> Vec<i32> {
        let Ok(mut session) = self.admin().await else { return Vec::new() };
        let alive = sqlx::query_scalar::<_, i32>(
            "SELECT a.pid FROM unnest($1::int[]) AS p (pid), pg_stat_get_activity(p.pid) AS a",
        )
        .bind(pids)
        .fetch_all(&mut *session)
        .await;
        match alive {
            Ok(alive) => {
                session.give_back();
                alive
            }
            Err(_) => Vec::new(),
        }
    }
}

impl Session {
    /// Gives an admin session back, to be used again.
    pub(super) fn give_back(mut self) {
        if self.kind == Kind::Admin
            && let Some(connection) = self.connection.take()
        {
            lock(&self.home.idle).push((connection, Instant::now()));
            self.place = None;
        }
    }

    /// Closes a session.
    pub(super) async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = tokio::time::timeout(Duration::from_secs(5), connection.close()).await;
        }
        if let Some(place) = self.place.take() {
            self.home.leave(place, self.kind, self.pid);
        }
    }

    /// Closes a session and waits until the server has none of it left: what renames or copies the database next
    /// would otherwise stumble over it (PostgreSQL looks again only after 100 ms).
    pub(super) async fn close_and_wait(self) {
        let home = Arc::clone(&self.home);
        self.close().await;
        home.reap().await;
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("a session has its connection until it is given back or closed")
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("a session has its connection until it is given back or closed")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (Some(mut connection), Some(place)) = (self.connection.take(), self.place.take()) else { return };
        // Outside a runtime there is nobody to wait for the server; the socket closes, which ends the session.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (home, kind, pid) = (Arc::clone(&self.home), self.kind, self.pid);
        runtime.spawn(async move {
            let _ = tokio::time::timeout(DRAIN, connection.ping()).await;
            let _ = tokio::time::timeout(Duration::from_secs(5), connection.close()).await;
            home.leave(place, kind, pid);
        });
    }
}

struct Waiting<'a>(&'a Sessions);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed")
}

fn is_full_or_starting(error: &sqlx::Error) -> bool {
    is_transient(error) && matches!(super::error::code(error), Some("53300" | "57P03"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
