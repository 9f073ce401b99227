//! EnforceAccess: makes the login a member of exactly the group of its access level, grants CONNECT on its own database only,
//! and reads PostgreSQL to verify that. The level is the strictest of all restrictions. Before access is widened, holds are
//! read from the API server, since the watch may be behind.

use crate::{
    controller::tenant::{failure::StepError, holds::refresh_holds, step_context::StepContext},
    domain::access::AccessLevel,
};

pub async fn run(step: &mut StepContext<'_, '_>) -> Result<(), StepError> {
    let (wanted, recorded) = (step.access()?.access, step.row()?.access);
    if wanted > recorded.unwrap_or(AccessLevel::Blocked) {
        if let Some(record) = &mut step.subject.record {
            refresh_holds(step.subject.tenant, record, step.context).await?;
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
    step.replace_record(step.context.registry.set_access(row.id, Some(level)).await?.record);
    Ok(())
}
