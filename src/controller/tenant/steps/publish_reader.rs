//! PublishReader: the tenant has its reader login, which only reads, and its Secret, the login and the registry agree on one
//! password. The name is recorded before the role is created, and a role of another owner under that name, or a Secret of
//! another owner, ends the step before anything is changed. The login gets its level before its password. It has one password
//! at a time: after a rotation, or when its Secret was lost, the old one is invalid at once.

use kube::Resource;

use super::publish_credentials::restore_keys;
use crate::{
    api::reason::Reason,
    controller::tenant::{
        failure::StepError,
        secrets::{self, Connection, Found},
        step_context::StepContext,
    },
    domain::{access::AccessLevel, names::reader_login_name, rotation::ReaderCredential, spec},
    postgres::tenant::credentials::{generate_password, password_digest, scram_verifier},
    registry::NewCredentials,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let (server, context) = (step.server()?, step.context);
    let secret_name = spec::reader_secret_name(step.tenant());
    let found = secrets::find(context, &step.namespace(), &secret_name, step.row()?).await?;
    let (row, correlation) = (step.row()?, step.correlation()?);
    if row.placement.reader_login.is_none() {
        let name = reader_login_name(&row.placement.database);
        server.check_login(&row.placement.with_login(&name)).await?;
        let added = context.registry.add_reader(row.id, &name, correlation).await?;
        step.replace_record(added.record);
    }
    step.restore_ownership(server).await?;
    let row = step.row()?;
    // What is evaluated, as far as it is in force for the login.
    let level = step.access()?.access.min(row.access.unwrap_or(AccessLevel::Blocked));
    let may_log_in = level > AccessLevel::Blocked;
    let reader = row.placement.of_reader_login().ok_or(StepError::Missing("the reader login"))?;
    server.create_login(&reader).await?;
    server.limit_reader(&reader, step.entitlements()?.login_limits()).await?;
    server.set_reader_access(&row.placement, level).await?;
    let recorded = row.credentials.reader.clone().unwrap_or_default();
    if let (Found::Ours(secret), Some(verifier)) = (&found, &recorded.verifier)
        && secrets::holds_reader_password_of(secret, row, &context.installation)
        && let Some(password) = secrets::password(secret)
    {
        server.set_login(&reader, verifier, may_log_in).await?;
        let login = &reader.login;
        let connection =
            Connection { record: row, server, tenant: step.tenant(), login, password: &password };
        return restore_keys(step, secret, connection.secret(&secret_name, context), &found).await;
    }
    if recorded.verifier.is_some() {
        // No digest vouches for a password that the login does not have.
        step.replace_record(context.registry.record_reader(row.id, None, None).await?.record);
    }
    let (row, password, login) = (step.row()?, generate_password(), &reader.login);
    let connection = Connection { record: row, server, tenant: step.tenant(), login, password: &password };
    secrets::write(context, connection.secret(&secret_name, context), &found).await?;
    let verifier = scram_verifier(&password);
    server.set_login(&reader, &verifier, may_log_in).await?;
    if may_log_in {
        server.verify(&reader, &password).await?;
    } else {
        server.verify_refused(&reader, &password).await?;
    }
    let oid = server.observe(&reader.with_login(login)).await?.login.map(|role| role.oid);
    let digest = password_digest(&context.installation.digest_key, row.id, &password);
    let new = NewCredentials { verifier: &verifier, digest: &digest, request: None, at: context.clock.now() };
    let published = context.registry.record_reader(row.id, Some(&new), oid).await?;
    report(step, &recorded, &secret_name, login);
    step.replace_record(published.record);
    Ok(())
}

/// Publishes the Event of a new password that replaces one.
fn report(step: &StepContext<'_, '_>, before: &ReaderCredential, secret_name: &str, login: &str) {
    if before.issued_at.is_none() {
        return;
    }
    let (about, events) = (step.tenant().object_ref(&()), &step.context.events);
    match &before.verifier {
        Some(_) => events.warning(
            about,
            "PublishReader",
            Reason::PasswordReplaced,
            format!("Secret {secret_name:?} was lost or no longer matched: it holds a new password, the old one no longer works"),
        ),
        // Its record was withdrawn by a rotation.
        None => events.normal(
            about,
            "PublishReader",
            Reason::CredentialsRotated,
            format!("Secret {secret_name:?} holds a new password of the reader login {login}; the old one no longer works"),
        ),
    }
}
