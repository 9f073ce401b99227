//! ApplyMigrations: migrates an outdated database to the target versions, as the migrator's login. A database that was
//! just cloned is up to date, and no session to it is opened. A module that fails stops those that depend on it, and no
//! other: what was applied is recorded in any case.

use crate::{
    controller::{
        tenant::{failure::StepError, pipeline_login, step_context::StepContext},
        tenant_module::runs::{self, TenantRunState},
    },
    domain::{
        migration_login::level_ends_migrations,
        modules::{version_of, with_applied},
        record::ModuleVersion,
        workflow::attempt::ModuleFailure,
    },
    postgres::{Error, tenant::migrate::Awaited},
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let modules = step.modules()?;
    let is_activated = step.row()?.activated_at.is_some();
    let wanted = step.subject.wanted_access();
    if is_activated && !level_ends_migrations(wanted) {
        pipeline_login::ensure(step, &modules).await?;
    }
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
    let mut failures: Vec<ModuleFailure> = failures.collect();
    let mut failed = None;
    for module in migrated.modules.iter().filter(|_| is_activated) {
        let failure = |message, waits| ModuleFailure { module: module.name.clone(), message, waits };
        match (&module.awaits, modules.module(&module.name)) {
            (Some(Awaited::Report { reported }), _) => {
                step.context.state.reports.looked_for(id, &module.name, module.target);
                let message = match reported {
                    Some(version) => format!("the last one that it reported is {version}"),
                    None => "it has reported none yet".to_owned(),
                };
                failures.push(failure(message, true));
            }
            (Some(Awaited::Run), Some(found)) => {
                let run = runs::advance(step.tenant(), step.row()?, found, wanted, step.context).await?;
                if let TenantRunState::Failed(message) = run {
                    failures.push(failure(message.clone(), false));
                    failed.get_or_insert(message);
                }
            }
            (Some(Awaited::Module(_) | Awaited::Run) | None, _) => {}
        }
    }
    step.progress.module_failures = failures;
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
    failed.map_or(Ok(()), |message| Err(StepError::RunFailed(message)))
}
