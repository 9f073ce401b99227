//! A handle on one server.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt;
use sqlx::Connection;
use tokio::sync::OwnedMutexGuard;

use crate::{
    domain::{identity::TenantId, names::building_name},
    fence::Fence,
    turns::Turns,
};

use super::{
    connect::{DATABASE_LIMIT, STATEMENT_LIMIT, Seat, ServerConfig, within},
    credentials::{SecretText, generate_password},
    error::{Error, Result, code, is_concurrent_update},
    identifier::{Ident, Script},
    inventory::{self, Inventory, TenantFacts},
    migrate,
    sessions::{Session, Sessions},
};

/// How often something that met a concurrent change of the same catalogue row is run again.
const ATTEMPTS: u32 = 6;
/// How often, and how far apart, a former leader's sessions are looked for until they are gone.
const FENCE_ROUNDS: u32 = 500;
const FENCE_PAUSE: Duration = Duration::from_millis(10);

/// The password of `tenantry_migrator`: made new by each process, kept in memory alone. One for all handles, since two
/// `DatabaseServer`s may lead to one server, whose role has one password.
pub(super) static MIGRATOR_PASSWORD: LazyLock<SecretText> = LazyLock::new(generate_password);

/// By host and port: two `DatabaseServer`s may lead to one server, and must not build one template twice.
static BUILDING: LazyLock<Mutex<HashMap<(String, u16), Turn>>> = LazyLock::new(Mutex::default);

/// One at a time.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// A server that hosts tenant databases. Cheap to clone; all clones share the sessions and their cap.
///
/// Every operation is idempotent: it may be cut at any await and run again, and finds what is there.
#[derive(Clone, Debug)]
pub struct Server {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) sessions: Arc<Sessions>,
    /// One template is built at a time, whichever handle on the server it is for.
    pub(super) building: Turn,
    /// One database is dropped at a time.
    pub(super) dropping: tokio::sync::Mutex<()>,
    /// One tenant's tables are vacuumed at a time.
    pub(super) reclaiming: tokio::sync::Mutex<()>,
    /// Shared roles are prepared by one at a time.
    pub(super) preparing: tokio::sync::Mutex<()>,
    /// Changes of one tenant's rights come one after the other.
    tenants: Turns<TenantId>,
}

impl Server {
    /// A handle; nothing is opened yet.
    pub fn new(config: ServerConfig) -> Self {
        Self::fenced(config, Fence::default())
    }

    /// A handle that opens and uses no session once the fence is shut.
    pub fn fenced(config: ServerConfig, fence: Fence) -> Self {
        let place = (config.host.clone(), config.port);
        let building = Arc::clone(lock(&BUILDING).entry(place).or_default());
        Self {
            inner: Arc::new(Inner {
                sessions: Arc::new(Sessions::new(config, fence)),
                building,
                dropping: tokio::sync::Mutex::default(),
                reclaiming: tokio::sync::Mutex::default(),
                preparing: tokio::sync::Mutex::default(),
                tenants: Turns::default(),
            }),
        }
    }

    /// How the server is reached.
    pub fn config(&self) -> &ServerConfig {
        &self.inner.sessions.config
    }

    /// Keeps to the server with this identifier, whatever its address leads to later; false if it keeps to another
    /// already.
    #[must_use]
    pub fn prove(&self, identifier: &str) -> bool {
        self.inner.sessions.prove(identifier)
    }

    /// How many sessions were opened on it so far.
    pub fn sessions_opened(&self) -> u64 {
        self.inner.sessions.opened()
    }

    /// What the server has of one tenant: one query.
    pub async fn observe(&self, id: TenantId, database: &str, login: &str) -> Result<TenantFacts> {
        let building = building_name(id);
        let inventory = self.read(Some((&[database, &building], &[login]))).await?;
        Ok(inventory.facts(id, database, login))
    }

    /// What the server has, whole: one query.
    pub async fn observe_all(&self) -> Result<Inventory> {
        self.read(None).await
    }

    /// Ends all sessions with the given `application_name`s, which are former holders' of the Lease, and waits until
    /// they are gone. Returns how many there were.
    pub async fn end_sessions_of(&self, holders: &[String]) -> Result<usize> {
        let doing = "end the sessions of the former leader";
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE application_name = ANY ($1) AND pid <> pg_backend_pid()";
        let mut session = self.admin().await?;
        let mut ended = 0;
        for round in 0..FENCE_ROUNDS {
            let mut transaction = session.begin().await.map_err(Error::sql(doing))?;
            // Without pg_signal_backend, `tenantry_admin` may not end the operator's own sessions, but the login
            // may: they take turns.
            if round % 2 == 1 {
                let own = "SET LOCAL ROLE NONE";
                sqlx::raw_sql(own).execute(&mut *transaction).await.map_err(Error::sql(doing))?;
            }
            let found = sqlx::query_scalar::<_, i64>(end).bind(holders).fetch_one(&mut *transaction).await;
            transaction.rollback().await.map_err(Error::sql(doing))?;
            match found {
                Ok(0) => {
                    session.give_back();
                    return Ok(ended);
                }
                Ok(found) => ended = ended.max(usize::try_from(found).unwrap_or(usize::MAX)),
                Err(error) if code(&error) == Some("42501") => ended = ended.max(1),
                Err(error) => return Err(Error::sql(doing)(error)),
            }
            tokio::time::sleep(FENCE_PAUSE).await;
        }
        Err(Error::SessionsInTheWay {
            database: self.config().name.clone(),
            count: ended,
            who: format!("application_name {}", holders.join(", ")),
        })
    }

    /// Reads part of the catalogues, or all. A server that hangs is not waited for; a session's place is.
    pub(super) async fn read(&self, only: Option<(&[&str], &[&str])>) -> Result<Inventory> {
        let mut session = self.admin().await?;
        let inventory = inventory::read(&mut session, only).await?;
        session.give_back();
        Ok(inventory)
    }

    /// An admin session.
    pub(super) async fn admin(&self) -> Result<Session> {
        self.inner.sessions.admin().await
    }

    /// A session of `tenantry_migrator` in a database.
    pub(super) async fn migrator(&self, database: &Ident, doing: &'static str) -> Result<Session> {
        let seat = Seat::Migrator { database, password: &MIGRATOR_PASSWORD };
        let mut opened = self.inner.sessions.single(&seat, doing).await;
        // Somebody else gave it another password: another leader, who should not be, or a person.
        if opened.as_ref().is_err_and(|error| error.reason() == "AuthenticationFailed") {
            self.set_migrator_password().await?;
            opened = self.inner.sessions.single(&seat, doing).await;
        }
        opened.map_err(|error| migrate::missing(error, database))
    }

    /// Runs a script as `tenantry_admin`, in one round trip and one transaction.
    pub(super) async fn run(&self, doing: &'static str, script: &Script) -> Result<()> {
        let mut session = self.admin().await?;
        let result = run_on(&mut session, doing, script).await;
        // A statement that the server refused leaves the session as it was.
        match result.as_ref().err().map(Error::sql_state) {
            // What was the primary may be a standby now: its sessions lead nowhere.
            Some(Some(state)) if state == "25006" => self.inner.sessions.forget_idle(),
            None | Some(Some(_)) => session.give_back(),
            Some(None) => {}
        }
        result
    }

    /// The right to change one tenant's roles, database and rights: for one at a time.
    pub(super) async fn serialise(&self, id: TenantId) -> OwnedMutexGuard<()> {
        self.inner.tenants.take(id).await
    }
}

/// As `run_on`, also on a server that is set to take no writes, for what takes access away or makes room. On a standby it
/// fails all the same.
pub(super) async fn run_anyway(session: &mut Session, doing: &'static str, script: &Script) -> Result<()> {
    match run_on(session, doing, script).await {
        Err(error) if error.sql_state().as_deref() == Some("25006") => {}
        other => return other,
    }
    let set = async |session: &mut Session, to| {
        sqlx::raw_sql(to).execute(&mut **session).await.map(drop).map_err(Error::sql(doing))
    };
    set(session, "SET default_transaction_read_only = off").await?;
    let result = run_on(session, doing, script).await;
    let reset = set(session, "RESET default_transaction_read_only").await;
    result.and(reset)
}

/// Runs a script on a session. Meeting a concurrent change of a shared catalogue's row, it is run again: PostgreSQL
/// did nothing of it then.
pub(super) async fn run_on(session: &mut Session, doing: &'static str, script: &Script) -> Result<()> {
    if script.is_empty() {
        return Ok(());
    }
    let limit = if script.makes_or_drops_a_database() { DATABASE_LIMIT } else { STATEMENT_LIMIT };
    let mut attempt = 1;
    loop {
        match within(limit, doing, sqlx::raw_sql(script.sql()).execute(&mut **session)).await {
            Ok(_) => return Ok(()),
            Err(Error::Sql { source, .. }) if attempt < ATTEMPTS && is_concurrent_update(&source) => {
                let wait = rand::rng().random_range(2..=15) * u64::from(attempt);
                tokio::time::sleep(Duration::from_millis(wait)).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
