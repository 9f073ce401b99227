//! PublishCredentials: first the Secret, then the login's password, then the registry. A digest in the registry
//! therefore means that the login has that password; a Secret that matches it is left alone, any other that is ours
//! gets a new password. No password ever reaches PostgreSQL, a log or an Event: the server gets a SCRAM verifier.

use kube::Resource;

use super::{Run, StepError};
use crate::{
    controller::tenant::secrets::{self, Connection, Found},
    domain::{access::AccessLevel, steps::Step},
    postgres::credentials::{generate_password, password_digest, scram_verifier},
    registry::Hidden,
};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let secret_name = run.desired()?.connection_secret.clone();
    let login = run.login()?;
    // A login that may do nothing has its password all the same, and gets LOGIN when it is given something.
    let may_log_in = run.standing()?.access > AccessLevel::Blocked;
    let found = secrets::find(run.context, &run.namespace(), &secret_name, run.row()?).await?;
    let row = run.row()?;
    let id = row.id;
    // The store may be behind: what counts is the Secret as it is now.
    if let (Found::Ours(secret), Some(verifier)) = (&found, &row.password_verifier)
        && secrets::holds_password_of(secret, row, &run.context.installation)
    {
        run.server()?.set_login(id, &login, verifier, may_log_in).await?;
        // The rest of what it says may be old, or changed by hand.
        if let Some(password) = secrets::password(secret) {
            let server = run.server()?;
            let connection =
                Connection { row, login: &login, server, tenant: run.tenant(), password: &password };
            let wanted = connection.secret(&secret_name, run.context);
            if wanted.data != secret.data {
                secrets::write(run.context, wanted, &found).await?;
                let expected = run.visit.has_done(Step::ApplyPlan);
                let note = format!(
                    "Secret {secret_name:?} was changed, or what it says is another by now: put right"
                );
                let about = run.tenant().object_ref(&());
                if !expected {
                    run.context.events.normal(about, "PublishCredentials", "SecretUpdated", note);
                }
            }
        }
        return Ok(());
    }
    let replaced = row.password_verifier.is_some();
    if replaced {
        // Cleared first: were we cut off below, the old digest would vouch for a password that the login lost.
        run.context.registry.set_credential(id, None, None).await?;
    }
    let password = generate_password();
    let connection =
        Connection { row, login: &login, server: run.server()?, tenant: run.tenant(), password: &password };
    secrets::write(run.context, connection.secret(&secret_name, run.context), &found).await?;
    let verifier = scram_verifier(&password);
    let digest = password_digest(&run.context.installation.digest_key, id, &password);
    run.server()?.set_login(id, &login, &verifier, may_log_in).await?;
    run.context.registry.set_credential(id, Some(&verifier), Some(&digest)).await?;
    let row = run.row_mut()?;
    (row.password_verifier, row.password_digest) = (Some(Hidden(verifier)), Some(Hidden(digest)));
    if replaced {
        run.context.events.warning(
            run.tenant().object_ref(&()),
            "PublishCredentials",
            "PasswordReplaced",
            format!("Secret {secret_name:?} was lost or no longer matched: it holds a new password, the old one no longer works"),
        );
    }
    Ok(())
}
