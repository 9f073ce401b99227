//! PublishCredentials: writes the Secret, then the login's password, then the registry. A digest in the registry therefore
//! means that the login has that password. In a rotation the Secret is written last: the one before has a password that works, and
//! a client that reads the new one can log in with it. From then on, the time of the previous login runs. A Secret that matches it keeps its password; another Secret of this tenant gets
//! a new one. No password is sent to PostgreSQL, a log or an Event: the server gets a SCRAM verifier.

use crate::{
    api::reason::Reason,
    controller::tenant::{
        failure::StepError,
        secrets::{self, Connection, Found},
        step_context::StepContext,
    },
    domain::{
        access::AccessLevel,
        rotation::{PreviousState, RotationPolicy},
        workflow::step::Step,
    },
    postgres::tenant::credentials::{SecretText, generate_password, password_digest, scram_verifier},
    registry::NewCredentials,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt};

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
            let login = &row.placement.login;
            let connection =
                Connection { record: row, server, tenant: step.tenant(), login, password: &password };
            let wanted = connection.secret(&secret_name, step.context);
            restore_keys(step, secret, wanted, &found).await?;
        }
        return record_publication(step).await;
    }
    // An activated tenant had a password, also if its row was written again.
    let replaced = row.password_verifier.is_some() || row.activated_at.is_some();
    if row.password_verifier.is_some() {
        // Cleared first: if this run is interrupted below, no digest vouches for a password that the login does not have.
        let cleared = step.context.registry.set_credential(id, None, None).await?;
        step.replace_record(cleared.record);
    }
    let row = step.row()?;
    let rotates = row.credentials.previous.as_ref().is_some_and(|previous| previous.since.is_none());
    let is_secret_last = row.placement.previous_login.is_some();
    let kept = restored_password(step, &found);
    let replaced = replaced && kept.is_none();
    let password = kept.unwrap_or_else(generate_password);
    let (server, login) = (step.server()?, &row.placement.login);
    let connection = Connection { record: row, server, tenant: step.tenant(), login, password: &password };
    let secret = connection.secret(&secret_name, step.context);
    if !is_secret_last {
        secrets::write(step.context, secret.clone(), &found).await?;
    }
    let verifier = scram_verifier(&password);
    let digest = password_digest(&step.context.installation.digest_key, id, &password);
    step.server()?.set_login(&row.placement, &verifier, may_log_in).await?;
    if is_secret_last && may_log_in {
        // The server may refuse its name (`pg_hba.conf`): then the Secret keeps what works.
        step.server()?.verify(&row.placement, &password).await?;
    }
    let policy = RotationPolicy::of(step.tenant());
    let new = NewCredentials {
        verifier: &verifier,
        digest: &digest,
        // Any new password answers what was asked for.
        request: policy.request.as_deref(),
        at: step.context.clock.now(),
    };
    let recorded = step.context.registry.record_credentials(id, &new).await?;
    step.replace_record(recorded.record);
    if is_secret_last {
        secrets::write(step.context, secret, &found).await?;
        record_publication(step).await?;
    }
    if rotates {
        report_rotation(step, &secret_name)?;
    } else if replaced {
        step.context.events.warning(
            step.tenant().object_ref(&()),
            "PublishCredentials",
            Reason::PasswordReplaced,
            format!("Secret {secret_name:?} was lost or no longer matched: it holds a new password, the old one no longer works"),
        );
    }
    Ok(())
}

/// Restores the keys and the labels of a Secret that has the right password.
pub(super) async fn restore_keys(
    step: &StepContext<'_, '_>,
    secret: &Secret,
    wanted: Secret,
    found: &Found,
) -> Result<(), StepError> {
    if secrets::is_as_wanted(secret, &wanted) {
        return Ok(());
    }
    let expected = step.progress.has_done(Step::ApplyPlan)
        || step.progress.has_done(Step::ApplyMigrations)
        || secrets::is_of_earlier_release(secret, &wanted);
    let name = wanted.name_any();
    secrets::write(step.context, wanted, found).await?;
    if !expected {
        let note =
            format!("Secret {name:?} was changed by hand or outdated: its keys and labels are restored");
        let about = step.tenant().object_ref(&());
        step.context.events.normal(about, "PublishCredentials", Reason::SecretUpdated, note);
    }
    Ok(())
}

/// Records that the credentials after those of the previous login are in the Secret.
async fn record_publication(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let row = step.row()?;
    if row.credentials.previous.as_ref().is_some_and(|previous| previous.since.is_none()) {
        let published = step.context.registry.record_publication(row.id, step.context.clock.now()).await?;
        step.replace_record(published.record);
    }
    Ok(())
}

/// Publishes the Event of a rotation.
fn report_rotation(step: &StepContext<'_, '_>, secret_name: &str) -> Result<(), StepError> {
    let row = step.row()?;
    let state = row.rotation(step.tenant(), step.context.clock.now()).previous;
    let end = match state {
        PreviousState::ValidUntil(at) => format!("stays valid until {at:.0}"),
        PreviousState::Absent | PreviousState::Needed | PreviousState::Over => "is ended".to_owned(),
    };
    let (login, previous) =
        (&row.placement.login, row.placement.previous_login.as_deref().unwrap_or_default());
    step.context.events.normal(
        step.tenant().object_ref(&()),
        "PublishCredentials",
        Reason::CredentialsRotated,
        format!("Secret {secret_name:?} holds login {login} with a new password; the previous login {previous} {end}"),
    );
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
