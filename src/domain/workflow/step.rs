//! The steps of workflows. What each does is in `controller/tenant/steps/`, one file per step.

use std::{fmt, time::Duration};

use crate::api::conditions::{
    ACCESS_ENFORCED, CREDENTIALS_PUBLISHED, DATABASE_READY, MIGRATIONS_APPLIED, REGISTERED, SEEDED,
};

/// The timeout of steps whose statements have short timeouts.
const SHORT: Duration = Duration::from_secs(600);
/// The timeout of steps that wait for other sessions, or run a module's SQL.
const LONG: Duration = Duration::from_secs(2 * 3600);

/// Everything that a workflow can do to a tenant, in the order of provisioning, then of deprovisioning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Add the finalizer to the Tenant. Before that, nothing outside of the object is changed.
    ClaimFinalizer,
    /// Write the registry row, which reserves the slug.
    Register,
    /// Give the tenant another slug.
    ChangeSlug,
    /// Create the tenant's login, without LOGIN and without a password.
    CreateRoles,
    /// Clone the template under the building name.
    CreateDatabase,
    /// Take over a database that existed before the tenant.
    TakeOver,
    /// Migrate the modules to their target versions.
    ApplyMigrations,
    /// Write the limits of a new database, then settings, admins and demo data.
    Seed,
    /// Apply the plan: the limits in the database, the connection limit of the login.
    ApplyPlan,
    /// Rename the database to its final name.
    PublishDatabase,
    /// Grant or revoke the group membership and the CONNECT right of the access level, and verify it.
    EnforceAccess,
    /// Write the Secrets, and set the login's password.
    PublishCredentials,
    /// Log in as the tenant.
    Verify,
    /// Record the first activation in the registry.
    Activate,
    /// Record the state in the registry, after a changed access evaluation is in force.
    RecordState,
    /// Drop the modules that `spec.purgeModules` names.
    PurgeModules,
    /// Record that the tenant gets its other login.
    RotateLogin,
    /// End the previous login.
    RetireLogin,
    /// Create the login that only reads, and write its Secret.
    PublishReader,
    /// End that login, and delete its Secret.
    RemoveReader,
    /// Remove the tombstone: the tenant is no longer being deprovisioned.
    Reinstate,
    /// Record that the tenant was activated, where a restored registry does not.
    RestoreActivation,
    /// Write a lost registry row again, as a person asked for.
    AdoptRow,
    /// Record that what a failed first provisioning created is removed.
    RecordRollback,
    /// Revoke the login's rights and end its sessions.
    CutAccess,
    /// Record in the registry that the tenant is being deprovisioned, and on which terms.
    Tombstone,
    /// Give back a database that existed before the tenant, which was never active.
    GiveBack,
    /// Drop the database.
    DropDatabase,
    /// Drop the login.
    DropRoles,
    /// Delete the Secrets.
    RemoveSecrets,
    /// Close the registry row.
    Close,
    /// Remove the finalizer from the Tenant.
    ReleaseFinalizer,
}

impl Step {
    /// The name in `status.workflow.steps`, the registry, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClaimFinalizer => "ClaimFinalizer",
            Self::Register => "Register",
            Self::ChangeSlug => "ChangeSlug",
            Self::CreateRoles => "CreateRoles",
            Self::CreateDatabase => "CreateDatabase",
            Self::TakeOver => "TakeOver",
            Self::ApplyMigrations => "ApplyMigrations",
            Self::Seed => "Seed",
            Self::ApplyPlan => "ApplyPlan",
            Self::PublishDatabase => "PublishDatabase",
            Self::EnforceAccess => "EnforceAccess",
            Self::PublishCredentials => "PublishCredentials",
            Self::Verify => "Verify",
            Self::Activate => "Activate",
            Self::RecordState => "RecordState",
            Self::PurgeModules => "PurgeModules",
            Self::RotateLogin => "RotateLogin",
            Self::RetireLogin => "RetireLogin",
            Self::PublishReader => "PublishReader",
            Self::RemoveReader => "RemoveReader",
            Self::Reinstate => "Reinstate",
            Self::RestoreActivation => "RestoreActivation",
            Self::AdoptRow => "AdoptRow",
            Self::RecordRollback => "RecordRollback",
            Self::CutAccess => "CutAccess",
            Self::Tombstone => "Tombstone",
            Self::GiveBack => "GiveBack",
            Self::DropDatabase => "DropDatabase",
            Self::DropRoles => "DropRoles",
            Self::RemoveSecrets => "RemoveSecrets",
            Self::Close => "Close",
            Self::ReleaseFinalizer => "ReleaseFinalizer",
        }
    }
}

impl Step {
    /// How long the step may take. Statements have their own timeouts; this one is for a connection that is lost without
    /// an error, which would keep the tenant's lock for ever.
    pub fn timeout(self) -> Duration {
        match self {
            Self::CreateDatabase
            | Self::TakeOver
            | Self::ApplyMigrations
            | Self::Seed
            | Self::GiveBack
            | Self::PurgeModules
            | Self::DropDatabase => LONG,
            Self::ClaimFinalizer
            | Self::Register
            | Self::ChangeSlug
            | Self::CreateRoles
            | Self::ApplyPlan
            | Self::PublishDatabase
            | Self::EnforceAccess
            | Self::PublishCredentials
            | Self::Verify
            | Self::Activate
            | Self::RecordState
            | Self::RotateLogin
            | Self::RetireLogin
            | Self::PublishReader
            | Self::RemoveReader
            | Self::Reinstate
            | Self::RestoreActivation
            | Self::AdoptRow
            | Self::RecordRollback
            | Self::CutAccess
            | Self::Tombstone
            | Self::DropRoles
            | Self::RemoveSecrets
            | Self::Close
            | Self::ReleaseFinalizer => SHORT,
        }
    }

    /// The type of the Tenant's condition that shows the step's outcome, if there is one beside Ready.
    pub fn condition(self) -> Option<&'static str> {
        match self {
            Self::ClaimFinalizer | Self::Register | Self::ChangeSlug | Self::AdoptRow => Some(REGISTERED),
            Self::CreateDatabase | Self::TakeOver | Self::PublishDatabase => Some(DATABASE_READY),
            Self::ApplyMigrations => Some(MIGRATIONS_APPLIED),
            Self::Seed => Some(SEEDED),
            Self::PublishCredentials | Self::RotateLogin | Self::PublishReader => Some(CREDENTIALS_PUBLISHED),
            Self::CreateRoles
            | Self::EnforceAccess
            | Self::Verify
            | Self::RetireLogin
            | Self::RemoveReader => Some(ACCESS_ENFORCED),
            // WithinLimits is decided by measuring usage, not by applying the plan.
            Self::ApplyPlan
            | Self::Activate
            | Self::RecordState
            | Self::PurgeModules
            | Self::Reinstate
            | Self::RestoreActivation
            | Self::RecordRollback
            | Self::CutAccess
            | Self::Tombstone
            | Self::GiveBack
            | Self::DropDatabase
            | Self::DropRoles
            | Self::RemoveSecrets
            | Self::Close
            | Self::ReleaseFinalizer => None,
        }
    }
}

/// The steps whose condition holds, in order.
pub(super) fn select(candidates: impl IntoIterator<Item = (Step, bool)>) -> Vec<Step> {
    candidates.into_iter().filter(|(_, is_due)| *is_due).map(|(step, _)| step).collect()
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
