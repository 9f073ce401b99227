//! Verify: logs in as the tenant with the password from its Secret, and reads the module versions; while the tenant is
//! Blocked, verifies that the login is refused. A restored database has outdated limits: the limits in force are applied.

use crate::{
    controller::tenant::{
        failure::StepError,
        secrets::{self, Found},
        step_context::StepContext,
    },
    domain::access::AccessLevel,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let secret_name = step.desired()?.connection_secret.clone();
    let row = step.row()?;
    let Found::Ours(secret) = secrets::find(step.context, &step.namespace(), &secret_name, row).await? else {
        return Err(StepError::Missing("the connection Secret"));
    };
    let password =
        secrets::password(&secret).ok_or(StepError::Missing("the password in the connection Secret"))?;
    if step.access()?.access == AccessLevel::Blocked {
        renew_limits(step).await?;
        let row = step.row()?;
        return Ok(step.server()?.verify_refused(&row.placement, &password).await?);
    }
    let versions = step.server()?.verify(&row.placement, &password).await?;
    let row = step.row()?;
    let (id, recorded) = (row.id, &row.module_versions);
    let found =
        |name: &str| versions.iter().find(|module| module.name == name).map_or(0, |module| module.version);
    if let Some(module) = recorded.iter().find(|module| found(&module.name) < module.version) {
        let behind = StepError::SchemaBehind {
            module: module.name.clone(),
            recorded: module.version,
            found: found(&module.name),
        };
        if !row.verification_required {
            step.replace_record(step.context.registry.set_verification_required(id, true).await?.record);
        }
        return Err(behind);
    }
    renew_limits(step).await?;
    if step.row()?.verification_required {
        step.replace_record(step.context.registry.set_verification_required(id, false).await?.record);
    }
    let behind = step.modules()?.targets().iter().any(|target| !versions.contains(target));
    if behind { Err(StepError::Missing("a module's target version")) } else { Ok(()) }
}

/// Applies the limits in force to a database that may have been restored.
async fn renew_limits(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let row = step.row()?;
    let Some(in_force) = row.entitlements.as_ref().filter(|_| row.verification_required) else {
        return Ok(());
    };
    let usage = step.server()?.apply_limits(&row.placement, in_force).await?;
    step.context.registry.record_usage(&[(row.id, usage)], step.context.clock.now()).await?;
    step.context.state.usage_recorded.add(row.id);
    Ok(())
}
