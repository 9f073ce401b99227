//! Why a step failed, with the reason that its condition shows.

use std::time::Duration;

use crate::{api::conditions::reason, postgres, registry};

/// However long a server asks to be left alone, it is looked at again after this.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// A step's failure.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// PostgreSQL said no, or nothing.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// So did the registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// So did the Kubernetes API.
    #[error("the Kubernetes API refused: {}", answer(.0))]
    Kubernetes(#[from] kube::Error),
    /// The slug belongs to another living tenant.
    #[error("slug {slug:?} is taken by {owner}; choose another, or remove that tenant first")]
    SlugTaken {
        /// The slug.
        slug: String,
        /// Who has it, for people.
        owner: String,
    },
    /// A Secret of the wanted name exists and is not this tenant's.
    #[error(
        "Secret {name:?} exists and does not belong to this tenant: it is left as it is; rename or delete it, or set spec.connectionSecretName on a new Tenant"
    )]
    SecretConflict {
        /// The Secret.
        name: String,
        /// Its uid, to see it go.
        uid: Option<String>,
    },
    /// This process no longer leads.
    #[error("this operator no longer holds the Lease; the new leader goes on")]
    NotLeader,
    /// The database is older than what was applied to it.
    #[error(
        "module {module} is at version {found} in the database, and version {recorded} was applied to it: it was restored to an older state; restore a newer one, or bring it up to date"
    )]
    SchemaBehind {
        /// The module.
        module: String,
        /// The version that was applied.
        recorded: i32,
        /// The version that is there.
        found: i32,
    },
    /// The operator's clock says that the grace is over, the registry's does not.
    #[error(
        "the grace period is over by the operator's clock and not by the registry's: nothing is dropped until both agree; check the clocks of both machines"
    )]
    ClocksDisagree,
    /// The Tenant is not what it was when its end was decided.
    #[error("the Tenant was changed, or applied again, before anything was destroyed: it is visited anew")]
    TenantChanged,
    /// Many tenants went away at once, and nobody has looked at it yet.
    #[error(
        "nothing is dropped while the breaker of mass deletions is open: see the Event on the definition of Tenants for why, and for how to go on"
    )]
    PurgesFrozen,
    /// It took longer than anything should.
    #[error("no answer within {} s", .0.as_secs())]
    Hung(Duration),
    /// Something that an earlier step makes is not there. The next visit observes anew.
    #[error("{0} is not there yet; observed anew at the next attempt")]
    Missing(&'static str),
}

/// What the API server said, without the rest of its answer.
fn answer(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// What a quota says that has nothing left, or was not counted yet, since it is new.
const QUOTA_WORDS: [&str; 2] = ["exceeded quota", "status unknown for quota"];

/// What kind of trouble the API server is, or has. A quota is temporary: it is freed by others, without an event here.
pub fn api_reason(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) => match status.code {
            403 if QUOTA_WORDS.iter().any(|words| status.message.contains(words)) => reason::QUOTA_EXCEEDED,
            400 | 403 | 422 => reason::REQUEST_REFUSED,
            429 => reason::THROTTLED,
            500.. => reason::KUBERNETES_API_UNREACHABLE,
            _ => reason::KUBERNETES_API_ERROR,
        },
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
            reason::KUBERNETES_API_UNREACHABLE
        }
        _ => reason::KUBERNETES_API_ERROR,
    }
}

/// How long the API server asks to be left alone.
pub fn rest(error: &kube::Error) -> Option<Duration> {
    let kube::Error::Api(status) = error else { return None };
    let seconds = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|s| *s > 0)?;
    Some(Duration::from_secs(seconds.into()).min(LONGEST_REST))
}

impl StepError {
    /// How long the other side asks to be left alone.
    pub fn rest(&self) -> Option<Duration> {
        match self {
            Self::Kubernetes(error) => rest(error),
            _ => None,
        }
    }

    /// The condition reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Postgres(error) => error.reason(),
            Self::Registry(error) => error.reason(),
            Self::Kubernetes(error) => api_reason(error),
            Self::SlugTaken { .. } => reason::SLUG_TAKEN,
            Self::SecretConflict { .. } => reason::SECRET_CONFLICT,
            Self::SchemaBehind { .. } => reason::SCHEMA_BEHIND,
            Self::ClocksDisagree => reason::CLOCKS_DISAGREE,
            Self::PurgesFrozen => reason::PURGES_FROZEN,
            Self::NotLeader | Self::TenantChanged | Self::Missing(_) => reason::WAITING,
            Self::Hung(_) => reason::STEP_FAILED,
        }
    }

    /// The SQLSTATE, where PostgreSQL gave one.
    pub fn sql_state(&self) -> Option<String> {
        match self {
            Self::Postgres(error) => error.sql_state(),
            Self::Registry(error) => error.sql_state(),
            Self::Kubernetes(_)
            | Self::SlugTaken { .. }
            | Self::SecretConflict { .. }
            | Self::NotLeader
            | Self::ClocksDisagree
            | Self::PurgesFrozen
            | Self::TenantChanged
            | Self::Hung(_)
            | Self::SchemaBehind { .. }
            | Self::Missing(_) => None,
        }
    }

    /// Whether the tenant's server could not be reached.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Postgres(error) => error.is_unreachable(),
            _ => false,
        }
    }

    /// Whether only a change by a person can help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Postgres(error) => error.is_permanent(),
            Self::Registry(error) => error.is_permanent(),
            Self::SlugTaken { .. } | Self::SecretConflict { .. } | Self::SchemaBehind { .. } => true,
            Self::Kubernetes(error) => api_reason(error) == reason::REQUEST_REFUSED,
            Self::NotLeader
            | Self::ClocksDisagree
            | Self::PurgesFrozen
            | Self::TenantChanged
            | Self::Hung(_)
            | Self::Missing(_) => false,
        }
    }
}
