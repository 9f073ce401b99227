//! ApplyMigrations: migrates an outdated database to the target versions, as the migrator's login. A database that was
//! just cloned is up to date, and no session to it is opened. A module that fails stops those that depend on it, and no
//! other: what was applied is recorded in any case.

use crate::{
    controller::tenant::{failure::StepError, step_context::StepContext},
    domain::{
        modules::{version_of, with_applied},
        record::ModuleVersion,
        workflow::attempt::ModuleFailure,
    },
    postgres::Error,
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
    let migrated = step.server()?.migrate(&row.placement, &modules).await?;
    let failures = migrated.modules.iter().filter_map(|module| {
        let failure = module.failure.as_ref()?;
        Some(ModuleFailure {
            module: module.name.clone(),
            message: failure.to_string(),
            waits: matches!(failure, Error::ModuleBlocked { .. }),
        })
    });
    step.progress.module_failures = failures.collect();
    // One that failed although its last file is applied (a file was changed afterwards) stays due.
    let is_due = |found: &ModuleVersion| {
        migrated.modules.iter().any(|module| {
            module.name == found.name && module.failure.is_some() && module.version >= module.target
        })
    };
    let applied: Vec<ModuleVersion> =
        migrated.versions.iter().filter(|found| !is_due(found)).cloned().collect();
    let versions = with_applied(&step.row()?.module_versions, &applied);
    step.replace_record(step.context.registry.set_modules(id, &versions).await?.record);
    migrated.into_result()?;
    Ok(())
}
