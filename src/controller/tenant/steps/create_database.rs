//! CreateDatabase: clones the migrated template under the building name; only the operator's roles may connect. A new
//! tenant needs no migration, since the template is migrated.

use crate::{
    controller::{
        state::migration_runs::TemplateRun,
        tenant::{failure::StepError, step_context::StepContext},
        tenant_module::template_run::template,
    },
    postgres::Error,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let id = step.row()?.id;
    let server = step.server()?;
    let modules = step.modules()?;
    let template = match server.ensure_template(&modules).await {
        Ok(template) => template,
        Err(Error::TemplateNeedsRun { .. }) => {
            return Err(match template(&server.config().name, &modules, Some(step.tenant()), step.context) {
                TemplateRun::Building(what) => StepError::TemplateRuns(what),
                TemplateRun::Built(_) => StepError::Missing("the template"),
                TemplateRun::Failed(why) => StepError::RunFailed(why),
                TemplateRun::NotBuilt(why) => StepError::TemplateRuns(why),
            });
        }
        Err(error) => return Err(error.into()),
    };
    // Recorded before it is created: no database exists that the registry does not have.
    step.replace_record(step.context.registry.record_database_exists(id, true).await?.record);
    // An earlier database was lost while it was being built: what is recorded of its contents does not apply to this one.
    let row = step.row()?;
    if row.seed_digest.is_some() || row.entitlements.is_some() {
        step.replace_record(step.context.registry.forget_contents(id).await?.record);
    }
    server.create_database(&step.row()?.placement, &template).await?;
    step.replace_record(step.context.registry.set_modules(id, &modules.cloned()).await?.record);
    Ok(())
}
