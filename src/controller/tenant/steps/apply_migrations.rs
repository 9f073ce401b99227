//! ApplyMigrations: migrates an outdated database to the target versions, as the migrator's login. A database that was
//! just cloned is up to date, and no session to it is opened.

use crate::controller::tenant::{failure::StepError, step_context::StepContext};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let modules = step.modules()?;
    let versions = modules.targets();
    let row = step.row()?;
    if row.module_versions == versions {
        return Ok(());
    }
    let id = row.id;
    step.server()?.migrate(&row.placement, &modules).await?.into_result()?;
    step.replace_record(step.context.registry.set_modules(id, &versions).await?.record);
    Ok(())
}
