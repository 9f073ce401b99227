//! Errors of the registry, distinguished by their remedy.

use std::sync::{PoisonError, RwLock};

use sqlx::{migrate::MigrateError, postgres::PgConnectOptions};

use crate::{
    api::reason::Reason,
    domain::{identity::TenantId, observed::RegistryStatus},
    traces::statement_failed,
};

/// The address of this process's registry, which the driver's errors do not have.
static ADDRESS: RwLock<String> = RwLock::new(String::new());

/// Sets the address in all messages from now on.
pub(super) fn set_address(options: &PgConnectOptions) {
    let (host, port) = (options.get_host(), options.get_port());
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    *ADDRESS.write().unwrap_or_else(PoisonError::into_inner) = format!(" ({host}:{port})");
}

fn address() -> String {
    ADDRESS.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A failure of the registry, or a request that it refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL of the system database cannot be used.
    #[error("the URL of the system database cannot be used: {0}")]
    Url(#[source] sqlx::Error),
    /// A statement or a connection failed.
    #[error("registry{}: {}", address(), explain(.0))]
    Sql(#[source] sqlx::Error),
    /// No answer came in time.
    #[error("the registry{} does not respond", address())]
    NoAnswer,
    /// The registry's schema could not be migrated.
    #[error("the registry's migrations{} failed: {}", address(), .0)]
    Migration(#[source] Box<MigrateError>),
    /// A newer release has changed the schema in a way that this one cannot work with.
    #[error(
        "the registry's schema is too new for this release: it needs a release with migration {needed:04}, and the last \
         one that this release has is {known:04}; run a newer release"
    )]
    TooNew {
        /// The migration that a release must have.
        needed: i64,
        /// The last one that this release has.
        known: i64,
    },
    /// No row has this id.
    #[error("the registry has no tenant {0}")]
    NotFound(TenantId),
    /// A workflow of this tenant runs in another live process.
    #[error("a workflow of this tenant runs in {holder}")]
    Claimed {
        /// That process's `application_name`.
        holder: String,
    },
    /// The workflow was taken over, or has ended.
    #[error("this workflow was taken over by another run, or has ended")]
    TakenOver,
    /// The lifecycle has no such transition.
    #[error("tenant {tenant} cannot become {}: it is {}", to.as_str(), from.as_str())]
    Transition {
        /// The tenant.
        tenant: TenantId,
        /// Its status.
        from: RegistryStatus,
        /// The requested status.
        to: RegistryStatus,
    },
    /// Every database name that can be derived from this slug is in use.
    #[error("all database names for the slug {0} are in use on this server")]
    NamesExhausted(String),
    /// A row has a value that this version does not know.
    #[error("the registry has {column} = {value:?}, which this version of Tenantry does not know")]
    UnknownValue {
        /// The column.
        column: &'static str,
        /// Its value.
        value: String,
    },
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        statement_failed(&error);
        match error {
            // A row that cannot be read is refused by `record`, and carried here by the driver.
            sqlx::Error::Decode(cause) => match cause.downcast::<Self>() {
                Ok(refusal) => *refusal,
                Err(cause) => Self::Sql(sqlx::Error::Decode(cause)),
            },
            other => Self::Sql(other),
        }
    }
}

impl Error {
    /// The reason for conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Url(_) => Reason::RegistryUrlInvalid,
            Self::Sql(error) => reason(error),
            Self::NoAnswer => Reason::RegistryUnreachable,
            Self::Migration(error) => match error.as_ref() {
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                    match reason(error) {
                        Reason::RegistryError | Reason::RegistryNotSetUp => Reason::RegistryMigrationFailed,
                        cause => cause,
                    }
                }
                _ => Reason::RegistryMigrationFailed,
            },
            Self::NotFound(_) => Reason::RegistryRowMissing,
            Self::Claimed { .. } | Self::TakenOver => Reason::ClaimedElsewhere,
            Self::Transition { .. } => Reason::TransitionRefused,
            Self::NamesExhausted(_) => Reason::NamesExhausted,
            Self::UnknownValue { .. } | Self::TooNew { .. } => Reason::RegistryTooNew,
        }
    }

    /// PostgreSQL's SQLSTATE, if it returned one.
    pub fn sql_state(&self) -> Option<String> {
        match self {
            Self::Url(error) | Self::Sql(error) => code(error),
            Self::Migration(error) => match error.as_ref() {
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => code(error),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether a retry fails in the same way until the configuration or the data is changed.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Url(_) | Self::NotFound(_) | Self::Transition { .. } => true,
            Self::NamesExhausted(_) | Self::UnknownValue { .. } | Self::TooNew { .. } => true,
            Self::Claimed { .. } | Self::TakenOver | Self::NoAnswer => false,
            Self::Sql(error) => is_permanent(error),
            Self::Migration(error) => match error.as_ref() {
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                    is_permanent(error)
                }
                _ => true,
            },
        }
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

fn reason(error: &sqlx::Error) -> Reason {
    let Some(code) = code(error) else {
        return match error {
            sqlx::Error::Tls(_) => Reason::RegistryTlsFailed,
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
                Reason::RegistryUnreachable
            }
            _ => Reason::RegistryError,
        };
    };
    match code.as_str() {
        "TN001" => Reason::TransitionRefused,
        "TN002" => Reason::ClaimedElsewhere,
        "TN003" => Reason::RecordProtected,
        "TN005" => Reason::PurgesFrozen,
        "TN006" => Reason::LegalHold,
        "28P01" | "28000" => Reason::RegistryLoginRefused,
        "3D000" => Reason::RegistryDatabaseMissing,
        "42501" => Reason::RegistryPermissionDenied,
        // The role or a table does not exist: server-setup or the migrations have not run.
        "22023" | "42704" | "42P01" | "42703" | "42883" => Reason::RegistryNotSetUp,
        "53300" => Reason::RegistryTooManyConnections,
        "53100" => Reason::RegistryDiskFull,
        "25006" => Reason::RegistryReadOnly,
        "57P03" => Reason::RegistryStarting,
        "40001" | "40P01" | "55P03" | "57014" => Reason::RegistryBusy,
        code if code.starts_with("08") || code.starts_with("57P") => Reason::RegistryUnreachable,
        _ => Reason::RegistryError,
    }
}

fn is_permanent(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => false,
        // A retry does not make a certificate valid.
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(_) => {
            let code = code(error).unwrap_or_default();
            match code.as_str() {
                "TN002" | "TN005" | "TN006" => false,
                // Connections, conflicting transactions, resources, operator intervention, I/O.
                _ => !["08", "25", "40", "53", "55", "57", "58", "XX"]
                    .contains(&code.get(..2).unwrap_or_default()),
            }
        }
        _ => true,
    }
}

/// The driver's message, with the remedy if there is a likely one.
fn explain(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::PoolTimedOut => "no connection became available in time".to_owned(),
        // Its message alone: the line of PostgreSQL's own source that `Display` adds says nothing here.
        sqlx::Error::Database(database) => match reason(error) {
            Reason::RegistryNotSetUp => {
                format!("{} (was `tenantry server-setup` run there?)", database.message())
            }
            Reason::RegistryLoginRefused => format!(
                "{}: correct TENANTRY_SYSTEM_DATABASE_URL, and restart the operator",
                database.message()
            ),
            _ => database.message().to_owned(),
        },
        other => other.to_string(),
    }
}
