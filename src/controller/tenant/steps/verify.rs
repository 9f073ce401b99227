//! Verify: logs in as the tenant with the password from its Secret, and reads the module versions; while the tenant is
//! Blocked, verifies that the login is refused. A login with another password, which a tenant can set itself, gets that of
//! the Secret again. The reader login is verified too. The row records that a verification is due until one succeeds. A restored database has outdated limits:
//! the limits in force are applied, and what its modules created is compared with their template. For a requested reconcile,
//! that is compared and the rights in the database are read too.

use kube::Resource;

use super::enforce_access::check_rights;
use crate::{
    api::reason::Reason,
    controller::tenant::{
        failure::StepError,
        secrets::{self, Found},
        step_context::StepContext,
    },
    domain::{access::AccessLevel, hidden::Hidden, placement::Placement, record::ModuleVersion, spec},
    postgres::tenant::credentials::SecretText,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let secret_name = step.desired()?.connection_secret.clone();
    let is_requested = step.context.state.retries.take_request(step.tenant());
    let row = step.row()?;
    let (id, was_due) = (row.id, row.verification_required);
    // An attempt that fails, or is interrupted, is repeated.
    if row.activated_at.is_some() {
        step.set_verification_due(true).await?;
    }
    let row = step.row()?;
    let Found::Ours(secret) = secrets::find(step.context, &step.namespace(), &secret_name, row).await? else {
        return Err(StepError::Missing("the connection Secret"));
    };
    let password =
        secrets::password(&secret).ok_or(StepError::Missing("the password in the connection Secret"))?;
    let level = step.access()?.access;
    if level == AccessLevel::Blocked {
        if was_due {
            check_content(step).await?;
        }
        let row = step.row()?;
        step.server()?.verify_refused(&row.placement, &password).await?;
        check_reader(step, level).await?;
        return step.set_verification_due(false).await;
    }
    let row = step.row()?;
    let is_published = secrets::holds_password_of(&secret, row, &step.context.installation);
    let verifier = row.password_verifier.as_ref().filter(|_| is_published);
    let versions = log_in(step, &row.placement, verifier, &password).await?;
    check_reader(step, level).await?;
    let recorded = &step.row()?.module_versions;
    let found =
        |name: &str| versions.iter().find(|module| module.name == name).map_or(0, |module| module.version);
    if let Some(module) = recorded.iter().find(|module| found(&module.name) < module.version) {
        let behind = StepError::SchemaBehind {
            module: module.name.clone(),
            recorded: module.version,
            found: found(&module.name),
        };
        step.replace_record(step.context.registry.set_verification_required(id, true).await?.record);
        return Err(behind);
    }
    if was_due {
        check_content(step).await?;
    } else if is_requested {
        check_structure(step).await?;
    }
    // A check that failed is repeated with the verification.
    if is_requested || was_due {
        let server = step.server()?;
        check_rights(step, server, level).await?;
    }
    step.set_verification_due(false).await?;
    // An active tenant gets its migrations afterwards, and an adopted one those of tools.
    let modules = step.modules()?;
    let targets = match step.row()?.takeover {
        Some(_) => modules.of_files().targets(),
        None => modules.cloned(),
    };
    let behind =
        step.row()?.activated_at.is_none() && targets.iter().any(|target| !versions.contains(target));
    if behind { Err(StepError::Missing("a module's target version")) } else { Ok(()) }
}

/// Verifies the reader login in the same way, once its credentials are published: before, they are what [`Step::PublishReader`]
/// restores.
async fn check_reader(step: &StepContext<'_, '_>, level: AccessLevel) -> Result<(), StepError> {
    let row = step.row()?;
    let verifier = row.credentials.reader.as_ref().and_then(|reader| reader.verifier.as_ref());
    let (Some(reader), Some(verifier)) = (row.placement.of_reader_login(), verifier) else { return Ok(()) };
    let name = spec::reader_secret_name(step.tenant());
    let Ok(Found::Ours(secret)) = secrets::find(step.context, &step.namespace(), &name, row).await else {
        return Ok(());
    };
    let is_published = secrets::holds_reader_password_of(&secret, row, &step.context.installation);
    let Some(password) = secrets::password(&secret).filter(|_| is_published) else { return Ok(()) };
    match level {
        AccessLevel::Blocked => Ok(step.server()?.verify_refused(&reader, &password).await?),
        _ => log_in(step, &reader, Some(verifier), &password).await.map(drop),
    }
}

/// Logs in and reads the module versions. If the login has another password than its Secret, it gets that of the verifier, which
/// is the Secret's.
async fn log_in(
    step: &StepContext<'_, '_>,
    placement: &Placement,
    verifier: Option<&Hidden<String>>,
    password: &SecretText,
) -> Result<Vec<ModuleVersion>, StepError> {
    let server = step.server()?;
    let error = match server.verify(placement, password).await {
        Ok(versions) => return Ok(versions),
        Err(error) => error,
    };
    let Some(verifier) = verifier else { return Err(error.into()) };
    if error.reason() != Reason::AuthenticationFailed {
        return Err(error.into());
    }
    server.set_login(placement, verifier, true).await?;
    let versions = server.verify(placement, password).await?;
    step.context.events.warning(
        step.tenant().object_ref(&()),
        "Verify",
        Reason::DriftRepaired,
        "the login had another password than its Secret: it has the Secret's again".to_owned(),
    );
    Ok(versions)
}

/// Checks a database that may have been restored. An incomplete one gets its limits too.
async fn check_content(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let checked = check_structure(step).await;
    let renewed = renew_limits(step).await;
    checked.and(renewed)
}

/// Compares what the modules created with their template: a copy may be incomplete, and an administrator may have disabled a
/// trigger. What enforces limits is repaired, with an Event; the rest is a failure.
async fn check_structure(step: &StepContext<'_, '_>) -> Result<(), StepError> {
    let (server, row) = (step.server()?, step.row()?);
    let report = server.check_structure(&row.placement, &*step.modules()?).await?;
    if !report.repaired.is_empty() {
        let note =
            format!("what enforces the limits in the database was repaired: {}", report.repaired.join("; "));
        step.context.events.warning(step.tenant().object_ref(&()), "Verify", Reason::DriftRepaired, note);
    }
    match report.left {
        left if left.is_empty() => Ok(()),
        left => Err(StepError::SchemaIncomplete { database: row.placement.database.clone(), left }),
    }
}

/// Applies the limits in force to a database that may have been restored.
async fn renew_limits(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let row = step.row()?;
    let Some(in_force) = row.entitlements.as_ref() else { return Ok(()) };
    let usage = step.server()?.apply_limits(&row.placement, in_force).await?;
    step.context.registry.record_usage(&[(row.id, usage)], step.context.clock.now()).await?;
    step.context.state.usage_recorded.add(row.id);
    Ok(())
}
