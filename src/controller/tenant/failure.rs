//! Why a step failed, with the reason that its condition shows.

use std::time::Duration;

use crate::{
    api::{ANNOTATION_ADOPT_ROW, reason::Reason},
    controller::watch::guarded::InvalidObject,
    domain::{
        modules::ModuleError,
        takeover::{BaselineError, TakeoverRefusal},
    },
    postgres, registry,
};

/// The maximum of `Retry-After` that is honoured.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// A step's failure.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// PostgreSQL refused, or did not answer.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// The registry refused, or did not answer.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The Kubernetes API refused, or did not answer.
    #[error("the Kubernetes API refused: {}", answer(.0))]
    Kubernetes(#[from] kube::Error),
    /// The slug belongs to another tenant, which the text describes.
    #[error("{0}")]
    SlugTaken(String),
    /// A Secret of the wanted name exists and belongs to another owner.
    #[error(
        "Secret {name:?} exists and does not belong to this tenant; it is not changed: rename or delete it, or set spec.connectionSecretName on a new Tenant"
    )]
    SecretConflict {
        /// The Secret.
        name: String,
        /// Its uid, to notice when it is deleted.
        uid: Option<String>,
    },
    /// The registry row cannot be written again, or taken over from another Tenant.
    #[error(
        "the registry row cannot be adopted, as {ANNOTATION_ADOPT_ROW} asks for: {why}; nothing was changed"
    )]
    RowNotAdopted {
        /// Why not.
        why: String,
        /// Whether there is no row.
        is_lost: bool,
    },
    /// Another Tenant has the id of this one in its status.
    #[error(
        "Tenant {object} has the id of this tenant in its status, so the registry may be older than the move to it: nothing is dropped; move it again (SELECT move_tenant('{slug}', namespace, name) in the registry), or delete that Tenant if it is an old one"
    )]
    ClaimedElsewhere {
        /// The other Tenant, as `namespace/name`.
        object: String,
        /// The slug.
        slug: String,
    },
    /// The database that the tenant should take over is not taken over.
    #[error(transparent)]
    NotAdopted(TakeoverRefusal),
    /// `spec.adopt.baseline` names what does not exist.
    #[error(transparent)]
    Baseline(BaselineError),
    /// `spec.adopt` was removed after it was confirmed, and before the database was taken over.
    #[error(
        "spec.adopt was removed after the adoption was confirmed: write it again to go on, or delete the Tenant to undo it"
    )]
    AdoptRemoved,
    /// The plan allows fewer users than the spec has admins.
    #[error(
        "spec.admins: {admins} admins are more users than plan {plan:?} allows: remove some, or choose a plan that allows more; {source}"
    )]
    AdminsOverLimit {
        /// How many the spec has.
        admins: usize,
        /// The plan.
        plan: String,
        /// The refusal: the limit, what is used, and what was refused.
        source: Box<postgres::Error>,
    },
    /// This process no longer leads.
    #[error("this operator no longer holds the Lease; the new leader continues")]
    NotLeader,
    /// The database has older migrations than were applied to it.
    #[error(
        "module {module} is at version {found} in the database, but version {recorded} was applied to it: the database was restored to an older state; restore a newer one, or apply the missing migrations"
    )]
    SchemaBehind {
        /// The module.
        module: String,
        /// The version that was applied.
        recorded: i32,
        /// The version in the database.
        found: i32,
    },
    /// The database lacks something that its modules created.
    #[error(
        "database {database} is not as its modules created it: {}: restore a complete copy, or create by hand what is missing, as tenantry_owner", .left.join("; ")
    )]
    SchemaIncomplete {
        /// The database.
        database: String,
        /// What is missing or different.
        left: Vec<String>,
    },
    /// The run of an application's own tool failed.
    #[error("{0}")]
    RunFailed(String),
    /// The template needs the run of an application's own tool.
    #[error(
        "the template for this tenant is being built: {0}; the tenant is cloned from it once it is there"
    )]
    TemplateRuns(String),
    /// A module that `spec.purgeModules` names stays.
    #[error(transparent)]
    PurgeRefused(ModuleError),
    /// The grace period is over by the operator's clock and not by the registry's.
    #[error(
        "the grace period is over by the operator's clock but not by the registry's: nothing is dropped until both agree; check the clocks of both machines"
    )]
    ClocksDisagree,
    /// An object exists and cannot be decoded.
    #[error("the object in the API server cannot be decoded: {0}; correct it")]
    InvalidObject(#[from] Box<InvalidObject>),
    /// The Tenant changed after its purge was planned.
    #[error("the Tenant was changed, or applied again, before anything was dropped: it is reconciled again")]
    TenantChanged,
    /// The breaker of mass deletions is open.
    #[error(
        "nothing is dropped while the breaker of mass deletions is open: the Event on the Tenant CRD says why, and how to continue"
    )]
    PurgesFrozen,
    /// The tenant has legal holds, which the text names.
    #[error("nothing is dropped, because of {0}: a legal hold ends when its TenantHold is deleted")]
    LegalHold(String),
    /// The step did not end in time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// Something changed between the plan and the step. The next reconcile observes again.
    #[error("{0} changed meanwhile; it is read again at the next attempt")]
    Changed(&'static str),
    /// Something that an earlier step creates does not exist. The next reconcile observes again.
    #[error("{0} does not exist yet; it is checked again at the next attempt")]
    Missing(&'static str),
}

/// The API server's message, without the rest of its answer.
fn answer(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// How the API server reports an exhausted quota, or a new one that was not counted yet.
const QUOTA_MESSAGES: [&str; 2] = ["exceeded quota", "status unknown for quota"];

/// The reason of an API server's error. An exhausted quota is temporary: other clients free it, without an event here.
pub fn api_reason(error: &kube::Error) -> Reason {
    match error {
        kube::Error::Api(status) => match status.code {
            403 if QUOTA_MESSAGES.iter().any(|text| status.message.contains(text)) => Reason::QuotaExceeded,
            400 | 403 | 422 => Reason::RequestRefused,
            429 => Reason::Throttled,
            500.. => Reason::KubernetesApiUnreachable,
            _ => Reason::KubernetesApiError,
        },
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
            Reason::KubernetesApiUnreachable
        }
        _ => Reason::KubernetesApiError,
    }
}

/// How long the API server asks not to be called again.
pub fn retry_after(error: &kube::Error) -> Option<Duration> {
    let kube::Error::Api(status) = error else { return None };
    let seconds = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|s| *s > 0)?;
    Some(Duration::from_secs(seconds.into()).min(MAX_RETRY_AFTER))
}

impl StepError {
    /// How long the API server asks not to be called again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Kubernetes(error) => retry_after(error),
            _ => None,
        }
    }

    /// The condition reason.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Postgres(error) => error.reason(),
            Self::Registry(error) => error.reason(),
            Self::Kubernetes(error) => api_reason(error),
            Self::SlugTaken(_) => Reason::SlugTaken,
            Self::SecretConflict { .. } => Reason::SecretConflict,
            Self::RowNotAdopted { is_lost: true, .. } => Reason::RegistryRowMissing,
            Self::RowNotAdopted { is_lost: false, .. } => Reason::BoundElsewhere,
            Self::NotAdopted(refusal) => refusal.reason(),
            Self::Baseline(_) | Self::AdoptRemoved => Reason::InvalidSpec,
            Self::AdminsOverLimit { .. } => Reason::LimitReached,
            Self::ClaimedElsewhere { .. } => Reason::RegistryBehind,
            Self::SchemaBehind { .. } => Reason::SchemaBehind,
            Self::SchemaIncomplete { .. } => Reason::SchemaIncomplete,
            Self::RunFailed(_) => Reason::MigrationFailed,
            Self::TemplateRuns(_) => Reason::Waiting,
            Self::PurgeRefused(_) => Reason::ModulePurgeRefused,
            Self::ClocksDisagree => Reason::ClocksDisagree,
            Self::InvalidObject(_) => Reason::InvalidObject,
            Self::PurgesFrozen => Reason::PurgesFrozen,
            Self::LegalHold(_) => Reason::LegalHold,
            Self::NotLeader | Self::TenantChanged | Self::Changed(_) | Self::Missing(_) => Reason::Waiting,
            Self::TimedOut(_) => Reason::StepFailed,
        }
    }

    /// The SQLSTATE, where PostgreSQL gave one.
    pub fn sql_state(&self) -> Option<String> {
        match self {
            Self::Postgres(error) => error.sql_state(),
            Self::Registry(error) => error.sql_state(),
            Self::AdminsOverLimit { source, .. } => source.sql_state(),
            Self::Kubernetes(_)
            | Self::SlugTaken(_)
            | Self::SecretConflict { .. }
            | Self::RowNotAdopted { .. }
            | Self::NotAdopted(_)
            | Self::Baseline(_)
            | Self::AdoptRemoved
            | Self::NotLeader
            | Self::RunFailed(_)
            | Self::TemplateRuns(_)
            | Self::ClocksDisagree
            | Self::PurgesFrozen
            | Self::ClaimedElsewhere { .. }
            | Self::LegalHold(_)
            | Self::TenantChanged
            | Self::InvalidObject(_)
            | Self::TimedOut(_)
            | Self::SchemaBehind { .. }
            | Self::SchemaIncomplete { .. }
            | Self::PurgeRefused(_)
            | Self::Changed(_)
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
            Self::SlugTaken(_)
            | Self::SecretConflict { .. }
            | Self::RowNotAdopted { .. }
            | Self::NotAdopted(_)
            | Self::Baseline(_)
            | Self::AdoptRemoved
            | Self::AdminsOverLimit { .. }
            | Self::SchemaBehind { .. }
            | Self::RunFailed(_)
            | Self::PurgeRefused(_)
            | Self::SchemaIncomplete { .. } => true,
            Self::Kubernetes(error) => api_reason(error) == Reason::RequestRefused,
            Self::NotLeader
            | Self::TemplateRuns(_)
            | Self::ClocksDisagree
            | Self::PurgesFrozen
            | Self::ClaimedElsewhere { .. }
            | Self::LegalHold(_)
            | Self::TenantChanged
            | Self::InvalidObject(_)
            | Self::TimedOut(_)
            | Self::Changed(_)
            | Self::Missing(_) => false,
        }
    }
}
