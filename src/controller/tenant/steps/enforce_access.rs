//! EnforceAccess: makes the login a member of exactly the group of its access level, grants CONNECT on its own database only,
//! and reads PostgreSQL to verify that. The level is the strictest of all restrictions. Before access is widened, holds are
//! read from the API server, since the watch may be behind; and so they are before less access than recorded is repaired, since
//! the registry may have been restored to a time before a hold. Then a hold that the Tenant's status shows and the registry does
//! not know is recorded again. When the level of an activated tenant changes, or was not proven,
//! the rights inside its database are read too, after the change: what is not right there is repaired, or is not called
//! enforced.

use crate::{
    controller::tenant::{
        failure::StepError,
        holds::{refresh_holds, restore_holds},
        step_context::StepContext,
    },
    domain::{
        access::AccessLevel, migration_login::level_ends_migrations, placement::Placement,
        rotation::PreviousState,
    },
    postgres::{Error, server::Server},
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let (wanted, recorded) = (step.access()?.access, step.row()?.access);
    if widens(wanted, recorded, step.progress.observed_access) {
        if let Some(record) = &mut step.subject.record {
            refresh_holds(step.subject.tenant, record, step.context).await?;
            if recorded == Some(wanted) {
                restore_holds(step.subject.tenant, &step.subject.previous, record, step.context).await?;
            }
        }
        step.evaluate();
    }
    let level = step.access()?.access;
    let full = AccessLevel::ReadWrite;
    let narrows = level < full && level <= recorded.unwrap_or(full);
    let server = step.server()?;
    let server = if narrows { server.for_restriction() } else { server.clone() };
    step.restore_ownership(&server).await?;
    let row = step.row()?;
    server.set_access(&row.placement, level).await?;
    allow_other_logins(step, &server, level).await?;
    let row = step.row()?;
    if level_ends_migrations(level) {
        // A pipeline's is made again, with its Secret, once the level allows it.
        step.context.state.reports.login_missing(row.id);
    }
    let check = row.activated_at.is_some() && level > AccessLevel::Blocked && row.access != Some(level);
    let (id, was_due) = (row.id, row.verification_required);
    if check {
        // The level is recorded before the rights are read. If that fails or is interrupted, Verify reads them.
        step.set_verification_due(true).await?;
    }
    step.replace_record(step.context.registry.set_access(id, Some(level)).await?.record);
    if check {
        check_rights(step, &server, level).await?;
        step.set_verification_due(was_due).await?;
    }
    Ok(())
}

/// Gives the previous login and the reader login LOGIN again, with their passwords: their credentials were valid before. The
/// verifier of a login that existed before the tenant is not known; it has its password still.
async fn allow_other_logins(
    step: &StepContext<'_, '_>,
    server: &Server,
    level: AccessLevel,
) -> Result<(), StepError> {
    let row = step.row()?;
    let rotation = row.rotation(step.tenant(), step.context.clock.now());
    let is_valid = matches!(rotation.previous, PreviousState::Needed | PreviousState::ValidUntil(_));
    if level <= AccessLevel::Blocked {
        return Ok(());
    }
    let exists = async |login: &Placement| server.check_login(login).await.is_ok_and(|exists| exists);
    let previous = row.credentials.previous.as_ref().filter(|_| is_valid);
    if let (Some(login), Some(previous)) = (row.placement.of_previous_login(), previous)
        && exists(&login).await
    {
        match &previous.verifier {
            Some(verifier) => server.set_login(&login, verifier, true).await?,
            None if previous.kept_until.is_some() => server.admit_kept_login(&login).await?,
            None => {}
        }
    }
    let verifier = row.credentials.reader.as_ref().and_then(|reader| reader.verifier.as_ref());
    if let (Some(login), Some(verifier)) = (row.placement.of_reader_login(), verifier)
        && exists(&login).await
    {
        server.set_login(&login, verifier, true).await?;
    }
    Ok(())
}

/// Whether a level may be wider than the one in force. What PostgreSQL shows counts more than what is recorded.
fn widens(wanted: AccessLevel, recorded: Option<AccessLevel>, observed: Option<AccessLevel>) -> bool {
    // Rights that match no level are not those of a restriction that was in force.
    let than_observed = observed.map_or(wanted == AccessLevel::ReadWrite, |observed| wanted > observed);
    wanted > recorded.unwrap_or(AccessLevel::Blocked) || than_observed && recorded == Some(wanted)
}

/// Reads and repairs the rights inside the database. If some are left, the level is not recorded as in force.
pub(super) async fn check_rights(
    step: &mut StepContext<'_, '_>,
    server: &Server,
    level: AccessLevel,
) -> Result<(), StepError> {
    let row = step.row()?;
    let report = server.settle_rights(&row.placement).await?;
    if level < AccessLevel::ReadWrite {
        // A session may still use what was revoked just now, here or by an earlier step of this reconcile.
        server.set_access(&row.placement, level).await?;
    }
    if report.left.is_empty() {
        return Ok(());
    }
    let error =
        Error::MissingRight(format!("in database {}: {}", row.placement.database, report.left.join("; ")));
    step.replace_record(step.context.registry.set_access(row.id, None).await?.record);
    Err(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use AccessLevel::{Blocked, ReadOnly, ReadWrite};

    #[test]
    fn level_widens_what_is_recorded_or_what_postgresql_shows() {
        assert!(widens(ReadWrite, None, None) && widens(ReadWrite, Some(ReadOnly), Some(ReadOnly)));
        // The registry is older than a hold.
        assert!(
            widens(ReadWrite, Some(ReadWrite), Some(Blocked))
                && widens(ReadOnly, Some(ReadOnly), Some(Blocked))
        );
        // Manual changes: it is not known which.
        assert!(widens(ReadWrite, Some(ReadWrite), None));
        // A restriction waits for nothing.
        assert!(
            !widens(ReadOnly, Some(ReadWrite), Some(ReadWrite)) && !widens(ReadOnly, Some(ReadOnly), None)
        );
        assert!(!widens(Blocked, Some(ReadWrite), Some(Blocked)) && !widens(Blocked, None, None));
    }
}
