//! PurgeModules: drops the modules that `spec.purgeModules` names from the tenant's database, those first that depend on others.
//! What the tenant should have by its lists stays, and so does everything under a legal hold; the API server is asked for
//! those. Before a module is dropped, the registry has that this began, and no version of it, so that none is reported that
//! the database lacks; an interrupted drop goes on. Each name has one answer, and is not looked at again.

use kube::{Resource, ResourceExt};

use crate::{
    api::reason::Reason,
    controller::{
        tenant::{
            evaluate::{refused_purge, wishes_of},
            failure::StepError,
            holds::record_legal_holds,
            step_context::StepContext,
        },
        watch::requeue::requeue_tenant,
    },
    domain::{
        module_purge::{PurgeRefusal, absent, order, others_there, own_schema, refusal},
        modules::{ChosenModule, version_of, with_applied},
        record::ModuleVersion,
        recorded_purge::RecordedPurge,
    },
    modules::KnownModules,
    postgres::tenant::module_purge::{ModulePurge, PurgedModule},
    registry::DroppedModule,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let named = step.tenant().spec.purge_modules.clone();
    let due = order(&named, &step.row()?.module_purges, step.context.modules.known().list());
    if !due.is_empty() {
        let (namespace, name) = (step.namespace(), step.tenant().name_any());
        let mut row = step.row()?.clone();
        record_legal_holds(&namespace, &name, &mut row, step.context).await?;
        step.replace_record(row);
    }
    let is_due = !due.is_empty();
    for module in due {
        answer(step, &module).await?;
    }
    let row = step.row()?;
    let (id, uid) = (row.id, row.resource_uid.clone());
    step.replace_record(step.context.registry.keep_module_purges(id, &named).await?.record);
    match refused_purge(step.tenant(), step.subject.record.as_ref()) {
        // The Secret has the versions after the next round, and that round follows no failure.
        Some(refused) if is_due => {
            step.context.state.snapshot.forget(&uid);
            requeue_tenant(&step.namespace(), &step.tenant().name_any(), step.context);
            Err(StepError::PurgeRefused(refused))
        }
        _ => Ok(()),
    }
}

/// Drops a module, or records why it stays.
async fn answer(step: &mut StepContext<'_, '_>, module: &str) -> Result<(), StepError> {
    let row = step.row()?;
    let known = step.context.modules.known();
    let was_recorded = version_of(&row.module_versions, module) > 0 || row.module_purges.contains_key(module);
    let begun = match row.module_purges.get(module) {
        Some(RecordedPurge::Begun { schema }) => Some(schema.clone()),
        _ => None,
    };
    let why = refusal(module, wishes_of(step.subject), &row.module_versions, known.list(), row.legal_holds());
    if let Some(why) = why {
        let version = match begun {
            Some(_) => step.server()?.module_version(&row.placement, module).await?,
            None => None,
        };
        return refuse(step, module, version, &why).await;
    }
    let schema = schema_of(step, &known, module).unwrap_or_else(|| "public".to_owned());
    let kept: Vec<ModuleVersion> =
        row.module_versions.iter().filter(|found| found.name != module).cloned().collect();
    let others = others_there(module, wishes_of(step.subject), &kept, &row.module_purges, known.list());
    let others: Vec<String> = others.iter().filter_map(|other| schema_of(step, &known, other)).collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    // Since an interrupted drop began, another module may have come to the schema.
    let own = begun.unwrap_or_else(|| Some(schema.clone()));
    let own = own.and_then(|own| own_schema(&own, &others).map(str::to_owned));
    let begun = RecordedPurge::Begun { schema: own.clone() };
    let id = row.id;
    step.replace_record(step.context.registry.begin_module_purge(id, module, &begun).await?.record);

    let row = step.row()?;
    let is_there = |name: &str| name == module || kept.iter().any(|found| found.name == name);
    let chosen = known.list().iter().filter(|known| is_there(&known.name));
    // Up to what its ledger has.
    let chosen = chosen.map(|known| ChosenModule { name: known.name.clone(), version: i32::MAX });
    let modules = step.context.modules.set_of(&chosen.collect::<Vec<_>>());
    let purge = ModulePurge {
        module,
        own_schema: own.as_deref(),
        schema: &schema,
        modules: &modules,
        kept_extensions: &extensions_of(&kept, &known),
    };
    let by = step.subject.changes.last(&["purgeModules"]).to_string();
    match step.server()?.purge_module(&row.placement, &purge).await? {
        PurgedModule::Refused { version, why } => refuse(step, module, Some(version), &why).await,
        PurgedModule::Absent => {
            if !was_recorded {
                let note = absent(module, &kept);
                let object = step.tenant().object_ref(&());
                step.context.events.warning(object, "PurgeModules", Reason::ModuleNotFound, note);
            }
            let dropped = DroppedModule { version: None, objects: &[], limits: &[], actor: &by };
            end(step, module, &dropped).await
        }
        PurgedModule::Dropped { version, objects, limits } => {
            let dropped =
                DroppedModule { version: Some(version), objects: &objects, limits: &limits, actor: &by };
            end(step, module, &dropped).await
        }
    }
}

async fn end(
    step: &mut StepContext<'_, '_>,
    module: &str,
    dropped: &DroppedModule<'_>,
) -> Result<(), StepError> {
    let (id, correlation) = (step.row()?.id, step.correlation()?);
    let update = step.context.registry.end_module_purge(id, module, dropped, correlation).await?;
    step.replace_record(update.record);
    if let Some(version) = dropped.version {
        let note = format!(
            "module {module:?}, version {version}, was dropped from the database with its data: {}",
            dropped.objects.join(", ")
        );
        step.context.events.warning(
            step.tenant().object_ref(&()),
            "PurgeModules",
            Reason::ModulePurged,
            note,
        );
    }
    Ok(())
}

/// Records that a module stays, with the version that its ledger has if that was taken off the record.
async fn refuse(
    step: &mut StepContext<'_, '_>,
    module: &str,
    version: Option<i32>,
    why: &PurgeRefusal,
) -> Result<(), StepError> {
    let (row, correlation) = (step.row()?, step.correlation()?);
    let found = version.map(|version| ModuleVersion { name: module.to_owned(), version });
    let versions = with_applied(&row.module_versions, &Vec::from_iter(found));
    let why = why.message();
    let registry = &step.context.registry;
    let update = registry.refuse_module_purge(row.id, module, &why, &versions, correlation).await?;
    step.replace_record(update.record);
    Ok(())
}

/// The schema of a module, by its content, or by what was accepted of it.
fn schema_of(step: &StepContext<'_, '_>, known: &KnownModules, module: &str) -> Option<String> {
    let content = known.module(module).map(|module| module.schema.to_string());
    content.or_else(|| step.context.state.modules.accepted(module).map(|accepted| accepted.schema))
}

fn extensions_of(modules: &[ModuleVersion], known: &KnownModules) -> Vec<String> {
    let content = modules.iter().filter_map(|found| known.module(&found.name));
    content.flat_map(|module| module.extensions.iter().map(|extension| extension.name.clone())).collect()
}
