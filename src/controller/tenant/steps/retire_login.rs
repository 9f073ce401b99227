//! RetireLogin: ends the previous login: takes LOGIN, group and CONNECT from it, ends its sessions, and proves that none is left;
//! then drops the role, if nothing depends on it. One that existed before the tenant stays, without LOGIN. The login itself and its sessions stay. An Event says whether the previous
//! login was still in use.

use kube::Resource;

use crate::{
    api::reason::Reason,
    controller::tenant::{failure::StepError, step_context::StepContext},
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let (row, correlation) = (step.row()?, step.correlation()?);
    let Some(previous) = row.placement.of_previous_login() else { return Ok(()) };
    let is_kept = row.credentials.previous.as_ref().is_some_and(|previous| previous.kept_until.is_some());
    let fate =
        if is_kept { "; the role stays, without LOGIN and without rights on the database" } else { "" };
    let server = step.server()?.for_restriction();
    step.restore_ownership(&server).await?;
    let last_use = server.retire_login(&previous).await?;
    let ended = step.context.registry.end_rotation(row.id, last_use.sessions, correlation).await?;
    let last_seen = step.context.state.previous_login_use.take(row.id);
    let (about, events, login) = (step.tenant().object_ref(&()), &step.context.events, &previous.login);
    if ended.changed {
        match last_use.sessions {
            0 => events.normal(
                about,
                "RetireLogin",
                Reason::PreviousLoginEnded,
                format!(
                    "the previous login {login} is ended; it had no session{}{fate}",
                    last_seen.map_or_else(String::new, |at| format!(", the last one that was seen was at {at:.0}")),
                ),
            ),
            count => events.warning(
                about,
                "RetireLogin",
                Reason::PreviousLoginInUse,
                format!(
                    "the previous login {login} is ended with {count} session{} that still used it, the last one {}: let \
                     this application read the Secret again{fate}",
                    if count == 1 { "" } else { "s" },
                    last_use.describe(),
                ),
            ),
        }
    }
    step.replace_record(ended.record);
    Ok(())
}
