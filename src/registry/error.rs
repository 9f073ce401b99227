//! What can go wrong with the registry, told apart by what helps.

use sqlx::migrate::MigrateError;

use crate::domain::identity::TenantId;

/// A failure of the registry, or a refusal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL of the system database cannot be used.
    #[error("the URL of the system database cannot be used: {0}")]
    Url(#[source] sqlx::Error),
    /// A statement or a connection failed.
    #[error("registry: {}", explain(.0))]
    Sql(#[from] sqlx::Error),
    /// Nothing came back in time.
    #[error("the registry does not answer")]
    NoAnswer,
    /// The registry's schema could not be brought up to date.
    #[error("the registry's migrations failed: {0}")]
    Migration(#[source] Box<MigrateError>),
    /// There is no such tenant.
    #[error("the registry has no tenant {0}")]
    NotFound(TenantId),
    /// A workflow of this tenant runs in another process, which is alive.
    #[error("a workflow of this tenant runs in {holder}")]
    Claimed {
        /// That process's `application_name`.
        holder: String,
    },
    /// This workflow was taken over, or has ended.
    #[error("this workflow was taken over by another run, or has ended")]
    TakenOver,
    /// The tenant's life has no such transition.
    #[error("tenant {tenant} cannot be made {to}: it is {from}")]
    Transition {
        /// Which tenant.
        tenant: TenantId,
        /// Its status.
        from: String,
        /// What was asked for.
        to: &'static str,
    },
    /// All names that could be computed for this slug are in use.
    #[error("all database names for the slug {0} are in use on this server")]
    NamesExhausted(String),
    /// The row has a value that this version does not know.
    #[error("the registry has {column} = {value:?}, which this version of Tenantry does not know")]
    UnknownValue {
        /// The column.
        column: &'static str,
        /// What is in it.
        value: String,
    },
}

impl Error {
    /// One word for conditions, Events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Url(_) => "RegistryUrlInvalid",
            Self::Sql(error) => reason(error),
            Self::NoAnswer => "RegistryUnreachable",
            Self::Migration(error) => match error.as_ref() {
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                    match reason(error) {
                        "RegistryError" | "RegistryNotSetUp" => "RegistryMigrationFailed",
                        cause => cause,
                    }
                }
                MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => "RegistryTooNew",
                _ => "RegistryMigrationFailed",
            },
            Self::NotFound(_) => "RegistryRowMissing",
            Self::Claimed { .. } | Self::TakenOver => "ClaimedElsewhere",
            Self::Transition { .. } => "TransitionRefused",
            Self::NamesExhausted(_) => "NamesExhausted",
            Self::UnknownValue { .. } => "RegistryTooNew",
        }
    }

    /// The SQLSTATE, where PostgreSQL gave one.
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

    /// Whether it will fail in the same way again until somebody changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Url(_) | Self::NotFound(_) | Self::Transition { .. } => true,
            Self::NamesExhausted(_) | Self::UnknownValue { .. } => true,
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

fn reason(error: &sqlx::Error) -> &'static str {
    let Some(code) = code(error) else {
        return match error {
            sqlx::Error::Tls(_) => "RegistryTlsFailed",
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => "RegistryUnreachable",
            _ => "RegistryError",
        };
    };
    match code.as_str() {
        "TN001" => "TransitionRefused",
        "TN002" => "ClaimedElsewhere",
        "TN003" => "RecordProtected",
        "TN005" => "PurgesFrozen",
        "28P01" | "28000" => "RegistryLoginRefused",
        "3D000" => "RegistryDatabaseMissing",
        "42501" => "RegistryPermissionDenied",
        // The role or a table is not there: nobody has set this server up, or the migrations have not run.
        "22023" | "42704" | "42P01" | "42703" | "42883" => "RegistryNotSetUp",
        "53300" => "RegistryTooManyConnections",
        "53100" => "RegistryDiskFull",
        "25006" => "RegistryReadOnly",
        "57P03" => "RegistryStarting",
        "40001" | "40P01" | "55P03" | "57014" => "RegistryBusy",
        code if code.starts_with("08") || code.starts_with("57P") => "RegistryUnreachable",
        _ => "RegistryError",
    }
}

fn is_permanent(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => false,
        // A certificate does not become right by trying again.
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(_) => {
            let code = code(error).unwrap_or_default();
            match code.as_str() {
                "TN002" | "TN005" => false,
                // Connections, transactions that got in each other's way, resources, operator intervention, IO.
                _ => !["08", "25", "40", "53", "55", "57", "58", "XX"]
                    .contains(&code.get(..2).unwrap_or_default()),
            }
        }
        _ => true,
    }
}

/// What the driver says, and what could be done about it.
fn explain(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::PoolTimedOut => "no connection came free, or none could be made, in time".to_owned(),
        sqlx::Error::Database(database) if reason(error) == "RegistryNotSetUp" => {
            format!("{database} (was `tenantry server-setup` run there?)")
        }
        sqlx::Error::Database(database) => database.to_string(),
        other => other.to_string(),
    }
}
