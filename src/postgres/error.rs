//! What can go wrong on a server, in words that go into a Tenant's conditions.

use std::{fmt::Write, time::Duration};

use sqlx::postgres::PgDatabaseError;

use super::migrate::MigrationError;

/// The result of everything in this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The longest text that an error carries over from a server.
const MAX_TEXT: usize = 600;

/// The SQLSTATE of a refusal by a meter (`migrations/tenant/core/0003_limits.sql`).
const LIMIT_REACHED: &str = "TNLIM";

/// A failed operation. No variant ever holds a password; texts of the server are cut to a bounded length.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server said no, or did not answer.
    #[error("{doing}: {}", describe(.source))]
    Sql {
        /// What was being done.
        doing: &'static str,
        /// What came back.
        source: sqlx::Error,
    },
    /// Nothing came back in time.
    #[error("{doing}: no answer within {} s", .after.as_secs())]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// This process does not lead any more, and touches nothing.
    #[error("this operator no longer holds the Lease; the new leader goes on")]
    Fenced,
    /// Something of that name exists and is not ours.
    #[error("{kind} {name} exists and is not this tenant's: {detail}. It is left alone; rename or remove it")]
    Conflict {
        /// `database` or `role`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Whose it is, as far as its mark tells.
        detail: String,
    },
    /// What was to be added is over a limit of the tenant's plan.
    #[error("{doing}: {message} [{LIMIT_REACHED}]")]
    LimitReached {
        /// What was being done.
        doing: &'static str,
        /// The limit's name.
        limit: String,
        /// What the tenant's database says: the limit, how much is used, how much more was asked for.
        message: String,
    },
    /// A right is missing, or what it would show is.
    #[error("{0}")]
    MissingRight(String),
    /// The tenant's database is not there.
    #[error("database {0} does not exist")]
    DatabaseMissing(String),
    /// The tenant's login is not there.
    #[error("role {0} does not exist")]
    LoginMissing(String),
    /// A module's SQL failed.
    #[error(transparent)]
    Migration(#[from] Box<MigrationError>),
    /// Sessions are in the way and could not be ended.
    #[error("{count} session(s) on {database} could not be ended: {who}")]
    SessionsInTheWay {
        /// The database or the login.
        database: String,
        /// How many.
        count: usize,
        /// Process ids and users.
        who: String,
    },
    /// Prepared transactions are in the way.
    #[error(
        "database {database} has prepared transactions ({gids}); COMMIT PREPARED or ROLLBACK PREPARED them"
    )]
    PreparedTransaction {
        /// The database.
        database: String,
        /// Their names.
        gids: String,
    },
    /// A logical replication slot in use is in the way.
    #[error("database {database} has replication slots in use ({slots}); stop their consumers")]
    ReplicationSlot {
        /// The database.
        database: String,
        /// Their names.
        slots: String,
    },
    /// A logical replication subscription is in the way.
    #[error("database {0} has a logical replication subscription; drop it first")]
    Subscription(String),
    /// The login owns something, or has rights on something, outside its database.
    #[error("role {login} cannot be dropped: {detail}")]
    LoginInUse {
        /// The login.
        login: String,
        /// What depends on it.
        detail: String,
    },
    /// A login worked that must not.
    #[error("role {login} could log in to {database}")]
    LoginAccepted {
        /// The login.
        login: String,
        /// The database.
        database: String,
    },
    /// Another installation has this server.
    #[error("the server belongs to installation {0}")]
    ServerInUse(String),
    /// Where the server was, another one answers.
    #[error("another PostgreSQL server answers: system identifier {found}, not {expected}")]
    ServerReplaced {
        /// The identifier of the one that was looked at.
        expected: String,
        /// That of the one that answers.
        found: String,
    },
    /// The server is a standby.
    #[error("the server is a standby and takes no writes; point the DatabaseServer at the primary")]
    Standby,
    /// The template of tenants is not what it was when it was built.
    #[error("template {name} {detail}: nothing is cloned from it; drop it, and a new one is built")]
    TemplateBroken {
        /// The template.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The server is older than 15 or newer than 18.
    #[error("PostgreSQL {0} is not supported; 15 to 18 are")]
    UnsupportedVersion(String),
    /// A name that PostgreSQL cannot hold.
    #[error("{0:?} is no possible name in PostgreSQL: it must have 1 to 63 bytes")]
    Name(String),
    /// A one-time password could not be hashed.
    #[error("a one-time password could not be hashed")]
    PasswordNotHashed,
    /// A verifier that is not SCRAM-SHA-256; it might be a password, so it is neither sent nor shown.
    #[error("what was given as a password verifier is not a SCRAM-SHA-256 verifier")]
    NotAVerifier,
}

impl Error {
    /// Wraps what sqlx returned.
    pub(super) fn sql(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| match reported(&source).filter(|error| error.code() == LIMIT_REACHED) {
            Some(error) => Self::LimitReached {
                doing,
                limit: bounded(error.constraint().unwrap_or_default().to_owned()),
                message: bounded(error.message().to_owned()),
            },
            None => Self::Sql { doing, source },
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

    /// One of a bounded set of words, for conditions and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Sql { source, .. } => reason(source),
            Self::Timeout { .. } => "DatabaseTimeout",
            Self::Fenced => "Waiting",
            Self::Conflict { .. } => "Conflict",
            Self::LimitReached { .. } => "LimitReached",
            Self::MissingRight(_) => "MissingRight",
            Self::DatabaseMissing(_) => "DatabaseMissing",
            Self::LoginMissing(_) => "LoginMissing",
            Self::Migration(_) => "MigrationFailed",
            Self::SessionsInTheWay { .. } => "SessionsInTheWay",
            Self::PreparedTransaction { .. } => "PreparedTransaction",
            Self::ReplicationSlot { .. } => "ReplicationSlot",
            Self::Subscription(_) => "Subscription",
            Self::LoginInUse { .. } => "LoginInUse",
            Self::LoginAccepted { .. } => "LoginAccepted",
            Self::ServerInUse(_) => "ServerInUse",
            Self::ServerReplaced { .. } => "ServerReplaced",
            Self::Standby => "ReadOnlyServer",
            Self::TemplateBroken { .. } => "TemplateBroken",
            Self::UnsupportedVersion(_) => "UnsupportedVersion",
            Self::Name(_) => "NameNotPossible",
            Self::NotAVerifier => "NotAVerifier",
            Self::PasswordNotHashed => "PasswordNotHashed",
        }
    }

    /// Whether the server did not answer, is another one, does not let the operator in, or takes no writes: whatever was
    /// wanted of it.
    pub fn is_unreachable(&self) -> bool {
        let reasons = [
            "DatabaseUnreachable",
            "DatabaseTimeout",
            "StartingUp",
            "TlsFailed",
            "AuthenticationFailed",
            "SessionEnded",
            "ServerReplaced",
            "TooManyConnections",
            "ReadOnlyServer",
        ];
        reasons.contains(&self.reason())
    }

    /// Whether trying again cannot help until somebody changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Migration(error) => !error.transient,
            Self::Conflict { .. }
            | Self::LimitReached { .. }
            | Self::MissingRight(_)
            | Self::ServerInUse(_)
            | Self::UnsupportedVersion(_)
            | Self::Name(_)
            | Self::LoginInUse { .. }
            | Self::NotAVerifier => true,
            _ => self.reason() == "MissingRight",
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

/// Whether an object of that name was there already: said by the command, or by the catalogue's unique index when
/// two were at it at once.
pub(super) fn is_duplicate(error: &sqlx::Error) -> bool {
    matches!(code(error), Some("42P04" | "42710" | "23505"))
}

/// Whether two sessions changed one row of a shared catalogue at once; nothing was done, and it can be run again.
pub(super) fn is_concurrent_update(error: &sqlx::Error) -> bool {
    reported(error).is_some_and(|error| {
        error.code() == "40P01"
            || (error.code() == "XX000" && error.message().starts_with("tuple concurrently"))
    })
}

/// Whether the same SQL may work a moment later.
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

fn reason(error: &sqlx::Error) -> &'static str {
    let Some(reported) = reported(error) else {
        return match error {
            sqlx::Error::Tls(_) => "TlsFailed",
            sqlx::Error::Io(_) if tls_error(error).is_some() => "TlsFailed",
            sqlx::Error::Io(_) => "DatabaseUnreachable",
            sqlx::Error::Configuration(_) => "ServerMisconfigured",
            _ => "UnexpectedAnswer",
        };
    };
    reason_of(reported.code(), reported.message())
}

/// The reason for a SQLSTATE and the server's words.
fn reason_of(code: &str, message: &str) -> &'static str {
    match code {
        "28P01" | "28000" => "AuthenticationFailed",
        "42501" => "MissingRight",
        // The role that a session starts with is a setting: a role that is missing is an invalid value.
        "22023" if message.contains("role") => "MissingRight",
        "53300" => "TooManyConnections",
        "53100" => "DiskFull",
        "53200" => "OutOfMemory",
        "25006" => "ReadOnlyServer",
        "57P03" => "StartingUp",
        "57P01" | "57P02" | "57P05" => "SessionEnded",
        "57014" => "StatementCancelled",
        "3D000" => "DatabaseMissing",
        "55006" => "SessionsInTheWay",
        "55P03" => "LockTimeout",
        code => match code.get(..2) {
            Some("08") => "DatabaseUnreachable",
            Some("40") => "ConcurrentChange",
            _ => "SqlFailed",
        },
    }
}

/// What an error says, bounded, with the server's detail and hint.
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

/// Cuts a text.
pub(super) fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = text.floor_char_boundary(MAX_TEXT);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_own_reason() {
        for (code, reason) in [
            ("28P01", "AuthenticationFailed"),
            ("28000", "AuthenticationFailed"),
            ("42501", "MissingRight"),
            ("53300", "TooManyConnections"),
            ("53100", "DiskFull"),
            ("53200", "OutOfMemory"),
            ("25006", "ReadOnlyServer"),
            ("57P03", "StartingUp"),
            ("57P01", "SessionEnded"),
            ("57P02", "SessionEnded"),
            ("57014", "StatementCancelled"),
            ("3D000", "DatabaseMissing"),
            ("55006", "SessionsInTheWay"),
            ("55P03", "LockTimeout"),
            ("08006", "DatabaseUnreachable"),
            ("40001", "ConcurrentChange"),
            ("42601", "SqlFailed"),
        ] {
            assert_eq!(reason_of(code, "what the server says"), reason, "{code}");
        }
        assert_eq!(reason_of("22023", "role \"tenantry_admin\" does not exist"), "MissingRight");
        assert_eq!(reason_of("22023", "invalid value"), "SqlFailed");
    }
}
