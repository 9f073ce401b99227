//! Verify: logs in as the tenant, with the password from its Secret, and reads the module versions. What was set up
//! is proven by using it; while the tenant is Blocked, that the login is refused is what is proven. A database that was
//! restored has limits as old as itself: it gets those that are in force.

use super::{Run, StepError};
use crate::{
    controller::tenant::{
        observe::recorded_versions,
        secrets::{self, Found},
    },
    domain::access::AccessLevel,
};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    let secret_name = run.desired()?.connection_secret.clone();
    let row = run.row()?;
    let Found::Ours(secret) = secrets::find(run.context, &run.namespace(), &secret_name, row).await? else {
        return Err(StepError::Missing("the connection Secret"));
    };
    let password =
        secrets::password(&secret).ok_or(StepError::Missing("the password in the connection Secret"))?;
    if run.standing()?.access == AccessLevel::Blocked {
        renew_limits(run).await?;
        let row = run.row()?;
        return Ok(run.server()?.verify_refused(&row.database_name, &run.login()?, &password).await?);
    }
    let versions = run.server()?.verify(row.id, &row.database_name, &run.login()?, &password).await?;
    let recorded = recorded_versions(run.row()?);
    let found =
        |name: &str| versions.iter().find(|module| module.name == name).map_or(0, |module| module.version);
    if let Some(module) = recorded.iter().find(|module| found(&module.name) < module.version) {
        return Err(StepError::SchemaBehind {
            module: module.name.clone(),
            recorded: module.version,
            found: found(&module.name),
        });
    }
    renew_limits(run).await?;
    run.context.attempts.verified(run.tenant());
    let behind = run.modules()?.targets().iter().any(|target| !versions.contains(target));
    if behind { Err(StepError::Missing("a module's target version")) } else { Ok(()) }
}

/// A database that was restored has limits as old as itself.
async fn renew_limits(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    let row = run.row()?;
    let Some(in_force) = row.entitlements.as_ref().filter(|_| run.visit.unverified) else { return Ok(()) };
    let usage = run.server()?.apply_limits(row.id, &row.database_name, in_force).await?;
    run.context.registry.record_usage(&[(row.id, usage)], run.context.clock.now()).await?;
    run.context.usage_recorded.add(row.id);
    Ok(())
}
