//! The errors of operations on a server. Their texts appear in the conditions of Tenants.

use std::{borrow::Cow, fmt::Write, time::Duration};

use sqlx::postgres::PgDatabaseError;

use super::migration_error::{ExtensionError, MigrationError, ModuleSchemaError};
use crate::{api::reason::Reason, traces::statement_failed};

/// The result of an operation on a server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The maximum length of a server's text in an error.
const MAX_TEXT: usize = 600;

/// The SQLSTATE of a refusal by a meter (`migrations/tenant/core/0003_limits.sql`).
const LIMIT_REACHED: &str = "TNLIM";

/// A failed operation. No variant ever contains a password; texts of the server are truncated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused a statement, or the connection failed.
    #[error("{doing}: {}", describe(.source))]
    Sql {
        /// The operation; for one that opens a session, with the server's address.
        doing: Cow<'static, str>,
        /// The error of the client library.
        source: sqlx::Error,
    },
    /// The server did not respond in time.
    #[error("{doing}: no answer within {} s", .after.as_secs())]
    Timeout {
        /// The operation; for one that opens a session, with the server's address.
        doing: Cow<'static, str>,
        /// The time limit.
        after: Duration,
    },
    /// This process no longer holds the Lease, and changes nothing.
    #[error("this operator no longer holds the Lease; the new leader continues")]
    Fenced,
    /// A database or a role of that name exists and is not the tenant's.
    #[error(
        "{kind} {name} exists and is not this tenant's: {detail}. It is not changed; rename or remove it"
    )]
    Conflict {
        /// `database` or `role`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Its owner, according to its comment.
        detail: String,
    },
    /// A row was refused by a limit of the tenant's plan.
    #[error("{doing}: {message} [{LIMIT_REACHED}]")]
    LimitReached {
        /// The operation.
        doing: &'static str,
        /// The limit's name.
        limit: String,
        /// The message of the tenant's database: the limit, what is used, and what was refused.
        message: String,
    },
    /// A right is missing.
    #[error("{0}")]
    MissingRight(String),
    /// The tenant's database does not exist.
    #[error("database {0} does not exist")]
    DatabaseMissing(String),
    /// The database existed before its tenant, which was never active: it is never dropped.
    #[error("database {0} existed before its tenant, which was never active: it is not dropped")]
    NotDropped(String),
    /// A migration login is made only for a tenant with full access.
    #[error("no migration can run in database {0} now: the access of its tenant is restricted")]
    MigrationsRestricted(String),
    /// The tenant's login does not exist.
    #[error("role {0} does not exist")]
    LoginMissing(String),
    /// A module's SQL failed.
    #[error(transparent)]
    Migration(#[from] Box<MigrationError>),
    /// A module was not migrated, since one that it depends on failed.
    #[error("module {module} waits for module {on}, which it depends on and whose migration failed")]
    ModuleBlocked {
        /// The module.
        module: String,
        /// The module that failed, or is blocked itself.
        on: String,
    },
    /// A module's schema exists, and cannot be used.
    #[error(transparent)]
    ModuleSchema(#[from] Box<ModuleSchemaError>),
    /// An extension that a module needs cannot be had.
    #[error(transparent)]
    Extension(#[from] Box<ExtensionError>),
    /// Sessions block the operation and could not be ended.
    #[error("{count} session(s) on {database} could not be ended: {who}")]
    SessionsInTheWay {
        /// The database or the login.
        database: String,
        /// How many.
        count: usize,
        /// Process ids and users.
        who: String,
    },
    /// Sessions of the tenant's login were asked to end, and still run.
    #[error(
        "role {login} is in no group{others} any more; but its session {sessions} was asked to end and still runs: what it executes ignores termination. The rest waits until that is done; only a restart of PostgreSQL ends it sooner"
    )]
    TerminationIgnored {
        /// The login.
        login: String,
        /// Empty, or the group that it is left in.
        others: String,
        /// The process ids.
        sessions: String,
    },
    /// Prepared transactions block the operation.
    #[error(
        "database {database} has prepared transactions ({gids}); COMMIT PREPARED or ROLLBACK PREPARED them"
    )]
    PreparedTransaction {
        /// The database.
        database: String,
        /// Their names.
        gids: String,
    },
    /// A logical replication slot in use blocks the operation.
    #[error("database {database} has replication slots in use ({slots}); stop their consumers")]
    ReplicationSlot {
        /// The database.
        database: String,
        /// Their names.
        slots: String,
    },
    /// A logical replication subscription blocks the operation.
    #[error("database {0} has a logical replication subscription; drop it first")]
    Subscription(String),
    /// The login owns objects, or has rights on objects, outside its database.
    #[error("role {login} cannot be dropped: {detail}")]
    LoginInUse {
        /// The login.
        login: String,
        /// What depends on it.
        detail: String,
    },
    /// A login was accepted that must be refused.
    #[error("role {login} could log in to {database}")]
    LoginAccepted {
        /// The login.
        login: String,
        /// The database.
        database: String,
    },
    /// The server belongs to another installation.
    #[error("the server belongs to installation {0}")]
    ServerInUse(String),
    /// Another server responds at the address.
    #[error("another PostgreSQL server answers: system identifier {found}, not {expected}")]
    ServerReplaced {
        /// The identifier of the server that was checked.
        expected: String,
        /// The identifier of the server that responds.
        found: String,
    },
    /// The server is a standby.
    #[error("the server is a standby and accepts no writes; point the DatabaseServer at the primary")]
    Standby,
    /// The template was changed after it was built.
    #[error("template {name} {detail}: it is not used; drop it, and a new one is built")]
    TemplateBroken {
        /// The template.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The template needs a run of an application's own tool, which only its builder begins.
    #[error(
        "the template of these modules is not there yet: the tool of module {module} has to run on it first"
    )]
    TemplateNeedsRun {
        /// The module.
        module: String,
    },
    /// The server is older than 15 or newer than 18.
    #[error("PostgreSQL {0} is not supported; 15 to 18 are")]
    UnsupportedVersion(String),
    /// A name that PostgreSQL cannot hold.
    #[error("{0:?} is not a possible name in PostgreSQL: it must have 1 to 63 bytes")]
    Name(String),
    /// A text that PostgreSQL cannot hold.
    #[error("a text with a NUL character cannot be sent to PostgreSQL")]
    NulInText,
    /// A one-time password could not be hashed.
    #[error("a one-time password could not be hashed")]
    PasswordNotHashed,
    /// A verifier that is not SCRAM-SHA-256. It may be a password, so it is neither sent nor shown.
    #[error("the password verifier is not a SCRAM-SHA-256 verifier")]
    NotAVerifier,
}

impl Error {
    /// Wraps an error of sqlx.
    pub(super) fn sql(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| match reported(statement_failed(&source)).filter(|error| error.code() == LIMIT_REACHED)
        {
            Some(error) => Self::LimitReached {
                doing,
                limit: bounded(error.constraint().unwrap_or_default().to_owned()),
                message: bounded(error.message().to_owned()),
            },
            None => Self::Sql { doing: doing.into(), source },
        }
    }

    /// The SQLSTATE, if the server gave one.
    pub fn sql_state(&self) -> Option<String> {
        match self {
            Self::Sql { source, .. } => code(source).map(str::to_owned),
            Self::Migration(error) => error.sql_state.clone(),
            Self::LimitReached { .. } => Some(LIMIT_REACHED.to_owned()),
            _ => None,
        }
    }

    /// The reason, for conditions and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Sql { source, .. } => reason(source),
            Self::Timeout { .. } => Reason::DatabaseTimeout,
            Self::Fenced | Self::MigrationsRestricted(_) | Self::TemplateNeedsRun { .. } => Reason::Waiting,
            Self::Conflict { .. } | Self::NotDropped(_) => Reason::Conflict,
            Self::LimitReached { .. } => Reason::LimitReached,
            Self::MissingRight(_) => Reason::MissingRight,
            Self::DatabaseMissing(_) => Reason::DatabaseMissing,
            Self::LoginMissing(_) => Reason::LoginMissing,
            Self::Migration(_) | Self::ModuleBlocked { .. } => Reason::MigrationFailed,
            Self::ModuleSchema(_) => Reason::MigrationFailed,
            Self::Extension(_) => Reason::ExtensionNotFound,
            Self::SessionsInTheWay { .. } => Reason::SessionsInTheWay,
            Self::TerminationIgnored { .. } => Reason::TerminationIgnored,
            Self::PreparedTransaction { .. } => Reason::PreparedTransaction,
            Self::ReplicationSlot { .. } => Reason::ReplicationSlot,
            Self::Subscription(_) => Reason::Subscription,
            Self::LoginInUse { .. } => Reason::LoginInUse,
            Self::LoginAccepted { .. } => Reason::LoginAccepted,
            Self::ServerInUse(_) => Reason::ServerInUse,
            Self::ServerReplaced { .. } => Reason::ServerReplaced,
            Self::Standby => Reason::ReadOnlyServer,
            Self::TemplateBroken { .. } => Reason::TemplateBroken,
            Self::UnsupportedVersion(_) => Reason::UnsupportedVersion,
            Self::Name(_) | Self::NulInText => Reason::NameNotPossible,
            Self::NotAVerifier => Reason::NotAVerifier,
            Self::PasswordNotHashed => Reason::PasswordNotHashed,
        }
    }

    /// Whether the server itself cannot be used: it does not respond, is another one, refuses the operator's login, or
    /// accepts no writes.
    pub fn is_unreachable(&self) -> bool {
        let reasons = [
            Reason::DatabaseUnreachable,
            Reason::DatabaseTimeout,
            Reason::StartingUp,
            Reason::TlsFailed,
            Reason::AuthenticationFailed,
            Reason::SessionEnded,
            Reason::ServerReplaced,
            Reason::TooManyConnections,
            Reason::ReadOnlyServer,
        ];
        reasons.contains(&self.reason())
    }

    /// Whether a retry cannot succeed until a person changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Migration(error) => !error.transient,
            Self::Conflict { .. }
            | Self::NotDropped(_)
            | Self::LimitReached { .. }
            | Self::MissingRight(_)
            | Self::ServerInUse(_)
            | Self::UnsupportedVersion(_)
            | Self::Name(_)
            | Self::NulInText
            | Self::LoginInUse { .. }
            | Self::ModuleBlocked { .. }
            | Self::ModuleSchema(_)
            | Self::Extension(_)
            | Self::NotAVerifier => true,
            _ => self.reason() == Reason::MissingRight,
        }
    }
}

/// The error that the server reported, if it was one.
pub(super) fn reported(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    match error {
        sqlx::Error::Database(error) => error.try_downcast_ref::<PgDatabaseError>(),
        _ => None,
    }
}

/// The SQLSTATE of an error.
pub(super) fn code(error: &sqlx::Error) -> Option<&str> {
    reported(error).map(PgDatabaseError::code)
}

/// Whether an object of that name exists already, according to the command, or to the unique index of the catalog when
/// two sessions create it at once.
pub(super) fn is_duplicate(error: &sqlx::Error) -> bool {
    matches!(code(error), Some("42P04" | "42710" | "23505"))
}

/// Whether two sessions changed one row of a shared catalog at once. The statement had no effect and can be run again.
pub(super) fn is_concurrent_update(error: &sqlx::Error) -> bool {
    reported(error).is_some_and(|error| {
        error.code() == "40P01"
            || (error.code() == "XX000" && error.message().starts_with("tuple concurrently"))
    })
}

/// Whether a lock was not granted in time.
pub(super) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    code(error) == Some("55P03")
}

/// Whether the same SQL may succeed later.
pub(super) fn is_transient(error: &sqlx::Error) -> bool {
    match code(error) {
        Some(code) => {
            matches!(code.get(..2), Some("08" | "40" | "53" | "57"))
                || matches!(code, "55006" | "55P03" | "25006")
                || is_concurrent_update(error)
        }
        None => true,
    }
}

fn tls_error(error: &sqlx::Error) -> Option<&rustls::Error> {
    match error {
        sqlx::Error::Io(error) => error.get_ref()?.downcast_ref::<rustls::Error>(),
        _ => None,
    }
}

fn reason(error: &sqlx::Error) -> Reason {
    let Some(reported) = reported(error) else {
        return match error {
            sqlx::Error::Tls(_) => Reason::TlsFailed,
            sqlx::Error::Io(_) if tls_error(error).is_some() => Reason::TlsFailed,
            sqlx::Error::Io(_) => Reason::DatabaseUnreachable,
            sqlx::Error::Configuration(_) => Reason::ServerMisconfigured,
            _ => Reason::UnexpectedAnswer,
        };
    };
    reason_of(reported.code(), reported.message())
}

/// The reason for a SQLSTATE and the server's message.
fn reason_of(code: &str, message: &str) -> Reason {
    match code {
        "28P01" | "28000" => Reason::AuthenticationFailed,
        "42501" => Reason::MissingRight,
        // The role that a session starts with is a setting: a role that is missing is an invalid value.
        "22023" if message.contains("role") => Reason::MissingRight,
        // The codes are "internal error" and "invalid parameter value".
        "XX000" if message.contains("collation version") => Reason::CollationMismatch,
        "22023" if message.starts_with("encoding ") => Reason::EncodingMismatch,
        "53300" => Reason::TooManyConnections,
        "53100" => Reason::DiskFull,
        "53200" => Reason::OutOfMemory,
        "25006" => Reason::ReadOnlyServer,
        "57P03" => Reason::StartingUp,
        "57P01" | "57P02" | "57P05" => Reason::SessionEnded,
        "57014" => Reason::StatementCancelled,
        "3D000" => Reason::DatabaseMissing,
        "55006" => Reason::SessionsInTheWay,
        "55P03" => Reason::LockTimeout,
        code => match code.get(..2) {
            Some("08") => Reason::DatabaseUnreachable,
            Some("40") => Reason::ConcurrentChange,
            _ => Reason::SqlFailed,
        },
    }
}

/// The message of an error with the server's detail and hint, truncated.
pub(super) fn describe(error: &sqlx::Error) -> String {
    let mut text = String::new();
    let _ = match (reported(error), tls_error(error), error) {
        (Some(error), ..) => {
            let _ = write!(text, "{}", error.message());
            for more in [error.detail(), error.hint()].into_iter().flatten() {
                let _ = write!(text, " ({more})");
            }
            write!(text, " [{}]", error.code())
        }
        (_, Some(tls), _) => write!(text, "TLS: {tls}"),
        (.., sqlx::Error::Io(error)) => write!(text, "{error}"),
        (.., sqlx::Error::Tls(error)) => write!(text, "TLS: {error}"),
        (.., error) => write!(text, "{error}"),
    };
    bounded(text)
}

/// Truncates a text.
pub(super) fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = text.floor_char_boundary(MAX_TEXT);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
