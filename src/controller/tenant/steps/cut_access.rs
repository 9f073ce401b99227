//! CutAccess: revokes LOGIN, the group and CONNECT from the login, ends its sessions, and reads PostgreSQL until no session
//! is left. Only then is access recorded as revoked. Needs nothing but the recorded names. An application's migration that is
//! under way ends too.

use crate::{
    controller::tenant::{failure::StepError, step_context::StepContext},
    domain::{access::AccessLevel, names::migration_login_name},
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let level = AccessLevel::Blocked;
    // Access was granted again after it was revoked: it is not reported as revoked until that is verified again.
    if step.row()?.access == Some(level) {
        step.replace_record(step.context.registry.set_access(step.row()?.id, None).await?.record);
    }
    let server = step.server()?.for_restriction();
    step.restore_ownership(&server).await?;
    let row = step.row()?;
    server.set_access(&row.placement, level).await?;
    let migration_login = migration_login_name(&row.placement.database);
    step.replace_record(step.context.registry.set_access(row.id, Some(level)).await?.record);
    server.close_migration_login(&migration_login).await?;
    Ok(())
}
