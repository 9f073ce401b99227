//! How sessions are opened. Everything that a session depends on is in its startup packet, where no setting of a
//! database or a role can come before it: the role, the `search_path`, the timeouts, the name of the holder.

use std::time::Duration;

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::{
    credentials::SecretText,
    error::{Error, Result},
    identifier::{ADMIN, Ident, MIGRATOR, OWNER},
};

/// How long opening a session may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// A server, and how to reach it as the operator.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// The `DatabaseServer`'s name.
    pub name: String,
    /// Where it listens.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: Tls,
    /// The operator's login: not a superuser, a member of `tenantry_admin`.
    pub username: String,
    /// Its password.
    pub password: SecretText,
    /// What the names of tenant databases begin with.
    pub prefix: String,
    /// The holder of the Lease: the `application_name` of every session, by which a later holder finds and ends them.
    pub application_name: String,
    /// The most sessions that may be open on the server at any time, all kinds together; at least 2.
    pub max_connections: u32,
}

/// How a connection is protected.
#[derive(Clone, Debug, PartialEq)]
pub enum Tls {
    /// No TLS.
    Disable,
    /// TLS, with whoever answers.
    Require,
    /// TLS with a server whose certificate a known authority signed, whatever its name. The authority given is
    /// trusted in addition to the system's: without one that only the system's, use `VerifyFull`.
    VerifyCa {
        /// PEM certificates.
        ca: Option<Vec<u8>>,
    },
    /// As `VerifyCa`, and the certificate is for the host that was asked for.
    VerifyFull {
        /// PEM certificates.
        ca: Option<Vec<u8>>,
    },
}

/// As whom, and where.
#[derive(Clone, Debug)]
pub(super) enum Seat<'a> {
    /// The operator as `tenantry_admin`, in the given database.
    Admin(&'a str),
    /// The operator's login as it is, in the given database: what it may do before `tenantry_admin` is there.
    Login(&'a str),
    /// Modules' SQL and seeds: the login `tenantry_migrator`, acting as `tenantry_owner`.
    Migrator { database: &'a Ident, password: &'a SecretText },
    /// A tenant.
    Tenant { database: &'a Ident, login: &'a Ident, password: &'a SecretText },
}

impl Seat<'_> {
    /// The tenant database that it is in, if it is in one.
    pub(super) fn tenant_database(&self) -> Option<&str> {
        match self {
            Self::Admin(_) | Self::Login(_) => None,
            Self::Migrator { database, .. } | Self::Tenant { database, .. } => Some(database.as_str()),
        }
    }
}

/// The database that admin sessions are in.
pub(super) const MAINTENANCE_DATABASE: &str = "postgres";

impl ServerConfig {
    /// The options of a session.
    pub(super) fn options(&self, seat: &Seat<'_>) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .application_name(&self.application_name)
            // sqlx would log statements, and slow ones as warnings: verifiers are in some of them.
            .disable_statement_logging();
        let options = self.tls.apply(options);
        let options = options.options([("client_min_messages", "error")]);
        match *seat {
            // Whether the server takes writes is for those to say who run it: services stop them before the disk is
            // full. What must go on then says so itself (`run_anyway`).
            // A statement timeout would cut a DROP DATABASE in two; a lock timeout only ends waiting.
            Seat::Admin(database) => self.as_login(options, database).options([
                ("role", ADMIN.as_str()),
                ("search_path", "pg_catalog,pg_temp"),
                ("statement_timeout", "0"),
                ("lock_timeout", "30s"),
            ]),
            Seat::Login(database) => self.as_login(options, database).options([
                ("role", "none"),
                ("search_path", "pg_catalog,pg_temp"),
                ("statement_timeout", "60s"),
                ("lock_timeout", "30s"),
            ]),
            // The tenant can hold locks on its tables for as long as it likes; a migration does not wait as long.
            Seat::Migrator { database, password } => options
                .username(MIGRATOR.as_str())
                .password(password.expose())
                .database(database.as_str())
                .options([
                    ("role", OWNER.as_str()),
                    // A module could set this for the login.
                    ("default_transaction_read_only", "off"),
                    ("search_path", "public,pg_temp"),
                    ("statement_timeout", "0"),
                    ("lock_timeout", "15s"),
                    ("idle_in_transaction_session_timeout", "5min"),
                ]),
            Seat::Tenant { database, login, password } => options
                .username(login.as_str())
                .password(password.expose())
                .database(database.as_str())
                .options([
                    ("role", "none"),
                    ("default_transaction_read_only", "off"),
                    ("search_path", "pg_catalog,pg_temp"),
                    ("statement_timeout", "15s"),
                ]),
        }
    }

    fn as_login(&self, options: PgConnectOptions, database: &str) -> PgConnectOptions {
        options.username(&self.username).password(self.password.expose()).database(database)
    }
}

impl Tls {
    fn apply(&self, options: PgConnectOptions) -> PgConnectOptions {
        let (mode, ca) = match self {
            Self::Disable => (PgSslMode::Disable, None),
            Self::Require => (PgSslMode::Require, None),
            Self::VerifyCa { ca } => (PgSslMode::VerifyCa, ca.as_ref()),
            Self::VerifyFull { ca } => (PgSslMode::VerifyFull, ca.as_ref()),
        };
        let options = options.ssl_mode(mode);
        match ca {
            Some(ca) => options.ssl_root_cert_from_pem(ca.clone()),
            None => options,
        }
    }
}

/// How long a statement may take before its connection counts as lost: what waits inside the server has its own, shorter
/// limits there.
pub(super) const STATEMENT_LIMIT: Duration = Duration::from_secs(120);

/// How long a question about the catalogues may take: a server that hangs is not waited for.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// How long making or dropping a database may take: a copy of the template, or a checkpoint of the whole server.
pub(super) const DATABASE_LIMIT: Duration = Duration::from_secs(600);

/// Waits for an answer, but not for ever: of a connection that was lost without a word nothing ever comes.
pub(super) async fn within<T>(
    limit: Duration,
    doing: &'static str,
    answer: impl Future<Output = sqlx::Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.map_err(Error::sql(doing)),
        Err(_) => Err(Error::Timeout { doing, after: limit }),
    }
}

/// Opens a session.
pub(super) async fn connect(options: &PgConnectOptions, doing: &'static str) -> Result<PgConnection> {
    match tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(options)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(source)) => Err(Error::Sql { doing, source }),
        Err(_) => Err(Error::Timeout { doing, after: CONNECT_TIMEOUT }),
    }
}

/// The identifier that initdb gave to the server that a session is on.
pub(super) async fn identifier_of(session: &mut PgConnection) -> Result<String> {
    let query = sqlx::query_scalar("SELECT system_identifier::text FROM pg_control_system()");
    within(ANSWER_LIMIT, "identify the server", query.fetch_one(session)).await
}
