//! ApplyMigrations: migrates an outdated database to the target versions, as the migrator's login. A database that was
//! just cloned is up to date, and no session to it is opened.

use crate::{
    controller::tenant::{failure::StepError, step_context::StepContext},
    domain::{
        modules::{version_of, with_applied},
        record::ModuleVersion,
    },
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let modules = step.modules()?;
    let row = step.row()?;
    let is_applied =
        |target: &ModuleVersion| version_of(&row.module_versions, &target.name) >= target.version;
    if modules.targets().iter().all(is_applied) {
        return Ok(());
    }
    let id = row.id;
    let found = step.server()?.migrate(&row.placement, &modules).await?;
    let versions = with_applied(&step.row()?.module_versions, &found);
    step.replace_record(step.context.registry.set_modules(id, &versions).await?.record);
    Ok(())
}
