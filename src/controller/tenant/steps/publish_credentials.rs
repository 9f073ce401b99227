//! PublishCredentials: writes the Secret, then the login's password, then the registry. A digest in the registry therefore
//! means that the login has that password. A Secret that matches it keeps its password; another Secret of this tenant gets
//! a new one. No password is sent to PostgreSQL, a log or an Event: the server gets a SCRAM verifier.

use crate::{
    api::reason::Reason,
    controller::tenant::{
        failure::StepError,
        secrets::{self, Connection, Found},
        step_context::StepContext,
    },
    domain::{access::AccessLevel, workflow::step::Step},
    postgres::tenant::credentials::{SecretText, generate_password, password_digest, scram_verifier},
};
use kube::Resource;

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let secret_name = step.desired()?.connection_secret.clone();
    // A Blocked login has its password too, and gets LOGIN when access is granted.
    let may_log_in = step.access()?.access > AccessLevel::Blocked;
    let found = secrets::find(step.context, &step.namespace(), &secret_name, step.row()?).await?;
    let row = step.row()?;
    let id = row.id;
    // The store may be behind: the Secret is read from the API server.
    if let (Found::Ours(secret), Some(verifier)) = (&found, &row.password_verifier)
        && secrets::holds_password_of(secret, row, &step.context.installation)
    {
        step.server()?.set_login(&row.placement, verifier, may_log_in).await?;
        // Its other keys may be outdated, or changed by hand.
        if let Some(password) = secrets::password(secret) {
            let server = step.server()?;
            let connection = Connection { record: row, server, tenant: step.tenant(), password: &password };
            let wanted = connection.secret(&secret_name, step.context);
            if !secrets::is_as_wanted(secret, &wanted) {
                let expected = step.progress.has_done(Step::ApplyPlan)
                    || step.progress.has_done(Step::ApplyMigrations)
                    || secrets::is_of_earlier_release(secret, &wanted);
                secrets::write(step.context, wanted, &found).await?;
                let note = format!(
                    "Secret {secret_name:?} was changed by hand or outdated: its keys and labels are restored"
                );
                let about = step.tenant().object_ref(&());
                if !expected {
                    step.context.events.normal(about, "PublishCredentials", Reason::SecretUpdated, note);
                }
            }
        }
        return Ok(());
    }
    // An activated tenant had a password, also if its row was written again.
    let replaced = row.password_verifier.is_some() || row.activated_at.is_some();
    if row.password_verifier.is_some() {
        // Cleared first: if this run is interrupted below, no digest vouches for a password that the login does not have.
        let cleared = step.context.registry.set_credential(id, None, None).await?;
        step.replace_record(cleared.record);
    }
    let row = step.row()?;
    let kept = restored_password(step, &found);
    let replaced = replaced && kept.is_none();
    let password = kept.unwrap_or_else(generate_password);
    let connection =
        Connection { record: row, server: step.server()?, tenant: step.tenant(), password: &password };
    secrets::write(step.context, connection.secret(&secret_name, step.context), &found).await?;
    let verifier = scram_verifier(&password);
    let digest = password_digest(&step.context.installation.digest_key, id, &password);
    step.server()?.set_login(&row.placement, &verifier, may_log_in).await?;
    let published = step.context.registry.set_credential(id, Some(&verifier), Some(&digest)).await?;
    step.replace_record(published.record);
    if replaced {
        step.context.events.warning(
            step.tenant().object_ref(&()),
            "PublishCredentials",
            Reason::PasswordReplaced,
            format!("Secret {secret_name:?} was lost or no longer matched: it holds a new password, the old one no longer works"),
        );
    }
    Ok(())
}

/// The password of the Secret of a tenant whose row was restored just now: its application keeps running with it.
fn restored_password(step: &StepContext<'_, '_>, found: &Found) -> Option<SecretText> {
    let is_restored =
        step.progress.has_done(Step::RestoreActivation) || step.progress.has_done(Step::AdoptRow);
    match found {
        Found::Ours(secret) if is_restored => secrets::password(secret),
        Found::Ours(_) | Found::Absent => None,
    }
}
