//! One run of an application's own migration tool: observes it, and does the next action of `domain::migration_run`. Everything
//! is found again after an interruption: the login by its comment, the Secret, the Job and its pod by the run's name and label.

use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Pod, Secret},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};

use super::{
    job::{LABEL_RUN, MigrationAddress, MigrationConnection, MigrationRun},
    job_state::job_state,
};
use crate::{
    api::{MANAGED_BY, module_job::ModuleJob},
    domain::migration_run::{RunAction, RunFacts, RunOutcome, next_action},
    postgres::{
        Error,
        server::Server,
        tenant::{
            credentials::{generate_password, scram_verifier},
            migration_login::{MigratedDatabase, MigrationLogin},
        },
    },
};

/// How much later than Kubernetes the operator ends a run.
const GRACE_SECONDS: i64 = 60;
/// How much longer than the run its password is valid: the Job may be created later than the login.
const MARGIN_SECONDS: i64 = 600;

/// One run, and what it works with.
pub struct MigrationRunner<'a> {
    /// The client of the Kubernetes API.
    pub client: &'a Client,
    /// The server with the database.
    pub server: &'a Server,
    /// The server as the Job's pod reaches it.
    pub address: MigrationAddress<'a>,
    /// The database.
    pub database: MigratedDatabase<'a>,
    /// The run.
    pub run: MigrationRun<'a>,
    /// What is run.
    pub source: &'a ModuleJob,
}

/// What is recorded of a run from one action to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunRecord {
    /// When its Job was created.
    pub job_created_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<RunOutcome>,
    /// It is no longer wanted.
    pub is_cancelled: bool,
}

/// Why an action failed. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum MigrationRunError {
    /// The API server refused it, or did not respond.
    #[error("Kubernetes: {0}")]
    Kubernetes(#[from] kube::Error),
    /// The server did.
    #[error(transparent)]
    Postgres(#[from] Error),
}

impl MigrationRunner<'_> {
    /// Does the next action, and returns it. [`RunAction::Record`] is the caller's to do; after [`RunAction::CreateJob`], it
    /// records the time.
    pub async fn advance(&self, record: &RunRecord, now: Timestamp) -> Result<RunAction, MigrationRunError> {
        let action = next_action(&self.observe(record, now).await?);
        let name = self.run.name();
        match &action {
            RunAction::OpenLogin => self.open_login(now).await?,
            RunAction::CreateJob => {
                let job = self.run.job(self.source, &self.address);
                match self.jobs().create(&params(), &job).await {
                    // An earlier attempt has created it, and its answer was lost: the name is that of the run.
                    Err(kube::Error::Api(answer)) if answer.is_already_exists() => {}
                    created => drop(created?),
                }
            }
            RunAction::DeleteJob => deleted(self.jobs().delete(&name, &DeleteParams::background()).await)?,
            RunAction::CloseLogin => {
                self.server.close_migration_login(&self.database.login()?).await?;
            }
            RunAction::DeleteSecret => {
                deleted(self.secrets().delete(&name, &DeleteParams::default()).await)?;
            }
            RunAction::Wait { .. } | RunAction::Record(_) | RunAction::Done(_) => {}
        }
        Ok(action)
    }

    async fn observe(&self, record: &RunRecord, now: Timestamp) -> Result<RunFacts, MigrationRunError> {
        let name = self.run.name();
        let secret = self.secrets().get_opt(&name).await?;
        let password = secret.as_ref().and_then(password_in).unwrap_or_default();
        let job = self.jobs().get_opt(&name).await?;
        let pods = ListParams::default().labels(&format!("{LABEL_RUN}={}", self.run.run));
        let pods = Api::<Pod>::namespaced(self.client.clone(), self.run.namespace).list(&pods).await?.items;
        let created = job.as_ref().and_then(|job| Some(job.metadata.creation_timestamp.as_ref()?.0));
        let login = self.server.migration_login_state(&self.database, self.run.run).await?;
        let limit = (self.source.deadline_seconds() + GRACE_SECONDS).seconds();
        Ok(RunFacts {
            now,
            deadline: record.job_created_at.or(created).map(|created| created + limit),
            login,
            has_secret: secret.is_some(),
            job: job_state(job.as_ref(), &pods, &[&password]),
            outcome: record.outcome.clone(),
            is_cancelled: record.is_cancelled,
        })
    }

    /// The login first: a Secret that exists has its password.
    async fn open_login(&self, now: Timestamp) -> Result<(), MigrationRunError> {
        // One of an earlier attempt has the password of a login that is replaced now.
        deleted(self.secrets().delete(&self.run.name(), &DeleteParams::default()).await)?;
        let password = generate_password();
        let verifier = scram_verifier(&password);
        let valid = (self.source.deadline_seconds() + MARGIN_SECONDS).seconds();
        let wanted = MigrationLogin {
            run: self.run.run,
            schema: self.run.schema,
            verifier: &verifier,
            valid_until: Some(now + valid),
        };
        let login = self.server.open_migration_login(&self.database, &wanted).await?;
        let connection = MigrationConnection {
            address: self.address.clone(),
            database: &self.database.name()?,
            login: &login,
            password: &password,
        };
        self.secrets().create(&params(), &self.run.secret(&connection)).await?;
        Ok(())
    }

    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.client.clone(), self.run.namespace)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), self.run.namespace)
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGED_BY.to_owned()), ..PostParams::default() }
}

fn password_in(secret: &Secret) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get("PGPASSWORD")?.0.clone()).ok()
}

fn deleted<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
