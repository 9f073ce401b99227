//! A run of an application's own migration tool as the registry has it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{migration_login::MigrationOwner, migration_run::RunOutcome, placement::Placement};

/// A run of an application's own migration tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRun {
    /// Its id.
    pub run: Uuid,
    /// The server with the database.
    pub server: String,
    /// Whose database it is.
    pub owner: MigrationOwner,
    /// The database of a tenant.
    pub database: Option<String>,
    /// The Tenant, as namespace and name.
    pub tenant: Option<(String, String)>,
    /// The TenantModule.
    pub module: String,
    /// The number of its version.
    pub version: i32,
    /// The name of its version.
    pub version_name: String,
    /// The schema of the module.
    pub schema: String,
    /// The namespace of the Job and its Secret.
    pub namespace: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When its Job was created.
    pub job_created_at: Option<Timestamp>,
    /// How it ended, once that is known.
    pub outcome: Option<RunOutcome>,
    /// It is no longer wanted.
    pub is_cancelled: bool,
}

impl StoredRun {
    /// The database of a tenant.
    pub fn placement(&self) -> Option<Placement> {
        let (MigrationOwner::Tenant(tenant), Some(database)) = (&self.owner, &self.database) else {
            return None;
        };
        Some(Placement {
            tenant: *tenant,
            server: self.server.clone(),
            database: database.clone(),
            schema: None,
            login: super::names::login_name(database),
            previous_login: None,
            reader_login: None,
        })
    }

    /// The message of a failure, for a person.
    pub fn failure(&self, now: Timestamp) -> Option<String> {
        let RunOutcome::Failed { message, .. } = self.outcome.as_ref()? else { return None };
        let seconds = now.duration_since(self.started_at).as_secs();
        Some(format!(
            "the Job of module {} for version {} failed after {seconds} s: {message}; it is tried again every five minutes; correct the data of this tenant, or the migrations, with a new spec.version",
            self.module, self.version_name
        ))
    }
}
