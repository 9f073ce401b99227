//! The steps of workflows, by name. What each does is in `controller/tenant/steps/`, one file per step.

use std::fmt;

/// Everything a workflow can do to a tenant, in the order in which provisioning and then going away do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Put the finalizer on the Tenant: before it, there is no effect outside the object.
    ClaimFinalizer,
    /// Write the registry row: the slug is ours from here on.
    Register,
    /// Create the tenant's login, without LOGIN and without a password.
    CreateRoles,
    /// Clone the template under the building name.
    CreateDatabase,
    /// Bring the modules to their target versions.
    ApplyMigrations,
    /// Write the limits of a database that was just made, then settings, admins and demo data.
    Seed,
    /// Put in force what the plan gives: limits in the database, connections of the login.
    ApplyPlan,
    /// Rename the database to its final name.
    PublishDatabase,
    /// Give the login the group and the CONNECT right of its access level, or take them, and prove it.
    EnforceAccess,
    /// Write the Secrets and give the login its password.
    PublishCredentials,
    /// Log in as the tenant.
    Verify,
    /// Write the registry's status, after which the tenant is handed out.
    Activate,
    /// Write the registry's status after access was judged anew and put in force.
    RecordState,
    /// Take the tombstone back: the tenant is no longer going away.
    Reinstate,
    /// Record that what a failed first provisioning made is gone.
    RecordRollback,
    /// Take the login's rights and end its sessions.
    CutAccess,
    /// Mark the registry row as going away.
    Tombstone,
    /// Drop the database.
    DropDatabase,
    /// Drop the login.
    DropRoles,
    /// Delete the Secrets.
    RemoveSecrets,
    /// Close the registry row.
    Close,
    /// Let the Tenant object go.
    ReleaseFinalizer,
}

impl Step {
    /// The step's name in `status.workflow.steps`, the registry, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClaimFinalizer => "ClaimFinalizer",
            Self::Register => "Register",
            Self::CreateRoles => "CreateRoles",
            Self::CreateDatabase => "CreateDatabase",
            Self::ApplyMigrations => "ApplyMigrations",
            Self::Seed => "Seed",
            Self::ApplyPlan => "ApplyPlan",
            Self::PublishDatabase => "PublishDatabase",
            Self::EnforceAccess => "EnforceAccess",
            Self::PublishCredentials => "PublishCredentials",
            Self::Verify => "Verify",
            Self::Activate => "Activate",
            Self::RecordState => "RecordState",
            Self::Reinstate => "Reinstate",
            Self::RecordRollback => "RecordRollback",
            Self::CutAccess => "CutAccess",
            Self::Tombstone => "Tombstone",
            Self::DropDatabase => "DropDatabase",
            Self::DropRoles => "DropRoles",
            Self::RemoveSecrets => "RemoveSecrets",
            Self::Close => "Close",
            Self::ReleaseFinalizer => "ReleaseFinalizer",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
