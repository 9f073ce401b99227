//! The steps, one file each, with the step's rules at its head. Every step may be run again, and may be cut at any
//! await: it looks at what is there before it changes anything.

mod activate;
mod apply_migrations;
mod apply_plan;
mod claim_finalizer;
mod close;
mod create_database;
mod create_roles;
mod cut_access;
mod drop_database;
mod drop_roles;
mod enforce_access;
mod publish_credentials;
mod publish_database;
mod record_rollback;
mod record_state;
mod register;
mod reinstate;
mod release_finalizer;
mod remove_secrets;
mod seed;
mod tombstone;
mod verify;

use std::sync::Arc;

use kube::{Api, ResourceExt};

use super::{
    failure::StepError,
    observe::{known, modules_of},
    presence::{look_up, still_leaving},
    visit::Visit,
};
use crate::{
    api::tenant::Tenant,
    controller::{breaker, context::SharedContext, finalizers::apply_finalizers},
    domain::{
        desired::Desired, limits::Entitlements, observed::RegistryStatus, standing::Standing, steps::Step,
    },
    postgres::{drift::Known, modules::ModuleSet, server::Server},
    registry::{Deadline, TenantRow},
};

/// What a step works with.
pub struct Run<'r, 'v> {
    /// The visit: steps read the object and the row, and leave a changed row here.
    pub visit: &'r mut Visit<'v>,
    /// The tenant's server.
    pub server: Option<&'r Server>,
    /// Everything else.
    pub context: &'r SharedContext,
}

/// Runs one step.
pub async fn run(step: Step, run: &mut Run<'_, '_>) -> Result<(), StepError> {
    match step {
        Step::ClaimFinalizer => claim_finalizer::run(run).await,
        Step::Register => register::run(run).await,
        Step::CreateRoles => create_roles::run(run).await,
        Step::CreateDatabase => create_database::run(run).await,
        Step::ApplyMigrations => apply_migrations::run(run).await,
        Step::ApplyPlan => apply_plan::run(run).await,
        Step::Seed => seed::run(run).await,
        Step::PublishDatabase => publish_database::run(run).await,
        Step::EnforceAccess => enforce_access::run(run).await,
        Step::PublishCredentials => publish_credentials::run(run).await,
        Step::Verify => verify::run(run).await,
        Step::Activate => activate::run(run).await,
        Step::RecordState => record_state::run(run).await,
        Step::Reinstate => reinstate::run(run).await,
        Step::RecordRollback => record_rollback::run(run).await,
        Step::CutAccess => cut_access::run(run).await,
        Step::Tombstone => tombstone::run(run).await,
        Step::DropDatabase => drop_database::run(run).await,
        Step::DropRoles => drop_roles::run(run).await,
        Step::RemoveSecrets => remove_secrets::run(run).await,
        Step::Close => close::run(run).await,
        Step::ReleaseFinalizer => release_finalizer::run(run).await,
    }
}

impl Run<'_, '_> {
    fn tenant(&self) -> &Tenant {
        self.visit.tenant
    }

    fn namespace(&self) -> String {
        self.visit.tenant.namespace().unwrap_or_default()
    }

    fn row(&self) -> Result<&TenantRow, StepError> {
        self.visit.row.as_ref().ok_or(StepError::Missing("the registry row"))
    }

    fn row_mut(&mut self) -> Result<&mut TenantRow, StepError> {
        self.visit.row.as_mut().ok_or(StepError::Missing("the registry row"))
    }

    fn desired(&self) -> Result<&Desired, StepError> {
        self.visit.desired.as_ref().ok_or(StepError::Missing("a valid spec"))
    }

    fn standing(&self) -> Result<&Standing, StepError> {
        self.visit.standing.as_ref().ok_or(StepError::Missing("the tenant's standing"))
    }

    fn entitlements(&self) -> Result<&Entitlements, StepError> {
        let recorded = self.visit.row.as_ref().and_then(|row| row.entitlements.as_ref());
        self.visit.entitlements.as_ref().or(recorded).ok_or(StepError::Missing("what the plan gives"))
    }

    fn modules(&self) -> Result<Arc<ModuleSet>, StepError> {
        Ok(modules_of(self.row()?, self.visit.entitlements.as_ref(), self.context))
    }

    fn server(&self) -> Result<&Server, StepError> {
        self.server.ok_or(StepError::Missing("the server"))
    }

    fn login(&self) -> Result<String, StepError> {
        Ok(self.row()?.login_name.clone())
    }

    /// The workflow's id, which correlates log lines and activity rows.
    fn correlation(&self) -> Result<uuid::Uuid, StepError> {
        self.visit
            .workflow
            .as_ref()
            .map(|workflow| workflow.record.id)
            .ok_or(StepError::Missing("the workflow"))
    }

    /// What was read of this tenant in bulk no longer holds once a step has changed something.
    fn changed(&self) {
        self.context.bulk.forget(&self.tenant().uid().unwrap_or_default());
    }
}

/// Gives back the marks that were taken from what is known to be the tenant's: nothing else may touch it without.
async fn restore_marks(run: &Run<'_, '_>) -> Result<(), StepError> {
    let row = run.row()?;
    let known = known(row);
    if known != Known::default() {
        run.server()?.restore_marks(row.id, &row.database_name, &row.login_name, known).await?;
    }
    Ok(())
}

/// Before the first thing of a tenant that goes away is destroyed: the API server is asked whether it still does, and
/// the point of no return is recorded before it is passed. A tenant that comes back in that very moment wins or loses
/// there. What was begun is finished; a rollback has nothing that anybody would miss.
async fn pass_deadline(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    let row = run.row()?;
    if row.status != RegistryStatus::Deprovisioning || row.purge_started_at.is_some() {
        return Ok(());
    }
    let (context, tenant) = (run.context, run.tenant());
    let found = look_up(&context.client, &run.namespace(), &tenant.name_any()).await?;
    if !still_leaving(found.as_ref(), tenant, &row.resource_uid, &row.slug) {
        return Err(StepError::TenantChanged);
    }
    let (id, uid, ahead) = (row.id, row.resource_uid.as_str(), context.clock.ahead());
    if row.retain {
        return passed(context.registry.may_close(id, uid, ahead).await?);
    }
    if row.activated_at.is_some() && !breaker::lets_pass(context).await? {
        return Err(StepError::PurgesFrozen);
    }
    passed(context.registry.begin_purge(id, uid, ahead, run.correlation()?).await?)?;
    run.row_mut()?.purge_started_at = Some(context.clock.now());
    Ok(())
}

/// Whether the registry let it pass.
fn passed(deadline: Deadline) -> Result<(), StepError> {
    match deadline {
        Deadline::Passed => Ok(()),
        Deadline::NotDue => Err(StepError::ClocksDisagree),
        Deadline::Changed => Err(StepError::TenantChanged),
    }
}

async fn set_finalizers(run: &Run<'_, '_>, finalizers: &[&str]) -> Result<(), kube::Error> {
    let api = Api::<Tenant>::namespaced(run.context.client.clone(), &run.namespace());
    apply_finalizers(&api, run.tenant(), finalizers).await
}
