//! EnforceAccess: the login becomes a member of exactly the group of its access level, and gets CONNECT on its own
//! database only; then PostgreSQL is read to prove it. The level is the strictest of all that narrows access; before it
//! is widened, the API server is asked for holds that the watch may not have shown yet.

use super::{Run, StepError, restore_marks};
use crate::{controller::tenant::holds::refresh_holds, domain::access::AccessLevel};

pub async fn run(run: &mut Run<'_, '_>) -> Result<(), StepError> {
    run.changed();
    let (wanted, recorded) = (run.standing()?.access, run.row()?.access);
    if wanted > recorded.unwrap_or(AccessLevel::Blocked) {
        refresh_holds(run.visit, run.context).await?;
    }
    let level = run.standing()?.access;
    restore_marks(run).await?;
    let row = run.row()?;
    run.server()?.set_access(row.id, &row.database_name, &run.login()?, level).await?;
    run.context.registry.set_access(row.id, Some(level)).await?;
    run.row_mut()?.access = Some(level);
    Ok(())
}
