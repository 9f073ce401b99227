//! How sessions are opened. The role, the `search_path`, the timeouts and the name of the holder are in the startup
//! packet, so that no setting of a database or a role overrides them.

use std::{borrow::Cow, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::{
    own_authority::OwnAuthority,
    postgres::{
        error::{Error, Result, code, is_transient},
        identifier::{ADMIN, Ident, OWNER},
        tenant::credentials::SecretText,
    },
    traces::with_traced_statements,
};

/// The time limit for opening a session.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// The version from which on GRANT has the options INHERIT and SET.
pub(in crate::postgres) const GRANT_OPTIONS_SINCE: u32 = 160_000;

/// A server and the operator's connection to it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// The `DatabaseServer`'s name.
    pub name: String,
    /// The host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: Tls,
    /// The operator's login: not a superuser, a member of `tenantry_admin`.
    pub username: String,
    /// Its password.
    pub password: SecretText,
    /// The prefix of the names of tenant databases.
    pub prefix: String,
    /// The `application_name` of every session: the holder of the Lease. A later holder finds and ends the sessions by it.
    pub application_name: String,
    /// The maximum number of open sessions on the server, of all kinds together; at least 4.
    pub max_connections: u32,
}

/// How a connection is protected.
#[derive(Clone, Debug, PartialEq)]
pub enum Tls {
    /// No TLS.
    Disable,
    /// TLS, without a check of the certificate.
    Require,
    /// TLS with a certificate that the given authority signed, or without one any authority of the system, for any host
    /// name.
    VerifyCa {
        /// PEM certificates.
        ca: Option<Vec<u8>>,
    },
    /// As `VerifyCa`, and the certificate is for the host name.
    VerifyFull {
        /// PEM certificates.
        ca: Option<Vec<u8>>,
    },
}

/// The role and the database of a session.
#[derive(Clone, Debug)]
pub(in crate::postgres) enum ConnectAs<'a> {
    /// The operator as `tenantry_admin`, in the given database.
    Admin(&'a str),
    /// The operator's login without `SET ROLE`, in the given database: before `tenantry_admin` exists.
    Login(&'a str),
    /// The login of one session, a member of `tenantry_migrator`, acting as `tenantry_owner`, for modules' SQL and seeds.
    Migrator { database: &'a Ident, login: &'a Ident, password: &'a SecretText, work: MigratorWork },
    /// A tenant.
    Tenant { database: &'a Ident, login: &'a Ident, password: &'a SecretText },
}

/// What a session of the migrator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres) enum MigratorWork {
    /// It runs files, functions of modules or VACUUM, which have their own time limits.
    Change,
    /// It looks at the database, and corrects what is Tenantry's: no statement takes long, unless the tenant made it.
    Look,
}

impl ConnectAs<'_> {
    /// The database of the session.
    pub(super) fn database(&self) -> &str {
        match self {
            Self::Admin(database) | Self::Login(database) => database,
            Self::Migrator { database, .. } | Self::Tenant { database, .. } => database.as_str(),
        }
    }

    /// The tenant's database, for a session in one.
    pub(super) fn tenant_database(&self) -> Option<&str> {
        match self {
            Self::Admin(_) | Self::Login(_) => None,
            Self::Migrator { database, .. } | Self::Tenant { database, .. } => Some(database.as_str()),
        }
    }
}

/// What every session sets at its start, so that no setting of a login or a database, which may be a tenant's own, changes
/// how statements work or ends the session. (Where data is stored, and how durable it is, is the administrator's choice.) The
/// timeouts that differ between sessions are added.
const PINNED: [(&str, &str); 15] = [
    ("client_min_messages", "error"),
    ("local_preload_libraries", ""),
    ("idle_session_timeout", "0"),
    ("idle_in_transaction_session_timeout", "5min"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    ("row_security", "on"),
    ("check_function_bodies", "on"),
    ("transform_null_equals", "off"),
    ("array_nulls", "on"),
    ("standard_conforming_strings", "on"),
    ("bytea_output", "hex"),
    ("IntervalStyle", "postgres"),
    // Names from the catalogs are compared with names that are known.
    ("quote_all_identifiers", "off"),
    ("exit_on_error", "off"),
];

/// The version from which on `transaction_timeout` exists.
const TRANSACTION_TIMEOUT_SINCE: u32 = 170_000;

/// The options of a session, with what only servers of this version know.
pub(super) fn with_version(options: PgConnectOptions, version: u32) -> PgConnectOptions {
    if version < TRANSACTION_TIMEOUT_SINCE {
        return options;
    }
    options.options([("transaction_timeout", "0")])
}

/// The database of admin sessions.
pub(in crate::postgres) const MAINTENANCE_DATABASE: &str = "postgres";

impl ServerConfig {
    /// Whether clients reach the server in the same way: under the same address, and with the same TLS settings.
    pub fn is_reached_as(&self, other: &Self) -> bool {
        (&self.host, self.port, &self.tls) == (&other.host, other.port, &other.tls)
    }

    /// The options of a session.
    pub(super) fn options(&self, connect_as: &ConnectAs<'_>) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .application_name(&self.application_name)
            // sqlx would log statements, and slow ones as warnings; some contain password verifiers.
            .disable_statement_logging();
        let options = self.tls.apply(options);
        let options = options.options(PINNED);
        let lasts = connect_as.tenant_database().is_none();
        with_traced_statements(self.connecting(options, connect_as), lasts)
    }

    fn connecting(&self, options: PgConnectOptions, connect_as: &ConnectAs<'_>) -> PgConnectOptions {
        match *connect_as {
            // `default_transaction_read_only` is left to the administrator: managed services set it before the disk is
            // full. Statements that must run even then use `run_despite_read_only`. A statement timeout would
            // interrupt a DROP DATABASE; a lock timeout only ends waiting. It is short, since what blocks a statement is
            // ended meanwhile, and since a statement that waits for a database blocks everybody who connects to it.
            ConnectAs::Admin(database) => self.as_login(options, database).options([
                ("role", ADMIN.as_str()),
                ("search_path", "pg_catalog,pg_temp"),
                ("statement_timeout", "0"),
                ("lock_timeout", "1s"),
            ]),
            ConnectAs::Login(database) => self.as_login(options, database).options([
                ("role", "none"),
                ("search_path", "pg_catalog,pg_temp"),
                ("statement_timeout", "60s"),
                ("lock_timeout", "30s"),
            ]),
            // A tenant can hold locks on its tables for any time; a migration waits 15 seconds. Only a module's file looks
            // names up in its own schema: a function planted in `public` may fit a call better than PostgreSQL's.
            ConnectAs::Migrator { database, login, password, work } => options
                .username(login.as_str())
                .password(password.expose())
                .database(database.as_str())
                .options([
                    ("role", OWNER.as_str()),
                    // A module could set this for the login.
                    ("default_transaction_read_only", "off"),
                    ("search_path", "pg_catalog,pg_temp"),
                    ("statement_timeout", if work == MigratorWork::Look { LOOK_TIMEOUT } else { "0" }),
                    ("lock_timeout", "15s"),
                ]),
            ConnectAs::Tenant { database, login, password } => options
                .username(login.as_str())
                .password(password.expose())
                .database(database.as_str())
                .options([
                    ("role", "none"),
                    ("default_transaction_read_only", "off"),
                    ("search_path", "pg_catalog,pg_temp"),
                    ("statement_timeout", "15s"),
                    ("lock_timeout", "15s"),
                ]),
        }
    }

    fn as_login(&self, options: PgConnectOptions, database: &str) -> PgConnectOptions {
        options.username(&self.username).password(self.password.expose()).database(database)
    }
}

impl Tls {
    fn apply(&self, options: PgConnectOptions) -> PgConnectOptions {
        options.ssl_mode(match self {
            Self::Disable => PgSslMode::Disable,
            Self::Require => PgSslMode::Require,
            Self::VerifyCa { .. } => PgSslMode::VerifyCa,
            Self::VerifyFull { .. } => PgSslMode::VerifyFull,
        })
    }

    /// The authority to trust instead of those of the system.
    fn own_authority(&self) -> Option<OwnAuthority<'_>> {
        let (ca, for_host) = match self {
            Self::Disable | Self::Require => return None,
            Self::VerifyCa { ca } => (ca, false),
            Self::VerifyFull { ca } => (ca, true),
        };
        ca.as_deref().map(|ca| OwnAuthority { ca: ca.into(), for_host })
    }
}

/// The time after which the connection of a statement counts as lost. Waits inside the server have shorter limits there.
pub(in crate::postgres) const STATEMENT_LIMIT: Duration = Duration::from_secs(120);

/// When the server ends a statement of a session that only looks: a little later than the client stops waiting.
const LOOK_TIMEOUT: &str = "125s";

/// The time limit of a catalog query: a server that does not respond is not waited for.
pub(in crate::postgres) const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The time limit for creating or dropping a database: a copy of the template, or a checkpoint of the whole server.
pub(in crate::postgres) const DATABASE_LIMIT: Duration = Duration::from_secs(600);

/// Waits for an answer up to a limit: a connection that was lost without a reset never returns one.
pub(in crate::postgres) async fn with_timeout<T>(
    limit: Duration,
    doing: &'static str,
    answer: impl Future<Output = sqlx::Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.map_err(Error::sql(doing)),
        Err(_) => Err(Error::Timeout { doing: doing.into(), after: limit }),
    }
}

/// Opens a session on a server.
pub(in crate::postgres) async fn connect_to(
    server: &ServerConfig,
    options: &PgConnectOptions,
    doing: &'static str,
) -> Result<PgConnection> {
    let Some(authority) = server.tls.own_authority() else {
        return in_time(PgConnection::connect_with(options), options, doing).await;
    };
    let opening = async {
        let through = authority.connect(options).await?;
        PgConnection::connect_with(&through).await
    };
    in_time(opening, options, doing).await
}

/// Opens a session, as the options of a URL say: of the authorities, only that of the URL is trusted.
pub(in crate::postgres) async fn connect_by_url(
    options: &PgConnectOptions,
    doing: &'static str,
) -> Result<PgConnection> {
    let opening = async {
        match OwnAuthority::of(options)? {
            Some(authority) => PgConnection::connect_with(&authority.connect(options).await?).await,
            None => PgConnection::connect_with(options).await,
        }
    };
    in_time(opening, options, doing).await
}

async fn in_time(
    opening: impl Future<Output = sqlx::Result<PgConnection>>,
    options: &PgConnectOptions,
    doing: &'static str,
) -> Result<PgConnection> {
    match tokio::time::timeout(CONNECT_TIMEOUT, opening).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(source)) => Err(Error::Sql { doing: with_address(doing, options), source }),
        Err(_) => Err(Error::Timeout { doing: with_address(doing, options), after: CONNECT_TIMEOUT }),
    }
}

/// Whether a server refuses a session only for the moment.
pub(super) fn is_full_or_starting(error: &sqlx::Error) -> bool {
    is_transient(error) && matches!(code(error), Some("53300" | "57P03"))
}

/// The operation and the server's address, which says what refused a connection.
fn with_address(doing: &str, options: &PgConnectOptions) -> Cow<'static, str> {
    let (host, port) = (options.get_host(), options.get_port());
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!("{doing} ({host}:{port})").into()
}

/// The system identifier that initdb gave to the server of a session.
pub(in crate::postgres) async fn identifier_of(session: &mut PgConnection) -> Result<String> {
    let query = sqlx::query_scalar("SELECT system_identifier::text FROM pg_control_system()");
    with_timeout(ANSWER_LIMIT, "identify the server", query.fetch_one(session)).await
}

/// The timeline of the server of a session.
pub(in crate::postgres) async fn timeline_of(session: &mut PgConnection) -> Result<i64> {
    let query = sqlx::query_scalar("SELECT timeline_id::bigint FROM pg_control_checkpoint()");
    with_timeout(ANSWER_LIMIT, "read the server's timeline", query.fetch_one(session)).await
}
